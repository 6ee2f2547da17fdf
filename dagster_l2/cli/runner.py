"""Run a Dagster job from a command: the same job on the same instance, so that the UI shows the run.

It prints the progress lines of the assets on standard error and turns a failed step into one sentence.
"""

from __future__ import annotations

import io
import logging
import os
import re
import shutil
import sys
import uuid
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
from sqlalchemy.exc import SQLAlchemyError

from dagster_l2.base.errors import L2Error
from dagster_l2.base.files import AlreadyRunning, only_one
from dagster_l2.build import build_defs
from dagster_l2.jobs import HANDOVER
from dagster_l2.operations.alerts import tell, ways_of
from dagster_l2.operations.outcomes import INTERRUPTED, failed_runs
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import REPOSITORY, Settings

LAUNCHED_BY = "l2/launched_by"

# By this tag, which Dagster gives to the runs that it launches itself, the UI knows a job's runs.
OF_THE_CODE_LOCATION = {".dagster/repository": "__repository__@dagster_l2"}


class StepFailed(L2Error):
    """A step of the run failed; the message is the step's own sentence."""

    def __init__(self, sentence: str, exit_code: int) -> None:
        super().__init__(sentence)
        self.exit_code = exit_code


@dataclass(frozen=True)
class RunResult:
    """What a run reported: metadata by asset, and the sentences of what failed without stopping it."""

    run_id: str
    metadata: dict[str, dict[str, Any]]
    failed: list[str]


def prepare_dagster_home(settings: Settings) -> None:
    """Let Dagster keep its records in ``data/dagster`` unless DAGSTER_HOME says otherwise."""
    home = os.environ.setdefault("DAGSTER_HOME", str(settings.data / "dagster"))
    folder = settings.data / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    if home == str(folder):
        shutil.copyfile(REPOSITORY / "dagster.yaml", folder / "dagster.yaml")


def run_job(settings: Settings, job_name: str) -> RunResult:
    """Run a job in this process.

    Raises
    ------
    StepFailed
        The first failed step's sentence, and the exit code it asks for.
    """
    prepare_dagster_home(settings)
    warnings.filterwarnings("ignore", category=dg.BetaWarning)
    warnings.filterwarnings("ignore", category=dg.PreviewWarning)
    job = build_defs(settings=settings, loggers={"console": progress_logger}).resolve_job_def(job_name)
    run_id = str(uuid.uuid4())
    # dbt's own lines go to its log under data/dbt; standard output is for what the command prints.
    with (
        dg.DagsterInstance.get() as instance,
        only_one(_run_lock(settings, run_id), f"Run {run_id}"),
        redirect_stdout(io.StringIO()),
    ):
        _bury_the_dead(settings, instance)
        result = _execute(job, instance, run_id)
        _tell(settings, instance)
    _forget(_run_lock(settings, run_id))
    if not result.success:
        raise _failure(result)
    metadata = {
        event.asset_key.to_user_string(): {
            name: value.value for name, value in event.materialization.metadata.items()
        }
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }
    failed = [
        evaluation.description or f"The check {evaluation.check_name} of {evaluation.asset_key} failed."
        for evaluation in result.get_asset_check_evaluations()
        if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR
    ]
    return RunResult(result.run_id, metadata, failed)


def _tell(settings: Settings, instance: dg.DagsterInstance) -> None:
    """Send the alerts of this run; whatever becomes of that, the run's own outcome is what counts."""
    try:
        if ways_of(settings):
            with open_ledger(settings) as ledger:
                tell(settings, ledger, failed_runs(instance))
    except (L2Error, OSError, SQLAlchemyError) as error:
        sys.stderr.write(f"! Alerts wait: {' '.join(str(error).split())[:300]}\n")


