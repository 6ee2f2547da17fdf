"""A Slurm job array, through submitit: one for all batches that are free, a batch file for each of its tasks.

Slurm decides when and where they run. One that it no longer lists and that left no result has died.
"""

from __future__ import annotations

import logging
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor, Future
from pathlib import Path
from types import FrameType
from typing import Any

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.batch.jobs.definition import ExecutorRules
from dagster_l2.batch.jobs.executors import BatchCrew
from dagster_l2.batch.jobs.folders import JobFolders, JobOrder
from dagster_l2.batch.jobs.model import JobError, Stopped
from dagster_l2.batch.jobs.runner import work_on_batch

_LOG = logging.getLogger(__name__)
_LOOK_S = 0.2
_ASK_S = 2.0
_MISSED = 2  # a result may show up on a shared file system a moment after Slurm has forgotten its task


class SlurmWorkerDied(BrokenExecutor):
    """An array task ended without a result."""


class SlurmWorkerFailed(JobError):
    """What an array task raised."""


class SlurmCrew(BatchCrew):
    """Array tasks, each with a future that ends when it does."""

    def __init__(self, rules: ExecutorRules, order: JobOrder) -> None:
        try:
            import submitit
        except ImportError:
            raise WrongUse("The executor slurm needs submitit; install dagster_l2[slurm].") from None
        if shutil.which("sbatch") is None:
            raise WrongUse("The executor slurm needs sbatch on the PATH; run this where jobs are submitted.")
        self._submitit = submitit
        self._rules, self._order = rules, order
        self._waiting: dict[Future[None], Any] = {}
        self._over = threading.Event()
        self._watch: threading.Thread | None = None

    def begin(self, batch_files: Sequence[Path]) -> set[Future[None]]:
        """See `BatchCrew`.

        Raises
        ------
        JobError
            When Slurm does not take the array.
        """
        job_id, folders = self._order.job_id, JobFolders.of(self._order)
        executor = self._submitit.SlurmExecutor(folder=folders.root / "cluster")
        executor.update_parameters(**self._parameters())
        paths = [str(path) for path in batch_files[: _max_array_size()]]
        try:
            jobs = executor.map_array(run_for_slurm, paths)
        except (self._submitit.core.utils.FailedJobError, OSError) as error:
            said = " ".join(str(error).split())[-300:]
            raise JobError(
                f"Slurm does not take the array of job {job_id} ({said}); correct it, then resume the job."
            ) from None
        array_id = str(jobs[0].job_id).partition("_")[0]
        _LOG.info("Array submitted.", extra={"job_id": job_id, "array_id": array_id})
        # Its tasks are not even loaded yet, so nobody can have ended the job meanwhile.
        folders.note_array(array_id)
        futures: set[Future[None]] = set()
        for job in jobs:
            future: Future[None] = Future()
            future.set_running_or_notify_cancel()
            self._waiting[future] = job
            futures.add(future)
        self._watch = threading.Thread(target=self._look, daemon=True, name=f"slurm-{array_id}")
        self._watch.start()
        return futures

    def tell(self) -> None:
        """See `BatchCrew`."""
        arrays = {str(job.job_id).partition("_")[0] for job in list(self._waiting.values())}
        if arrays and not self._over.is_set():
            subprocess.run(["scancel", "--quiet", *sorted(arrays)], check=False, capture_output=True)
        self._over.set()

    def close(self) -> None:
        """See `Crew`."""
        self.tell()
        if self._watch is not None:
            self._watch.join()

    def _parameters(self) -> dict[str, Any]:
        rules = self._rules.slurm
        found = {
            "job_name": self._order.definition.name,
            "time": rules.minutes,
            "cpus_per_task": rules.cpus,
            "partition": rules.partition,
            "array_parallelism": self._rules.workers,
            "mem": None if rules.memory_gb is None else f"{rules.memory_gb * 1024:.0f}M",
            "additional_parameters": dict(rules.options) or None,
            # Nothing is lost when a task ends early: it is told in time, and its batch is free again.
            "signal_delay_s": min(90, rules.minutes * 30),
        }
        return {name: value for name, value in found.items() if value is not None}

    def _look(self) -> None:
        """End the futures of the tasks that ended."""
        asked, missed = time.monotonic(), dict.fromkeys(self._waiting, 0)
        while self._waiting and not self._over.wait(_LOOK_S):
            for future, job in list(self._waiting.items()):
                if job.paths.result_pickle.exists():
                    self._end(future, _outcome(job))
            if time.monotonic() - asked < _ASK_S:
                continue
            listed, asked = _listed(), time.monotonic()
            for future, job in list(self._waiting.items()) if listed is not None else []:
                missed[future] = 0 if str(job.job_id) in (listed or ()) else missed[future] + 1
                if missed[future] >= _MISSED and not job.paths.result_pickle.exists():
                    self._end(future, SlurmWorkerDied(f"array task {job.job_id}, log {job.paths.stderr}"))
        for future in list(self._waiting):
            self._end(future, Stopped())

    def _end(self, future: Future[None], error: BaseException | None) -> None:
        del self._waiting[future]
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)


def run_for_slurm(batch_file: str) -> tuple[int, str] | None:
    """What an array task runs; the exit code and sentence of an error.

    Told to end, by a person, the time limit or preemption, it gives its batch back in time.
    """
    stop = threading.Event()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, interrupt)
    try:
        work_on_batch(Path(batch_file), stop=stop.is_set)
    except Stopped:
        return None
    except L2Error as error:
        return error.exit_code, str(error)
    return None


def _outcome(job: Any) -> BaseException | None:
    try:
        said = job.result()
    except Exception as error:  # noqa: BLE001 - whatever the task raised, as text
        reason = str(error).strip().splitlines()[-1]
        return SlurmWorkerFailed(f"Array task {job.job_id} failed ({reason}); read {job.paths.stderr}.")
    if said is None:
        return None
    failed = SlurmWorkerFailed(said[1])
    failed.exit_code = said[0]
    return failed


def _listed() -> set[str] | None:
    """The array tasks of this user that Slurm has not ended; None when it does not say."""
    command = ["squeue", "--me", "--noheader", "--array", "--format=%F %K"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        _LOG.warning("Slurm does not say which tasks run; it is asked again.")
        return None
    pairs = [line.split() for line in done.stdout.splitlines() if line.strip()]
    return {pair[0] if pair[-1] == "N/A" else "_".join(pair) for pair in pairs}


def _max_array_size() -> int | None:
    """The most tasks that this Slurm allows in one array; None when it does not say."""
    try:
        done = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    return max(1, int(found[1])) if found else None
