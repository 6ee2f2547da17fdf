"""Running a book of rules in memory: over the bronze of a moment, as it is or with other thresholds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb

from dagster_l2.base.errors import WrongUse
from dagster_l2.lake import BronzeTable, register_views
from dagster_l2.rules.book import VERDICTS, Model, RuleBook, Seed

RULES = "qualification_rules"
_WHOLE = {"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT"}

Row = dict[str, Any]


class UnknownThreshold(WrongUse):
    """The rules have no such threshold."""


class ImpossibleThreshold(WrongUse):
    """A threshold cannot have that value."""


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdicts by OP, as rows of ``op_verdicts``, and what each failed criterion says in words.

    ``files`` are those of bronze that were read, by table.
    """

    verdicts: dict[str, Row]
    reasons: dict[str, dict[str, str]]
    files: dict[str, list[Path]]


@dataclass(frozen=True, slots=True)
class Changed:
    """The verdicts with the rules as they are and as they would be, and the thresholds in question.

    ``thresholds`` holds name, value in force and value tried.
    """

    before: Judged
    after: Judged
    thresholds: list[tuple[str, Any, Any]]


def judge(book: RuleBook, tables: Iterable[BronzeTable], *, known_at: datetime | None = None) -> Judged:
    """The verdicts of a book over bronze.

    Parameters
    ----------
    tables
        The tables of bronze; those that the book does not read are left out.
    known_at
        Only files that had been written by then count (UTC); all of them unless given.
    """
    with closing(duckdb.connect()) as connection:
        files = _build(connection, book, tables, known_at)
        return _judged(connection, files)


def judge_changed(book: RuleBook, tables: Iterable[BronzeTable], changes: Mapping[str, str]) -> Changed:
    """The verdicts of a book as it is, and with other thresholds.

    Parameters
    ----------
    changes
        Threshold (the name of a criterion, or of a column of ``qualification_rules``) to its value as text.

    Raises
    ------
    UnknownThreshold
        When the rules have no such threshold.
    ImpossibleThreshold
        When a value cannot be; the seed's own tests say so.
    """
    columns = {name: threshold_column(book, name) for name in changes}
    twice = [name for name, column in columns.items() if list(columns.values()).count(column) > 1]
    if twice:
        raise ImpossibleThreshold(f"{' and '.join(twice)} are one threshold; set it once.")
    # What cannot be is refused before the verdicts are judged: with many records that takes a while.
    with closing(duckdb.connect()) as empty:
        _create_seed(empty, book.seed(RULES))
        _change(empty, book, changes, columns)
    with closing(duckdb.connect()) as connection:
        files = _build(connection, book, tables, None)
        before = _judged(connection, files)
        thresholds = _change(connection, book, changes, columns)
        for model in book.dependents(RULES):
            _create(connection, model)
        return Changed(before, _judged(connection, files), thresholds)


def threshold_column(book: RuleBook, name: str) -> str:
    """The column of ``qualification_rules`` that a threshold's name means.

    Raises
    ------
    UnknownThreshold
        When there is none, or when the criterion of that name has no threshold that could be set.
    """
    criteria = book.seed("criteria")
    rows = [dict(zip(criteria.columns, row, strict=True)) for row in criteria.rows]
    by_criterion = {row["criterion"]: row["threshold_column"] for row in rows}
    columns = [column for column in book.seed(RULES).columns if column != "rule_version"]
    if name in columns:
        return name
    column = by_criterion.get(name)
    if column is not None:
        return str(column)
    known = ", ".join([*(criterion for criterion, column in by_criterion.items() if column), *columns])
    if name in by_criterion:
        raise UnknownThreshold(
            f"The criterion {name} has no threshold that could be set; these can: {known}."
        )
    raise UnknownThreshold(f"There is no threshold {name!a}; there are: {known}.")


def _build(
    connection: Any, book: RuleBook, tables: Iterable[BronzeTable], known_at: datetime | None
) -> dict[str, list[Path]]:
    connection.execute("set TimeZone = 'UTC'")
    wanted = [table for table in tables if table.name in book.sources]
    files = register_views(connection, wanted, known_at=known_at)
    for seed in book.seeds:
        _create_seed(connection, seed)
    for model in book.models:
        _create(connection, model)
    return files


def _create_seed(connection: Any, seed: Seed) -> None:
    columns = ", ".join(f'"{name}" {type_}' for name, type_ in seed.columns.items())
    connection.execute(f'create table "{seed.name}" ({columns})')
    if seed.rows:
        marks = ", ".join("?" for _ in seed.columns)
        connection.executemany(f'insert into "{seed.name}" values ({marks})', seed.rows)


def _create(connection: Any, model: Model) -> None:
    kind = "view" if model.is_view else "table"
    connection.execute(f'create or replace {kind} "{model.name}" as {model.sql}')


def _change(
    connection: Any, book: RuleBook, changes: Mapping[str, str], columns: Mapping[str, str]
) -> list[tuple[str, Any, Any]]:
    types = book.seed(RULES).columns
    done = []
    for name, text in changes.items():
        column = columns[name]
        (before,) = connection.execute(f'select "{column}" from {RULES}').fetchone()
        done.append((name, before, _set(connection, name, column, types[column], text)))
    for test in book.tests:
        if test.seed == RULES and connection.execute(test.sql).fetchone() is not None:
            said = [
                f"{name}={text}" for name, text in changes.items() if test.column in (None, columns[name])
            ]
            why = test.words or f"{test.column} cannot be that"
            raise ImpossibleThreshold(f"{', '.join(said)} is not possible: {why.strip().rstrip('.')}.")
    return done


def _set(connection: Any, name: str, column: str, type_: str, text: str) -> Any:
    is_odd = type_ in _WHOLE and re.fullmatch(r"[+-]?\d+", text.strip()) is None
    (value,) = connection.execute(f"select try_cast(? as {type_})", [text.strip()]).fetchone()
    if is_odd or value is None:
        kind = "a whole number" if type_ in _WHOLE else "a number"
        raise ImpossibleThreshold(f"{name}={text!a} is not possible: it takes {kind}.")
    connection.execute(f'update {RULES} set "{column}" = ?', [value])
    return value


def _judged(connection: Any, files: dict[str, list[Path]]) -> Judged:
    verdicts = _rows(connection, f"select * from {VERDICTS} order by op_id")
    criteria = _rows(
        connection,
        f"select op_id, criterion, explanation from op_criteria join {VERDICTS} using (op_id, instrument)"
        " where not passed",
    )
    reasons: dict[str, dict[str, str]] = {}
    for row in criteria:
        reasons.setdefault(row["op_id"], {})[row["criterion"]] = row["explanation"]
    return Judged({row["op_id"]: row for row in verdicts}, reasons, files)


def _rows(connection: Any, query: str) -> list[Row]:
    cursor = connection.execute(query)
    names = [column[0] for column in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
