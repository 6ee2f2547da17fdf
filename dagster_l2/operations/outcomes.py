"""Runs that failed, as Dagster's own records tell them, and records that are old enough to go.

What is made of failures is in ``alerts``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import dagster as dg

from dagster_l2.operations.alerts import FRESH, FailedRun

INTERRUPTED = "Interrupted by a person."
"""Said of a run that somebody ended on purpose, which is no failure."""

_AT_ONCE = 100
_ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]


def failed_runs(instance: dg.DagsterInstance) -> list[FailedRun]:
    """The runs of the last days that failed, oldest first."""
    since = datetime.now(UTC) - FRESH
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    found = []
    for record in reversed(instance.get_run_records(failed, limit=_AT_ONCE)):
        run = record.dagster_run
        sentence, error = _why(instance, run.run_id)
        if INTERRUPTED in sentence:
            continue
        found.append(
            FailedRun(
                run.run_id,
                run.job_name,
                sentence,
                error,
                datetime.fromtimestamp(record.end_time or record.update_timestamp.timestamp(), UTC),
                _well_before(instance, run.job_name, record.create_timestamp),
            )
        )
    return found


def _well_before(instance: dg.DagsterInstance, job: str, moment: datetime) -> str | None:
    """The last run of a job that went well before this moment."""
    well = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS], created_before=moment)
    records = instance.get_run_records(well, limit=1)
    return records[0].dagster_run.run_id if records else None


def _why(instance: dg.DagsterInstance, run_id: str) -> tuple[str, str | None]:
    """The sentence of the first step that failed, and the name of its error where it was foreseen."""
    events = [dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE]
    for entry in instance.all_logs(run_id, of_type=set(events)):
        event = entry.dagster_event
        if event is None:
            continue
        if not event.is_step_failure:
            return event.message or "it ended without a word", None
        data = event.step_failure_data
        said = data.user_failure_data
        if said is not None and said.description:
            name = said.metadata.get("error")
            return said.description, str(name.value) if name is not None else None
        error = data.error
        while error is not None and error.cause is not None:
            error = error.cause
        text = " ".join((error.message if error else "unknown").split())[:400]
        return f"step {event.step_key}: {text}", None
    return "it ended without a word", None


def forget_old_runs(instance: dg.DagsterInstance, days: float) -> int:
    """Delete the records of runs that ended and were created so many days ago; how many.

    A hundred at most, the oldest first, so that it may be called often; days of 0 keep all.
    """
    if days <= 0:
        return 0
    old = dg.RunsFilter(statuses=_ENDED, created_before=datetime.now(UTC) - timedelta(days=days))
    records = instance.get_run_records(old, limit=_AT_ONCE, ascending=True)
    for record in records:
        instance.delete_run(record.dagster_run.run_id)
    return len(records)
