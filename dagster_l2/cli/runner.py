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
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import dagster as dg

from dagster_l2.build import build_defs
from dagster_l2.errors import L2Error
from dagster_l2.jobs import HANDOVER
from dagster_l2.settings import REPOSITORY, Settings

LAUNCHED_BY = "l2/launched_by"


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
    # dbt's own lines go to its log under data/dbt; standard output is for what the command prints.
    with dg.DagsterInstance.get() as instance, redirect_stdout(io.StringIO()):
        _bury_the_dead(instance)
        result = job.execute_in_process(
            instance=instance,
            raise_on_error=False,
            tags={LAUNCHED_BY: f"l2, process {os.getpid()}"},
            run_config={"loggers": {"console": {}}},
        )
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


def run_handover(settings: Settings) -> RunResult:
    """Take hand-overs, publish and refresh gold."""
    return run_job(settings, HANDOVER)


def _bury_the_dead(instance: dg.DagsterInstance) -> None:
    """End the runs of commands that were killed, and free what they held of the pool.

    A killed command cannot say that it ended: its run would stay open in the UI for ever, and its place
    in the pool would hold up every later run.
    """
    unfinished = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED]
    for run in instance.get_runs(dg.RunsFilter(statuses=unfinished)):
        launched_by = run.tags.get(LAUNCHED_BY)
        if launched_by is None or _is_alive(int(launched_by.rsplit(" ", 1)[-1])):
            continue
        instance.report_run_failed(run, "The command that ran this was killed.")
        instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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


_OWN_LINE = re.compile(r"(scan|build|decide|preprocess|hand-overs?|publish|export|gold)\b[^:]*: ")


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
