"""The log of attempts for one who reads it: what can't be read in a row is None.

A torn row must not stop every run that comes across it. Whoever copies the log takes the table itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from dagster_l2.base.columns import UtcDateTime
from dagster_l2.batch.tables import batch_attempts


class _Lenient(TypeDecorator[Any]):
    __abstract__ = True
    cache_ok = True

    def result_processor(self, dialect: sa.Dialect, coltype: Any) -> Callable[[Any], Any]:
        """See `sqlalchemy.types.TypeDecorator`."""
        process = super().result_processor(dialect, coltype)

        def read(value: Any) -> Any:
            try:
                return process(value) if process else value
            except (TypeError, ValueError):
                return None

        return read


class _Moment(_Lenient, UtcDateTime):
    cache_ok = True


class _Query(_Lenient):
    impl = sa.JSON(none_as_null=True)
    cache_ok = True


class _Count(_Lenient):
    impl = sa.BigInteger
    cache_ok = True

    def process_result_value(self, value: Any, _dialect: sa.Dialect) -> int | None:
        return None if value is None else int(value)


class _Real(_Lenient):
    impl = sa.Float(53)
    cache_ok = True

    def process_result_value(self, value: Any, _dialect: sa.Dialect) -> float | None:
        return None if value is None else float(value)


_READ_AS = {UtcDateTime: _Moment, sa.JSON: _Query, sa.BigInteger: _Count, sa.Float: _Real}


def readable(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """A column of the log without what can't be read in it."""
    kind = next((kind for plain, kind in _READ_AS.items() if isinstance(column.type, plain)), None)
    return sa.type_coerce(column, kind()).label(column.name) if kind else column


READABLE = tuple(map(readable, batch_attempts.c))