def _execute(job: dg.JobDefinition, instance: dg.DagsterInstance, run_id: str) -> dg.ExecuteInProcessResult:
    """Run the job in a thread of its own, so that Ctrl-C is this thread's and ends the process at once.

    In the main thread Dagster would hold an interrupt back until the step is over, or lose it. Nothing
    needs winding up: whatever is killed goes on with the next run.
    """

    def work() -> dg.ExecuteInProcessResult:
        return job.execute_in_process(
            instance=instance,
            run_id=run_id,
            raise_on_error=False,
            tags={LAUNCHED_BY: "l2", **OF_THE_CODE_LOCATION},
            run_config={"loggers": {"console": {}}},
        )

    with ThreadPoolExecutor(1, thread_name_prefix="run") as pool:
        future = pool.submit(work)
        try:
            while True:
                with suppress(TimeoutError):
                    return future.result(timeout=0.5)
        except KeyboardInterrupt:
            run = instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished:
                _end(instance, run, INTERRUPTED)
            sys.stderr.write("Error: Interrupted; what was finished is kept, run the command again.\n")
            sys.stderr.flush()
            os._exit(130)


def run_handover(settings: Settings) -> RunResult:
    """Take hand-overs, publish and refresh gold."""
    return run_job(settings, HANDOVER)


def _run_lock(settings: Settings, run_id: str) -> Path:
    return settings.data / "locks" / "runs" / f"{run_id}.lock"


def _forget(lock: Path) -> None:
    for path in (lock, lock.with_suffix(".json")):
        path.unlink(missing_ok=True)


def _bury_the_dead(settings: Settings, instance: dg.DagsterInstance) -> None:
    """End the runs of commands that were killed, and free what they held of the pool.

    A killed command cannot say that it ended: its run would stay open in the UI for ever, and its place
    in the pool would hold up every later run. Its lock tells, since the system frees it with the death.
    """
    unfinished = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
    for run in instance.get_runs(dg.RunsFilter(statuses=unfinished, tags={LAUNCHED_BY: "l2"})):
        lock = _run_lock(settings, run.run_id)
        try:
            with only_one(lock, f"Run {run.run_id}"):
                _end(instance, run, "The command that ran this was killed.")
        except AlreadyRunning:
            continue
        _forget(lock)


def _end(instance: dg.DagsterInstance, run: dg.DagsterRun, message: str) -> None:
    instance.report_run_failed(run, message)
    instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _failure(result: dg.ExecuteInProcessResult) -> StepFailed:
    for event in result.all_events:
        if not event.is_step_failure:
            continue
        data = event.step_failure_data
        user = data.user_failure_data
        if user is not None and user.description:
            code = user.metadata.get("exit_code")
            return StepFailed(
                user.description, code.value if code is not None and isinstance(code.value, int) else 1
            )
        error = data.error
        while error is not None and error.cause is not None:
            error = error.cause
        text = " ".join((error.message if error else "unknown").split())[:400]
        return StepFailed(f"Step {event.step_key} failed: {text}", 1)
    return StepFailed(f"Run {result.run_id} failed; the Dagster UI (make ui) shows where.", 1)


_OWN_LINE = re.compile(r"(scan|build|decide|preprocess|hand-overs?|publish|export|gold|stage)\b[^:]*: ")


class _Progress(logging.Handler):
    """Assets' own lines, warnings and errors; not Dagster's account of each step."""

    def emit(self, record: logging.LogRecord) -> None:
        meta = getattr(record, "dagster_meta", {}) or {}
        text = str(meta.get("orig_message") or record.getMessage())
        if meta.get("dagster_event") is not None or not _OWN_LINE.match(text):
            return
        mark = "! " if record.levelno >= logging.WARNING else "  "
        sys.stderr.write(f"{mark}{text}\n")
        sys.stderr.flush()


@dg.logger
def progress_logger(_context: dg.InitLoggerContext) -> logging.Logger:
    """Print what the assets say on standard error."""
    logger = logging.Logger("l2")
    logger.addHandler(_Progress())
    return logger
