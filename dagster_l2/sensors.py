"""The sensors: ready events, alerts, old records. Level-triggered: what waits is looked up, no cursor.

A cursor or a fixed run key would lose an event whose run was killed; here it simply still waits.
"""

import hashlib
from datetime import UTC, datetime, timedelta

import dagster as dg

from dagster_l2.jobs import HANDOVER, PUBLISHING_STEP, handover_job
from dagster_l2.ledger import Ledger, State
from dagster_l2.operations.alerts import tell, ways_of
from dagster_l2.operations.outcomes import failed_runs, forget_old_runs
from dagster_l2.pipeline.downloads import clean_jobs
from dagster_l2.pipeline.holds import APPROVED, WAITS, is_held, waits_for
from dagster_l2.pipeline.intake import take_in
from dagster_l2.resources import L2
from dagster_l2.settings import Settings

RETRY_AFTER = timedelta(minutes=5)
_FOLDERS_AT_ONCE = 20  # what is removed is read first, to see that it lies whole elsewhere
_MOST_RUNS = 2
_UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
]


def waiting_work(ledger: Ledger) -> list[str]:
    """What a hand-over run would take up: event ids without an outcome, and inversions to be published.

    An Inverted OP that something holds back (an embargo, an approval not yet given) is left to the next pass.
    One that was approved is taken up, and is something else than before the approval: a run that has just
    looked at it is no reason to wait.
    """
    said = ledger.latest_annotations([WAITS, APPROVED])
    events = [event.event_id for event in ledger.pending_events()]
    inverted = []
    for present in ledger.present_all().values():
        known = said.get(present.op_id, {})
        if present.state is State.INVERTED and not is_held(present, known):
            approval = waits_for(present, known)
            inverted.append(f"{present.inversion_id}: {approval}" if approval else str(present.inversion_id))
    return events + inverted


def _busy_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    """The hand-over runs that another one has to wait for.

    One that has published is busy with the states and gold, which nobody who says ready waits for: the next
    one may begin beside it, but not a third, since they build one after the other.
    """
    unfinished = instance.get_runs(dg.RunsFilter(job_name=HANDOVER, statuses=_UNFINISHED))
    steps = (instance.get_run_step_stats(run.run_id, [PUBLISHING_STEP]) for run in unfinished)
    has_published = [any(step.end_time for step in found) for found in steps]
    return [] if len(unfinished) < _MOST_RUNS and all(has_published) else list(unfinished)


def build_ready_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor, with the pace of the settings."""

    @dg.sensor(
        name="ready_events",
        job=handover_job,
        # Dagster looks every 5 s whether it is time: an interval of just as many would miss every other look
        # by a hair.
        minimum_interval_seconds=settings.ready_sensor_s - 1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Starts a run when a hand-over or a publication waits in the ledger.",
    )
    def ready_events(
        context: dg.SensorEvaluationContext, l2: dg.ResourceParam[L2]
    ) -> dg.RunRequest | dg.SkipReason:
        with l2.ledger() as ledger:
            for receipt in take_in(l2.settings, ledger):
                context.log.info(f"{receipt.door} {receipt.source}: {receipt.outcome} {receipt.reason or ''}")
            waiting = waiting_work(ledger)
        if not waiting:
            return dg.SkipReason("No hand-over and no publication waits.")
        busy = _busy_runs(context.instance)
        if busy:
            return dg.SkipReason(f"{len(waiting)} wait; run {busy[0].run_id[:8]} is at it.")
        runs = context.instance.get_run_records(dg.RunsFilter(job_name=HANDOVER), limit=1)
        tried = runs[0].dagster_run.tags.get("l2/waiting") if runs else None
        # A digest, since a tag is short: a new one behind many that are stuck must be seen.
        found = hashlib.sha256("\n".join(waiting).encode()).hexdigest()
        if runs and tried == found:
            age = datetime.now(UTC) - runs[0].create_timestamp.replace(tzinfo=UTC)
            if age < RETRY_AFTER:
                return dg.SkipReason(f"{len(waiting)} still wait after the last run; tried again later.")
        return dg.RunRequest(tags={"l2/waiting": found})

    return ready_events


def build_alert_sensor(settings: Settings) -> dg.SensorDefinition:
    """The sensor that tells people; it starts no run."""

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=settings.alert_every_s,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Sends alerts by webhook and mail, each once: failed runs, what is overdue or refused.",
    )
    def alerts(context: dg.SensorEvaluationContext, l2: dg.ResourceParam[L2]) -> dg.SkipReason:
        if not ways_of(l2.settings):
            return dg.SkipReason("Neither L2_ALERT_URL nor L2_ALERT_MAIL_TO is set.")
        with l2.ledger() as ledger:
            sent = tell(l2.settings, ledger, failed_runs(context.instance))
        return dg.SkipReason(f"{sent} alerts went out.")

    return alerts


def build_retention_sensor() -> dg.SensorDefinition:
    """The sensor that lets go of old records; it starts no run."""

    @dg.sensor(
        name="old_records",
        minimum_interval_seconds=3600,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Lets go of records of runs (L2_RUN_DAYS), working folders of jobs (L2_JOB_DAYS) and what"
        " failed jobs keep for another try (L2_SCRATCH_DAYS).",
    )
    def old_records(context: dg.SensorEvaluationContext, l2: dg.ResourceParam[L2]) -> dg.SkipReason:
        gone = forget_old_runs(context.instance, l2.settings.run_days)
        with l2.ledger() as ledger:
            days = l2.settings.job_days or None
            left = clean_jobs(l2.settings, ledger, older_than_days=days, most=_FOLDERS_AT_ONCE)
        return dg.SkipReason(f"{gone} records of old runs and {len(left)} folders of old jobs are deleted.")

    return old_records
