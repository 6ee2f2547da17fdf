"""How windows of a source stand: the latest attempt at each, with its counts. Reading only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Engine, func, select

from dagster_l2.batch.readable import READABLE
from dagster_l2.batch.tables import batch_attempts
from dagster_l2.batch.windows import Window


@dataclass(frozen=True, slots=True)
class Covered:
    """A window and the latest attempt at it."""

    window: Window
    status: str
    job_id: str
    records: int | None
    availability_pct: float | None
    bytes: int | None
    error_message: str | None


def coverage(
    engine: Engine, source: str, asked: Mapping[str, Any], *, start: datetime, end: datetime
) -> list[Covered]:
    """The windows of a source in a span that were tried, by their start.

    Parameters
    ----------
    asked
        Values that the query of an attempt must have, such as ``{"sensor": "ALL"}``.
    start, end
        The span, with zone; a window counts when it begins in it.
    """
    columns = batch_attempts.c
    inside = (columns.source == source, columns.window_start >= start, columns.window_start < end)
    newest = select(func.max(columns.attempt_id)).where(*inside).group_by(columns.unit_id)
    query = select(*READABLE).where(columns.attempt_id.in_(newest)).order_by(columns.attempt_id)
    found: dict[Window, Covered] = {}
    with engine.connect() as connection:
        for row in connection.execute(query).mappings():
            was_asked = row["query"] if isinstance(row["query"], dict) else {}
            if any(was_asked.get(name) != value for name, value in asked.items()):
                continue
            if row["window_start"] is None or row["window_end"] is None:
                continue  # torn
            window = Window(row["window_start"].astimezone(UTC), row["window_end"].astimezone(UTC))
            found[window] = Covered(
                window=window,
                status=row["status"],
                job_id=row["job_id"],
                records=row["records"],
                availability_pct=row["availability_pct"],
                bytes=row["bytes"],
                error_message=row["error_message"],
            )
    return [found[window] for window in sorted(found)]
