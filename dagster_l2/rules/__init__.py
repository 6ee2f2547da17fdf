"""The rules as data: the SQL that decides and its seeds, kept by version, run over the bronze of a moment.

No rule is written here: dbt has compiled them. Runs are in memory, so nothing that counts is touched; what a
verdict moves is the ledger's to say.
"""

from dagster_l2.rules.book import RuleBook, Seed, read_book
from dagster_l2.rules.kept import keep_book, kept_books
from dagster_l2.rules.run import Changed, ImpossibleThreshold, Judged, UnknownThreshold, judge, judge_changed

__all__ = [
    "Changed",
    "ImpossibleThreshold",
    "Judged",
    "RuleBook",
    "Seed",
    "UnknownThreshold",
    "judge",
    "judge_changed",
    "keep_book",
    "kept_books",
    "read_book",
]
