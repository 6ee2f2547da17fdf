"""The books of rules that were in force: a row of bronze each, never changed, so that they run again."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from dagster_l2.lake import BronzeTable
from dagster_l2.rules.book import RuleBook

_SCHEMA: dict[str, pl.DataType] = {
    "fingerprint": pl.String(),
    "rule_version": pl.String(),
    "kept_at": pl.Datetime("us"),
    "book": pl.String(),
}


def _table(lake: Path) -> BronzeTable:
    return BronzeTable(lake, "rule_versions", _SCHEMA)


def keep_book(lake: Path, book: RuleBook) -> bool:
    """Write a book that the lake does not have yet; whether it was new."""
    table = _table(lake)
    table.ensure()
    known = table.scan().select("fingerprint", "rule_version").collect().rows()
    if (book.fingerprint, book.rule_version) in known:
        return False
    row = {
        "fingerprint": book.fingerprint,
        "rule_version": book.rule_version,
        "kept_at": datetime.now(UTC).replace(tzinfo=None),
        "book": book.to_json(),
    }
    frame = pl.DataFrame([row], schema=_SCHEMA)
    table.append(frame, job_id=f"rules-{len(known) + 1:05d}", part=book.fingerprint[:12])
    return True


def kept_books(lake: Path) -> list[RuleBook]:
    """All books, the newest last; none before the first build."""
    rows = _table(lake).scan().sort("kept_at").select("book").collect()
    return [RuleBook.from_json(text) for text in rows["book"]]
