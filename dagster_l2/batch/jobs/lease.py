"""The heartbeat of a task: its lease is kept while the work goes on, and its loss is noticed.

How a lease lies in the database is in ``tasks``.
"""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Self

from sqlalchemy.exc import SQLAlchemyError

from dagster_l2.batch.jobs.tasks import TaskStore

_LOG = logging.getLogger(__name__)


class Lease:
    """A task's lease for the time of a ``with`` block; ``is_lost`` once it may be another's."""

    def __init__(self, store: TaskStore, task_id: str, holder: str, lease_s: float) -> None:
        self._store, self._task_id, self._holder, self._lease_s = store, task_id, holder, lease_s
        self._over = threading.Event()
        self._lost = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name=f"lease-{task_id}")

    @property
    def is_lost(self) -> bool:
        """Whether another worker may have the task by now."""
        return self._lost.is_set()

    def renew(self) -> bool:
        """Ask the database whether the lease is still ours, and make it last on."""
        if not self._store.keep(self._task_id, self._holder, lease_s=self._lease_s):
            self._lost.set()
        return not self.is_lost

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(timeout=self._lease_s)

    def _beat(self) -> None:
        kept_at = time.monotonic()
        while not self._over.wait(self._lease_s / 3) and not self.is_lost:
            try:
                before = time.monotonic()
                if self.renew():
                    kept_at = before
            except SQLAlchemyError as error:
                _LOG.warning("The lease of task %s was not renewed: %s", self._task_id, type(error).__name__)
                if time.monotonic() - kept_at > self._lease_s:
                    self._lost.set()
