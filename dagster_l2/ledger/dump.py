"""The whole ledger as a file of JSON lines, and back into an empty one; so it moves between databases.

Every row of every append-only table goes in as it is, with its id. The lines and their hashes are in
``chain``; where the file lies is the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from dagster_l2.base.columns import UtcDateTime
from dagster_l2.ledger.base import Base, shown
from dagster_l2.ledger.chain import BadDump, Chain, Dumped, Line, content, verified, verify
from dagster_l2.ledger.database import translate
from dagster_l2.ledger.errors import LedgerUnavailable
from dagster_l2.ledger.guards import APPEND_ONLY
from dagster_l2.ledger.migrate import check_known, head
from dagster_l2.ledger.tables import metadata

_PAGE = 2_000
_TICK = 5_000  # rows between two calls of a progress

Progress = Callable[[str, int], None]
"""Called now and then with what is being done, and the rows done."""

Numbered = tuple[int, dict[str, Any]]
"""The row of a line, with the line's number."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """What an import did: the dump, and whether its rows are new (else all were there already)."""

    dump: Dumped
    is_new: bool


class Dumping(Base):
    """The ledger to a file and from one."""

    def dump(
        self, file: BinaryIO, *, others: Sequence[sa.Table] = (), progress: Progress | None = None
    ) -> Dumped:
        """Write everything as of one moment to ``file``, in an order that depends on the rows alone.

        Parameters
        ----------
        others : sequence of Table
            The append-only tables of other rooms that lie in the same database.
        """
        chain = Chain(head())
        with self._database.reading(snapshot=True) as connection:
            for line in _lines(connection, chain, _tables(others), _ticking(progress, "written")):
                file.write(line)
        return chain.dumped()

    def load(
        self, path: Path, *, others: Sequence[sa.Table] = (), progress: Progress | None = None
    ) -> Loaded:
        """Take a dump into this ledger, which must be empty: all of it in one transaction, or nothing.

        The whole chain of hashes is verified before the first row goes in, and every row goes through the
        guards. A second time it finds that all is there and does nothing. The dump may be of an older
        revision: tables that came later stay empty.

        Raises
        ------
        BadDump
            When a line is not as it was written, or a row is refused; names the line.
        LedgerUnavailable
            When the ledger has other rows already, or the dump is of a newer version.
        """
        tables = _tables(others)
        with path.open("rb") as file:
            dump = verify(_counted(file, _ticking(progress, "verified")), str(path))
            check_known(dump.revision, str(path))
            file.seek(0)
            with self._database.writing() as connection:
                _keep_others_out(connection, tables)
                if _has_rows(connection, tables):
                    self._must_be(connection, dump, tables, path)
                    return Loaded(dump, is_new=False)
                lines = verified(_counted(file, _ticking(progress, "imported")), str(path))
                _insert_all(connection, tables, lines, path, self._database.place)
                _set_sequences(connection, tables, self._database.schema)
        return Loaded(dump, is_new=True)

    def _must_be(
        self, connection: sa.Connection, dump: Dumped, tables: dict[str, sa.Table], path: Path
    ) -> None:
        """Raise unless the rows that are there are those of ``dump``."""
        chain = Chain(dump.revision)
        for _line in _lines(connection, chain, tables, lambda _rows: None):
            pass
        if chain.hash != dump.hash:
            raise LedgerUnavailable(
                f"The ledger in {self._database.place} has {chain.rows} rows that are not those of {path};"
                " import into an empty one."
            )


def _tables(others: Sequence[sa.Table]) -> dict[str, sa.Table]:
    """The append-only tables by name, in the order in which they are written and can be read in."""
    found = {table.name: table for table in (*metadata.sorted_tables, *others)}
    return {name: found[name] for name in APPEND_ONLY}


def _lines(
    connection: sa.Connection, chain: Chain, tables: dict[str, sa.Table], tick: Callable[[int], None]
) -> Iterator[bytes]:
    yield chain.first()
    for name, table in tables.items():
        times = [column.name for column in table.c if isinstance(column.type, UtcDateTime)]
        floats = [column.name for column in table.c if isinstance(column.type, sa.Float)]
        query = sa.select(table).order_by(_key(connection, name, table))
        result = connection.execute(query, execution_options={"yield_per": _PAGE})
        for row in result.mappings():
            values = dict(row)
            for column in times:
                if values[column] is not None:
                    values[column] = values[column].isoformat(timespec="microseconds")
            for column in floats:
                if values[column] is not None:
                    values[column] += 0.0  # SQLite has no negative zero
            yield chain.row(name, values)
            tick(chain.rows)
    yield chain.last()


def _key(connection: sa.Connection, name: str, table: sa.Table) -> sa.ColumnElement[Any]:
    """What a table is ordered by: by bytes, since PostgreSQL sorts texts by the language it is set to."""
    key = table.c[APPEND_ONLY[name]]
    is_text = isinstance(key.type, sa.Text) and connection.dialect.name == "postgresql"
    return sa.collate(key, "C") if is_text else key


