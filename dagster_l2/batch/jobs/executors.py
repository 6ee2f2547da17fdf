"""Who does the tasks: a crew of threads, processes, Dask workers or a Slurm array, behind one call.

A crew is told of batch files and answers with futures of ``concurrent.futures``; which tasks there are is
asked of the state database. Dask is in ``executors_dask``, Slurm in ``executors_slurm``.
"""

from __future__ import annotations

import ipaddress
import logging
import multiprocessing
import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from multiprocessing.synchronize import Event
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import sqlalchemy as sa

from dagster_l2.base.errors import WrongUse
from dagster_l2.base.telemetry import carried
from dagster_l2.batch.jobs.definition import ExecutorRules
from dagster_l2.batch.jobs.folders import JobFolders, JobOrder
from dagster_l2.batch.jobs.model import JobError, Role
from dagster_l2.batch.jobs.runner import Runner, work_on_batch

_LOG = logging.getLogger(__name__)
_TICK_S = 0.2
_MAX_VAIN_ROUNDS = 3

_stop: Event | None = None


class Crew(ABC):
    """Workers on one job, from its start to its end; used as a context."""

    @abstractmethod
    def work(self, runner: Runner, *, stop: Callable[[], bool], halt: Callable[[], None]) -> None:
        """Do all tasks that are free now.

        ``halt`` is called when this thread is interrupted or a task raises, so that ``stop`` says so to all.
        """

    def close(self) -> None:  # noqa: B027 - threads have nothing to let go
        """Let the workers go."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Threads(Crew):
    """Threads of this process; each takes one task after the other."""

    def __init__(self, workers: int) -> None:
        self._workers = workers

    def work(self, runner: Runner, *, stop: Callable[[], bool], halt: Callable[[], None]) -> None:
        """See `Crew`."""

        def drain() -> None:
            while runner.work():
                pass

        with ThreadPoolExecutor(self._workers, thread_name_prefix="task") as pool:
            futures = {pool.submit(carried(drain)) for _ in range(self._workers)}
            _settle(futures, halt=halt, stop=stop)


class BatchCrew(Crew):
    """Workers in processes of their own, which are handed a batch file each.

    The task of a worker that dies is free again when its lease has ended, and then another is handed its
    batch file.
    """

    _vain = 0

    @abstractmethod
    def begin(self, batch_files: Sequence[Path]) -> set[Future[None]]:
        """Hand out batch files; those that are not can be handed out later.

        The future of a worker that died ends with a ``BrokenExecutor``.
        """

    @abstractmethod
    def tell(self) -> None:
        """Tell all workers to stop; it may be told twice."""

    def is_death(self, error: BaseException) -> bool:
        """Whether an error says that a worker died, which is nothing against its batch."""
        return isinstance(error, BrokenExecutor)

    def work(self, runner: Runner, *, stop: Callable[[], bool], halt: Callable[[], None]) -> None:
        """See `Crew`.

        Raises
        ------
        JobError
            When workers end again and again before they begin.
        """
        order, store = runner.order, runner.store
        folders = JobFolders.of(order)
        free = [task for task in store.claimable(order.job_id) if task.role is not Role.AGGREGATOR]
        if not free:
            runner.work()
            return
        before = store.tasks(order.job_id)

        def halt_all() -> None:
            self.tell()
            halt()

        def stop_all() -> bool:
            is_over = stop()
            if is_over:
                self.tell()
            return is_over

        futures = self.begin([folders.batch(str(task.batch_id)) for task in free])
        died = _settle(futures, halt=halt_all, stop=stop_all, is_death=self.is_death)
        if died is None:
            self._vain = 0
            return
        _LOG.warning("A worker of job %s died; its batch is done again.", order.job_id)
        self._vain = self._vain + 1 if store.tasks(order.job_id) == before else 0
        if self._vain >= _MAX_VAIN_ROUNDS:
            raise JobError(
                f"The workers of job {order.job_id} die before they begin ({died}); see their logs,"
                " then resume the job."
            ) from None


class Processes(BatchCrew):
    """Processes of this machine. One that dies breaks the pool, and the next round makes a new one."""

    def __init__(self, workers: int, database_url: str) -> None:
        self._workers, self._url = workers, database_url
        self._context = multiprocessing.get_context("spawn")
        self._told = self._context.Event()
        self._pool: ProcessPoolExecutor | None = None

    def begin(self, batch_files: Sequence[Path]) -> set[Future[None]]:
        """See `BatchCrew`."""
        if self._pool is None:
            self._pool = ProcessPoolExecutor(
                self._workers, mp_context=self._context, initializer=_take_stop, initargs=(self._told,)
            )
        return {self._pool.submit(run_batch_file, str(path), self._url) for path in batch_files}

    def is_death(self, error: BaseException) -> bool:
        """See `BatchCrew`."""
        if super().is_death(error):
            self.close()
            return True
        return False

    def tell(self) -> None:
        """See `BatchCrew`."""
        self._told.set()

    def close(self) -> None:
        """See `Crew`."""
        pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown()


def _take_stop(stop: Event) -> None:
    global _stop
    _stop = stop


def run_batch_file(batch_file: str, database_url: str | None) -> None:
    """What a worker process of this machine runs."""
    work_on_batch(Path(batch_file), database_url, stop=_stop.is_set if _stop is not None else None)


def open_crew(rules: ExecutorRules, order: JobOrder, database_url: str) -> Crew:
    """The crew that the rules ask for; its workers start when they are needed.

    Raises
    ------
    WrongUse
        When this installation can't have that crew.
    """
    check_crew(rules, database_url)
    if rules.kind == "dask":
        from dagster_l2.batch.jobs.executors_dask import DaskCrew

        return DaskCrew(rules, database_url)
    if rules.kind == "slurm":
        from dagster_l2.batch.jobs.executors_slurm import SlurmCrew

        return SlurmCrew(rules, order)
    if rules.kind == "processes":
        return Processes(rules.workers, database_url)
    return Threads(rules.workers)


def check_crew(rules: ExecutorRules, database_url: str) -> None:
    """Refuse workers on other machines where they can't reach the state database.

    Raises
    ------
    WrongUse
        When it is a SQLite file.
    """
    is_far = rules.kind == "slurm" or (
        rules.kind == "dask" and rules.address is not None and not _is_here(rules.address)
    )
    if is_far and sa.make_url(database_url).get_backend_name() == "sqlite":
        raise WrongUse(
            f"Workers on other machines (executor {rules.kind}) can't share a SQLite state database;"
            " set L2_DATABASE_URL to a PostgreSQL one."
        )


def _is_here(address: str) -> bool:
    host = urlsplit(address if "://" in address else f"tcp://{address}").hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host in ("localhost", socket.gethostname(), socket.getfqdn())


def _settle(
    futures: set[Future[None]],
    *,
    halt: Callable[[], None],
    stop: Callable[[], bool],
    is_death: Callable[[BaseException], bool] = lambda _error: False,
) -> BaseException | None:
    """Wait for all; the first error, or an interrupt of this thread, stops the others and is raised.

    The last death of a worker is only returned.
    """
    failed: BaseException | None = None
    died: BaseException | None = None
    try:
        while futures:
            if stop():
                for future in futures:
                    future.cancel()
            done, futures = wait(futures, timeout=_TICK_S, return_when=FIRST_COMPLETED)
            for future in done:
                error = None if future.cancelled() else future.exception()
                if error is not None and is_death(error):
                    died = error
                elif error is not None and failed is None:
                    failed = error
                    halt()
    except BaseException:
        halt()
        wait(futures)
        raise
    if failed is not None:
        raise failed
    return died
