"""Dask workers: those of a scheduler at an address, or a cluster of this machine for the time of a job.

A worker that dies is replaced by its nanny; which batches are done again is decided by their leases.
"""

from __future__ import annotations

import logging
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import SecretStr

from dagster_l2.base.errors import WrongUse
from dagster_l2.batch.jobs.definition import ExecutorRules
from dagster_l2.batch.jobs.executors import BatchCrew
from dagster_l2.batch.jobs.model import JobError
from dagster_l2.batch.jobs.runner import work_on_batch

_LOG = logging.getLogger(__name__)
_ANSWER_S = 10
_WORKERS_S = 60
_TELL_S = 0.7
_CLOSE_S = 0.5

_stopped: set[str] = set()


class DaskCrew(BatchCrew):
    """Workers behind the executor of a Dask client."""

    def __init__(self, rules: ExecutorRules, database_url: str) -> None:
        try:
            import distributed
        except ImportError:
            raise WrongUse("The executor dask needs Dask; install dagster_l2[dask].") from None
        self._dask: Any = distributed
        self._rules, self._url = rules, SecretStr(database_url)
        self._name = uuid4().hex
        self._open = ExitStack()
        self._client: Any = None
        self._is_told = False

    def begin(self, batch_files: Sequence[Path]) -> set[Future[None]]:
        """See `BatchCrew`.

        Raises
        ------
        JobError
            When no scheduler answers, or it has no workers.
        """
        if self._client is None or self._client.status != "running":
            self.close()
            self._connect()
        pool = self._client.get_executor(pure=False)
        arguments = (self._url, self._name)
        return {pool.submit(run_for_dask, str(path), *arguments) for path in batch_files}

    def is_death(self, error: BaseException) -> bool:
        """See `BatchCrew`."""
        return super().is_death(error) or isinstance(error, self._dask.KilledWorker)

    def tell(self) -> None:
        """See `BatchCrew`."""
        if self._is_told or self._client is None or self._client.status != "running":
            return
        self._is_told = True
        # In a thread: a worker that does not answer must not hold up an interrupt.
        client, name = self._client, self._name
        teller = threading.Thread(
            target=lambda: client.run(stop_for_dask, name, on_error="ignore"), daemon=True, name="tell-dask"
        )
        teller.start()
        teller.join(_TELL_S)

    def close(self) -> None:
        """See `Crew`."""
        self._client = None
        opened = self._open.pop_all()
        if self._is_told:
            # Whoever interrupts does not wait until the last worker has gone.
            closer = threading.Thread(target=opened.close, name="close-dask")
            closer.start()
            closer.join(_CLOSE_S)
        else:
            opened.close()

    def _connect(self) -> None:
        address: Any = self._rules.address
        try:
            if address is None:
                address = self._cluster()
                self._open.callback(address.close)
            self._client = self._dask.Client(address, timeout=_ANSWER_S, set_as_default=False)
            self._open.callback(self._client.close)
        except OSError:
            raise JobError(
                f"No Dask scheduler answers at {address}; start one or correct L2_DASK_ADDRESS,"
                " then resume the job."
            ) from None
        try:
            self._client.wait_for_workers(1, timeout=_WORKERS_S)
        except TimeoutError:
            raise JobError(
                f"The Dask scheduler at {self._client.scheduler.address} has no workers; start some,"
                " then resume the job."
            ) from None
        _LOG.info("Dask is at work.", extra={"scheduler": self._client.scheduler.address})

    def _cluster(self) -> Any:
        folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="l2-dask-"))
        # The engine bounds its memory itself, and no one looks at a page that lives as long as a job.
        return self._dask.LocalCluster(
            n_workers=self._rules.workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            # Without a dashboard it still listens, on a fixed port that a second cluster would find taken.
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            memory_limit=0,
            local_directory=folder,
            silence_logs=logging.ERROR,
        )


def run_for_dask(batch_file: str, database_url: SecretStr, name: str) -> None:
    """What a Dask worker runs; Dask shows arguments in its log, hence the wrapped address."""
    url = database_url.get_secret_value()
    work_on_batch(Path(batch_file), url, stop=lambda: name in _stopped)


def stop_for_dask(name: str) -> None:
    """Let the tasks of one crew in this Dask worker stop."""
    _stopped.add(name)
