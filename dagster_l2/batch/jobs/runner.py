"""One process at work on a job: claim a task, do it, and start the next phase when it was the last.

How many processes there are, and who starts them, is in ``coordinator`` and ``executors``.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from dagster_l2.base.telemetry import at_work_on
from dagster_l2.batch.jobs.aggregate import run_aggregator
from dagster_l2.batch.jobs.folders import JobFolders, JobOrder, read_batch
from dagster_l2.batch.jobs.holders import new_holder
from dagster_l2.batch.jobs.lease import Lease
from dagster_l2.batch.jobs.model import JobError, Role, Status, Stopped, Task
from dagster_l2.batch.jobs.phases import Standing, advance
from dagster_l2.batch.jobs.tasks import TaskStore
from dagster_l2.batch.jobs.worker import BatchWorker
from dagster_l2.batch.source import Source

_LOG = logging.getLogger(__name__)
_BUSY_TIMEOUT_S = 60
_SECRET = ("password", "sslpassword")


class Runner:
    """Does the tasks of one job in this process; its methods may be called in several threads.

    Parameters
    ----------
    stop
        Says whether to stop.
    on_end
        Told each task of a batch that was done, in the thread that did it.
    """

    def __init__(
        self,
        order: JobOrder,
        source: Source,
        engine: sa.Engine,
        *,
        stop: Callable[[], bool],
        on_end: Callable[[Task], None] | None = None,
    ) -> None:
        self._on_end = on_end
        self.order, self.store = order, TaskStore(engine)
        self._source, self._stop = source, stop
        self._folders = JobFolders.of(order)
        self._lease_s = order.definition.executor.lease_s
        self._worker = BatchWorker(order, source, engine, stop=stop)

    def work(self, batch_id: str | None = None) -> bool:
        """Do the next free task, of a batch if one is named; False when there is none."""
        if self._stop():
            return False
        holder = new_holder()
        task = self.store.claim(self.order.job_id, holder, lease_s=self._lease_s, batch_id=batch_id)
        if task is None:
            return False
        with at_work_on(job_id=task.job_id, task_id=task.task_id, batch_id=task.batch_id):
            _LOG.info("Task claimed.", extra={"group": task.group, "claims": task.claims})
            if task.role is Role.AGGREGATOR:
                self._aggregate(task, holder)
            else:
                _order, batch = read_batch(self._folders.batch(str(task.batch_id)))
                self._worker.run(task, batch, holder)
                if self._on_end is not None:
                    self._on_end(task)
        return True

    def advance(self) -> Standing:
        """Start the next phase if the present one is over."""
        return advance(self.order, self.store)

    def finish_phases(self) -> None:
        """Start the next phase if the present one is over, and aggregate if that is it."""
        while not self._stop() and self.advance() is Standing.MOVED:
            free = self.store.claimable(self.order.job_id)
            if any(task.role is Role.AGGREGATOR for task in free):
                self.work()

    def _go_on(self) -> None:
        if self._stop():
            raise Stopped

    def _aggregate(self, task: Task, holder: str) -> None:
        error: str | None = None
        try:
            with Lease(self.store, task.task_id, holder, self._lease_s) as lease:
                try:
                    tasks = self.store.tasks(self.order.job_id)
                    run_aggregator(self.order, self._source, task, tasks, self._go_on)
                except Stopped:
                    raise
                except JobError as found:
                    error = str(found)
                    _LOG.warning("Merge failed: %s", error)
                if lease.is_lost:
                    return
                status = Status.FAILED if error else Status.SUCCESS
                self.store.finish(task.task_id, holder, status, error=error)
        except BaseException:
            self.store.release(task.task_id, holder)
            raise


def load_source(handler: str, params: Mapping[str, Any]) -> Source:
    """Make a source by the import path ``module:function``.

    Raises
    ------
    JobError
        When there is no such function, or it asks for other parameters than the job has.
    """
    module, _, name = handler.partition(":")
    try:
        make: Callable[..., Source] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError):
        raise JobError(f"There is no handler {handler}; correct it in the job's definition.") from None
    try:
        inspect.signature(make).bind(**params)
    except TypeError as error:
        raise JobError(
            f"The handler {handler} cannot take up the job ({error}): another version began it;"
            " start the same work anew."
        ) from None
    return make(**params)


def open_engine(url: str, schema: str | None) -> sa.Engine:
    """The state database, for a worker in a process of its own; it makes no tables.

    A password that the address lacks is taken from where PostgreSQL's own library looks for it.
    """
    address = sa.make_url(url)
    if address.get_backend_name() == "sqlite":
        return sa.create_engine(address, connect_args={"timeout": _BUSY_TIMEOUT_S})
    translate = {"schema_translate_map": {None: schema}} if schema else {}
    if address.drivername == "postgresql":
        address = address.set(drivername="postgresql+psycopg")
    return sa.create_engine(
        address, pool_pre_ping=True, isolation_level="READ COMMITTED", execution_options=translate
    )


def without_password(url: str) -> str:
    """An address that may lie in a file."""
    address = sa.make_url(url)
    parts = {name: getattr(address, name) for name in ("drivername", "username", "host", "port", "database")}
    query = {name: value for name, value in address.query.items() if name not in _SECRET}
    return sa.URL.create(**parts, query=query).render_as_string(hide_password=False)


def work_on_batch(
    batch_file: Path, database_url: str | None = None, *, stop: Callable[[], bool] | None = None
) -> None:
    """Do the task of a batch, and what follows it; all that is needed is in the batch file.

    Parameters
    ----------
    database_url
        With its password, where the one in the batch file is not enough.
    stop
        Says whether to stop.

    Raises
    ------
    Stopped
        When told to stop.
    """
    order, batch = read_batch(batch_file)
    engine = open_engine(database_url or order.database_url, order.database_schema)
    source = load_source(order.definition.handler, order.source_params)
    try:
        runner = Runner(order, source, engine, stop=stop or threading.Event().is_set)
        if runner.work(batch.batch_id):
            runner.finish_phases()
    finally:
        engine.dispose()
        close_source(source)


def close_source(source: Source) -> None:
    """Close a source that can be closed."""
    close = getattr(source, "close", None)
    if callable(close):
        close()