def _keep_others_out(connection: sa.Connection, tables: dict[str, sa.Table]) -> None:
    """On PostgreSQL nobody else writes until the import ends; SQLite has one writer anyway."""
    if connection.dialect.name == "postgresql":
        quoted = connection.dialect.identifier_preparer
        schema = connection.get_execution_options()["schema_translate_map"][None]
        names = ", ".join(f"{quoted.quote(schema)}.{quoted.quote(name)}" for name in tables)
        connection.exec_driver_sql(f"LOCK TABLE {names} IN SHARE ROW EXCLUSIVE MODE")


def _has_rows(connection: sa.Connection, tables: dict[str, sa.Table]) -> bool:
    return any(
        connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first()
        for table in tables.values()
    )


def _insert_all(
    connection: sa.Connection,
    tables: dict[str, sa.Table],
    lines: Iterator[Line],
    path: Path,
    place: str,
) -> None:
    name, part = "", list[Numbered]()
    for line in lines:
        if line.body is None:
            continue
        number, said = line.number, content(line.body, line.number, str(path))
        table = tables.get(str(said.get("table")))
        try:
            if table is None:
                raise ValueError("no table of the ledger is named")
            row = _row(table, said.get("row"), line.body)
        except (ValueError, OverflowError) as error:
            raise BadDump(
                f"Line {number} of {path} can't be imported: {error}; nothing was imported."
            ) from None
        if part and (table.name != name or len(part) == _PAGE):
            _insert(connection, tables[name], part, path, place)
            part = []
        name = table.name
        part.append((number, row))
    if part:
        _insert(connection, tables[name], part, path, place)


def _insert(connection: sa.Connection, table: sa.Table, part: list[Numbered], path: Path, place: str) -> None:
    """Insert rows at once; when one is refused, one at a time to name its line."""
    try:
        with connection.begin_nested():
            connection.execute(sa.insert(table), [row for _number, row in part])
        return
    except SQLAlchemyError as error:
        if len(part) == 1:
            refusal = translate(error, place)
            if isinstance(refusal, LedgerUnavailable):
                raise
            number, row = part[0]
            whose = f", OP {shown(row['op_id'])}" if "op_id" in row else ""
            raise BadDump(
                f"Line {number} of {path} ({table.name}{whose}) can't be imported, nothing was: {refusal}"
            ) from error
    for one in part:
        _insert(connection, table, [one], path, place)


def _row(table: sa.Table, values: Any, body: bytes) -> dict[str, Any]:
    """The values of a row as the columns take them; ValueError says what is wrong with them."""
    takers = _takers(table)
    if not isinstance(values, dict) or values.keys() != takers.keys():
        raise ValueError(f"it has not the columns of {table.name}")
    if b"\\ud" in body:  # perhaps half a surrogate pair, which no export to parquet would take
        try:
            json.dumps(values, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError("a text in it is not valid Unicode") from None
    for name, take in takers.items():
        value = values[name]
        if value is not None and take is not None:
            values[name] = taken = take(value)
            if taken is None:
                raise ValueError(f"its {name} is {value!a}, which the column does not take")
    return values


@lru_cache
def _takers(table: sa.Table) -> dict[str, Callable[[Any], Any] | None]:
    """For each column what makes its value of JSON's, None of what it doesn't take; None for JSON itself.

    SQLite would store anything in any column.
    """
    return {
        column.name: next((take for kind, take in _TAKERS if isinstance(column.type, kind)), None)
        for column in table.c
    }


def _take_time(value: Any) -> datetime | None:
    moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    return moment.astimezone(UTC) if moment is not None and moment.tzinfo is not None else None


def _take_text(value: Any) -> str | None:
    return value if isinstance(value, str) and "\0" not in value else None


def _take_number(value: Any) -> int | None:
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _take_float(value: Any) -> float | None:
    return float(value) if type(value) in (int, float) else None


_TAKERS: tuple[tuple[type[sa.types.TypeEngine[Any]], Callable[[Any], Any]], ...] = (
    (UtcDateTime, _take_time),
    (sa.Text, _take_text),
    (sa.Integer, _take_number),
    (sa.Float, _take_float),
)


def _set_sequences(connection: sa.Connection, tables: dict[str, sa.Table], schema: str | None) -> None:
    """Let PostgreSQL draw ids above those that came in; SQLite does by itself."""
    if schema is None:
        return
    for table in tables.values():
        column = table.autoincrement_column
        if column is not None and column.identity is not None:
            highest = connection.execute(sa.select(sa.func.max(column))).scalar()
            if highest is not None:
                sequence = sa.func.pg_get_serial_sequence(f'"{schema}"."{table.name}"', column.name)
                connection.execute(sa.select(sa.func.setval(sequence, highest)))


def _ticking(progress: Progress | None, what: str) -> Callable[[int], None]:
    def tick(rows: int) -> None:
        if progress is not None and rows % _TICK == 0:
            progress(what, rows)

    return tick


def _counted(file: BinaryIO, tick: Callable[[int], None]) -> Iterator[bytes]:
    for number, line in enumerate(file):
        yield line
        tick(number)
