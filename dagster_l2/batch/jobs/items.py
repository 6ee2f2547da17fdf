"""The list of items that failed or are gone for good: class, status, attempts, first and last time.

An item is one chunk of one window, known by the hash of the window's inputs and the chunk's span. An item
in this list is never counted as done.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from dagster_l2.base.files import step
from dagster_l2.batch.job_tables import batch_items
from dagster_l2.batch.source import FailureClass

_ITEM = batch_items.c


@dataclass(frozen=True, slots=True)
class Item:
    """One entry. ``status`` is FAILED, REOPENED (to be tried again on a person's word), GONE or DONE."""

    unit_id: str
    item_id: str
    job_id: str
    failure_class: FailureClass
    status: str
    attempts: int
    error_type: str | None
    error_message: str | None
    first_at: datetime
    last_at: datetime


class Items:
    """The list in one state database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def note(
        self,
        *,
        unit_id: str,
        item_id: str,
        job_id: str,
        task_id: str,
        source: str,
        failure_class: FailureClass,
        error: BaseException,
    ) -> None:
        """Note one failure; a second one of the same item adds to its attempts."""
        now = datetime.now(UTC)
        is_gone = failure_class is FailureClass.GONE
        values = {
            "job_id": job_id,
            "task_id": task_id,
            "source": source,
            "failure_class": failure_class,
            "status": "GONE" if is_gone else "FAILED",
            "error_type": type(error).__name__,
            "error_message": " ".join(str(error).split())[:1000],
            "last_at": now,
        }
        with self._engine.begin() as connection:
            dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
            first = {"unit_id": unit_id, "item_id": item_id, "attempts": 1, "first_at": now}
            query = dialect.insert(batch_items).values(values | first)
            again = values | {"attempts": _ITEM.attempts + 1}
            connection.execute(query.on_conflict_do_update(index_elements=["unit_id", "item_id"], set_=again))
            step("database: item")

    def done(self, unit_id: str, item_ids: Iterable[str]) -> None:
        """Note that items which had failed have been fetched after all."""
        names = list(item_ids)
        same = (_ITEM.unit_id == unit_id, _ITEM.item_id.in_(names), _ITEM.status != "DONE")
        with self._engine.begin() as connection:
            connection.execute(
                sa.update(batch_items).where(*same).values(status="DONE", last_at=datetime.now(UTC))
            )
            step("database: items done")

    def reopen(self, job_id: str, classes: Iterable[FailureClass]) -> int:
        """Let the failed items of a job be tried again; how many. What is gone stays gone."""
        wanted = [kind for kind in classes if kind is not FailureClass.GONE]
        same = (_ITEM.job_id == job_id, _ITEM.failure_class.in_(wanted), _ITEM.status == "FAILED")
        with self._engine.begin() as connection:
            return connection.execute(sa.update(batch_items).where(*same).values(status="REOPENED")).rowcount

    def of_units(self, unit_ids: Sequence[str]) -> dict[str, dict[str, Item]]:
        """The entries of several windows, by window and item."""
        out: dict[str, dict[str, Item]] = {unit_id: {} for unit_id in unit_ids}
        for start in range(0, len(unit_ids), 500):
            for item in self._select(_ITEM.unit_id.in_(unit_ids[start : start + 500])):
                out[item.unit_id][item.item_id] = item
        return out

    def of_job(self, job_id: str) -> list[Item]:
        """The entries that a job wrote last."""
        return self._select(_ITEM.job_id == job_id)

    def gone(self) -> list[Item]:
        """Everything that is gone for good."""
        return self._select(_ITEM.status == "GONE")

    def _select(self, condition: sa.ColumnElement[bool]) -> list[Item]:
        names: Sequence[str] = Item.__slots__
        query = sa.select(*(batch_items.c[name] for name in names)).where(condition)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(_ITEM.unit_id, _ITEM.item_id)).mappings().all()
        return [Item(**{**row, "failure_class": FailureClass(row["failure_class"])}) for row in rows]
