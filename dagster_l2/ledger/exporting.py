"""What leaves the ledger for the lake: its growing tables as Arrow batches, and how far they are settled.

Nothing here writes, and nothing knows of files. Which rows the lake has is the exporter's to find out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import sqlalchemy as sa

from dagster_l2.base.columns import UtcDateTime
from dagster_l2.ledger.base import Base
from dagster_l2.ledger.tables import op_annotations, op_transitions

if TYPE_CHECKING:
    import pyarrow as pa

Growing = Literal["transitions", "annotations"]

_TABLES: dict[str, tuple[sa.Table, sa.Column[int]]] = {
    "transitions": (op_transitions, op_transitions.c.transition_id),
    "annotations": (op_annotations, op_annotations.c.annotation_id),
}
_PAGE = 5_000  # rows that are Python objects at a time, about 10 MB
_POLL_S = 0.02

_LAST_DRAWN = sa.text(
    "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence(:table, :column)::regclass), 0)"
)
# A prepared transaction has no pid, and had another name before it was prepared.
_INSERTING = sa.text(
    "SELECT DISTINCT virtualtransaction, pid IS NULL FROM pg_locks"
    " WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND relation = CAST(:table AS regclass) AND pid IS DISTINCT FROM pg_backend_pid()"
)


class Exporting(Base):
    """The tables that only grow, as an exporter reads them."""

    def settled_id(self, name: Growing, *, wait_s: float = 5.0) -> int | None:
        """The highest id up to which no row can appear any more; None when that can't be said now.

        On SQLite that is the highest there is: one writes at a time, and ids are drawn in the order of
        commits. On PostgreSQL a transaction that drew a low id may commit after one that drew a higher
        one. But an insert takes the RowExclusiveLock of its table before it draws the id, and keeps it
        until its rows are visible. So the last id drawn is read first and the holders of that lock after
        it: whoever drew an id up to that one is among them or has ended, and whoever comes later draws a
        higher one. Once those holders have ended, all is decided up to that id. Writers are never held up,
        and new ones don't prolong the wait. The sequence must not cache ids per session; it doesn't.

        Parameters
        ----------
        wait_s : float
            How long to wait for transactions that are at work, in seconds.
        """
        table, key = _TABLES[name]
        if self._database.schema is None:
            return self._highest(sa.select(sa.func.max(key)))
        place = {"table": f'"{self._database.schema}"."{table.name}"'}
        ((last,),) = self._fresh(_LAST_DRAWN, {**place, "column": key.name})
        holders = {name for name, _ in self._fresh(_INSERTING, place)}
        deadline = time.monotonic() + wait_s
        while holders:
            if time.monotonic() > deadline:
                return None
            time.sleep(_POLL_S)
            now = self._fresh(_INSERTING, place)
            holders = {name for name, is_prepared in now if is_prepared or name in holders}
        # Not the last id drawn: where that was rolled back, a copy of the ledger may give it to another row.
        return self._highest(sa.select(sa.func.max(key)).where(key <= last))

    def record_batches(
        self, name: Growing, *, after: int = 0, through: int | None = None, rows: int = 10_000
    ) -> Iterator[pa.RecordBatch]:
        """The rows with an id above ``after`` and up to ``through``, by ascending id.

        Times are UTC without zone in microseconds, details their JSON text. Each page is a transaction of
        its own, so that a long export holds back neither SQLite's log nor PostgreSQL's vacuum.

        Parameters
        ----------
        rows : int
            Rows per batch; only the last one has fewer.
        """
        import pyarrow as pa  # a third of a second, which only an export should pay

        table, key = _TABLES[name]
        schema = pa.schema([(column.name, _arrow_type(column)) for column in table.c])
        query = sa.select(*(_plain(column) for column in table.c)).order_by(key)
        if through is not None:
            query = query.where(key <= through)
        position = list(table.c).index(key)
        pages: list[pa.RecordBatch] = []
        wanted, is_more = rows, True
        while is_more:
            page = self._page(query.where(key > after).limit(min(_PAGE, wanted)))
            is_more = len(page) == min(_PAGE, wanted)
            if page:
                after = page[-1][position]
                pages.append(_as_arrow(page, schema))
                wanted -= len(page)
            if pages and (wanted == 0 or not is_more):
                yield pa.Table.from_batches(pages).combine_chunks().to_batches()[0]
                pages, wanted = [], rows

    def _page(self, query: sa.Select[Any]) -> Sequence[Sequence[Any]]:
        with self._database.reading() as connection:
            if self._database.schema is not None:
                connection.exec_driver_sql("SET LOCAL TimeZone = 'UTC'")
                connection.exec_driver_sql("SET LOCAL DateStyle = 'ISO'")
            cursor = connection.execute(query).cursor
            assert cursor is not None
            return cursor.fetchall()  # past SQLAlchemy's rows, which would take as long as the query

    def _highest(self, query: sa.Select[Any]) -> int:
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar() or 0)

    def _fresh(self, query: sa.TextClause, values: dict[str, str]) -> Sequence[Any]:
        """The rows as of a snapshot of their own."""
        with self._database.reading() as connection:
            return connection.execute(query, values).all()


def _plain(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """A column as the driver hands it over fastest: numbers, or the text that the database has or makes."""
    is_text = isinstance(column.type, sa.Text | sa.Integer)
    return column if is_text else sa.cast(column, sa.Text).label(column.name)


def _arrow_type(column: sa.Column[Any]) -> pa.DataType:
    import pyarrow as pa

    if isinstance(column.type, UtcDateTime):
        return pa.timestamp("us")
    return pa.int64() if isinstance(column.type, sa.Integer) else pa.string()


def _as_arrow(page: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    import pyarrow as pa

    columns = [
        _as_array(values, field) for values, field in zip(zip(*page, strict=True), schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _as_array(values: Sequence[Any], field: pa.Field) -> pa.Array:
    import pyarrow as pa

    if pa.types.is_timestamp(field.type):
        texts = pa.array(values, pa.string())
        return texts.cast(pa.timestamp("us", "UTC")).cast(field.type)
    if field.name == "details":
        values = [_readable(text) for text in values]
    return pa.array(values, field.type)


def _readable(text: str) -> str:
    """Details as analysts search them: letters as they are, not their escapes."""
    if "\\u" not in text:
        return text
    return json.dumps(json.loads(text), ensure_ascii=False, separators=(",", ":"))
