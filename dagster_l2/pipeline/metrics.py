"""Figures for a scraper: how jobs, downloads and observing programs stand, as Prometheus text in one file.

All of it is read from the state database and gold at that moment, so whoever writes last writes everything.
Counting is in ``telemetry``; what the figures mean for people is in the warehouse.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import sqlalchemy as sa
from prometheus_client import CollectorRegistry, generate_latest, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from dagster_l2.base.errors import L2Error
from dagster_l2.base.telemetry import RETRY_CAUSES
from dagster_l2.batch import batch_attempts, batch_jobs, batch_tasks, rate_limits, readable
from dagster_l2.ledger import Ledger, State
from dagster_l2.pipeline.gold import BadQuery, NoGold, Row
from dagster_l2.pipeline.queue import by_responsible, live_queue
from dagster_l2.settings import Settings
from dagster_l2.sources import SOURCE

_LOG = logging.getLogger(__name__)

_TASK_COUNTS = {
    "l2_job_requests": ("api_requests", "Requests sent, failed ones too."),
    "l2_job_turned_down": ("turned_down", "Requests that a server turned down for their number (429)."),
    "l2_job_received_bytes": ("received_bytes", "Bytes received in answers, failed ones too."),
    "l2_job_records": ("records", "Records received."),
    "l2_job_rejected_records": ("rejected", "Records received that cannot be read."),
    "l2_job_token_wait_seconds": ("token_wait_s", "Time that requests waited for the shared rate."),
    "l2_job_work_seconds": ("seconds", "Time that tasks took, summed over workers."),
}
"""By metric: the count of a task it sums up, and its help."""

_ENDED = ("SUCCESS", "FAILED")


def write_metrics(settings: Settings, ledger: Ledger) -> Path | None:
    """Write ``data/metrics/l2.prom`` anew, by one rename; None, and a warning, where that is not possible.

    Figures that lack never stop the work that they are about.
    """
    registry = CollectorRegistry(auto_describe=False)
    path = settings.metrics_file
    try:
        registry.register(_Figures(ledger, partial(live_queue, settings.gold, ledger)))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_to_textfile(str(path), registry)
    except (OSError, SQLAlchemyError, L2Error) as error:
        _LOG.warning("%s was not written: %s", path, " ".join(str(error).split())[:300])
        return None
    return path


def metrics_text(ledger: Ledger, queue: Callable[[], list[Row]]) -> bytes:
    """The same figures as Prometheus text, as they are now."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Figures(ledger, queue))
    return generate_latest(registry)


class _Figures(Collector):
    """Everything that is told, read when it is asked for."""

    def __init__(self, ledger: Ledger, queue: Callable[[], list[Row]]) -> None:
        self._ledger, self._queue = ledger, queue

    def describe(self) -> list[Metric]:
        """Nothing, so that registering asks for no figures."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See `prometheus_client.registry.Collector`."""
        yield _gauge("l2_metrics_written_timestamp_seconds", "When this was written.", time.time())
        yield from self._observing_programs()
        with self._ledger.engine.connect() as connection:
            yield from _scan(connection)
            yield from _windows(connection)
            yield from _jobs(connection)
            yield from _tasks(connection)
            yield from _rates(connection)

    def _observing_programs(self) -> Iterator[Metric]:
        counts = Counter(present.state for present in self._ledger.present_all().values())
        states = GaugeMetricFamily("l2_observing_programs", "Observing programs by state.", labels=["state"])
        for state in State:
            states.add_metric([state.value], counts[state])
        yield states
        try:
            rows = self._queue()
        except (NoGold, BadQuery):
            return
        late = by_responsible(row for row in rows if row["is_overdue"])
        yield _gauge(
            "l2_observing_programs_overdue", "Observing programs beyond their limit.", sum(late.values())
        )
        by_one = GaugeMetricFamily(
            "l2_responsible_overdue",
            "Overdue observing programs by who is responsible.",
            labels=["responsible"],
        )
        for name, number in late.items():
            by_one.add_metric([name], number)
        yield by_one


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _scan(connection: sa.Connection) -> Iterator[Metric]:
    columns = batch_attempts.c
    answered = columns.source == SOURCE, columns.status.in_(("DOWNLOADED", "SKIPPED_NO_DATA"))
    query = sa.select(sa.func.max(readable(columns.finished_at))).where(*answered)
    last = connection.execute(query).scalar_one()
    if last is not None:
        text = "When the metadata store last answered a scan; its age is time() less this."
        yield _gauge("l2_last_scan_timestamp_seconds", text, last.timestamp())


def _windows(connection: sa.Connection) -> Iterator[Metric]:
    columns = batch_attempts.c
    newest = sa.select(sa.func.max(columns.attempt_id)).group_by(columns.unit_id)
    query = (
        sa.select(columns.source, columns.status, sa.func.count())
        .where(columns.attempt_id.in_(newest))
        .group_by(columns.source, columns.status)
        .order_by(columns.source, columns.status)
    )
    windows = GaugeMetricFamily(
        "l2_windows", "Windows by source and outcome of the latest attempt.", labels=["source", "status"]
    )
    for source, status, number in connection.execute(query):
        windows.add_metric([source, status], number)
    yield windows


def _jobs(connection: sa.Connection) -> Iterator[Metric]:
    columns = batch_jobs.c
    jobs = GaugeMetricFamily("l2_jobs", "Jobs by name and status.", labels=["job", "status"])
    by_status = sa.select(columns.name, columns.status, sa.func.count()).group_by(
        columns.name, columns.status
    )
    for name, status, number in connection.execute(by_status.order_by(columns.name, columns.status)):
        jobs.add_metric([name, status], number)
    yield jobs
    took = GaugeMetricFamily("l2_job_last_duration_seconds", "Time the last job took.", labels=["job"])
    ended = GaugeMetricFamily("l2_job_last_end_timestamp_seconds", "When the last job ended.", labels=["job"])
    well = GaugeMetricFamily("l2_job_last_success", "1 when the last job ended well, else 0.", labels=["job"])
    newest = (
        sa.select(columns.name, sa.func.max(columns.finished_at).label("finished_at"))
        .where(columns.status.in_(_ENDED))
        .group_by(columns.name)
        .subquery()
    )
    same = sa.and_(columns.name == newest.c.name, columns.finished_at == newest.c.finished_at)
    rows = connection.execute(sa.select(batch_jobs).join(newest, same).order_by(columns.name)).mappings()
    for name, row in {row["name"]: row for row in rows}.items():
        took.add_metric([name], (row["finished_at"] - row["submitted_at"]).total_seconds())
        ended.add_metric([name], row["finished_at"].timestamp())
        well.add_metric([name], float(row["status"] == "SUCCESS"))
    yield from (took, ended, well)


def _tasks(connection: sa.Connection) -> Iterator[Metric]:
    """Sums over all tasks there ever were, which only grow, as a counter must."""
    columns = batch_tasks.c

    def total(name: str) -> sa.ColumnElement[float]:
        return sa.func.coalesce(sa.func.sum(columns.metrics[name].as_float()), 0.0).label(name)

    causes = [f"retries_{cause}" for cause in RETRY_CAUSES]
    names = [name for name, _text in _TASK_COUNTS.values()]
    query = (
        sa.select(batch_jobs.c.name.label("job"), *[total(name) for name in (*names, *causes)])
        .join(batch_jobs, batch_jobs.c.job_id == columns.job_id)
        .where(columns.status.in_(_ENDED))
        .group_by(batch_jobs.c.name)
        .order_by(batch_jobs.c.name)
    )
    rows = connection.execute(query).mappings().all()
    for metric, (name, text) in _TASK_COUNTS.items():
        family = CounterMetricFamily(metric, text, labels=["job"])
        for row in rows:
            family.add_metric([row["job"]], row[name])
        yield family
    retries = CounterMetricFamily("l2_job_retries", "Requests sent again, by cause.", labels=["job", "cause"])
    for row in rows:
        for cause in RETRY_CAUSES:
            retries.add_metric([row["job"], cause], row[f"retries_{cause}"])
    yield retries


def _rates(connection: sa.Connection) -> Iterator[Metric]:
    columns = rate_limits.c
    rate = GaugeMetricFamily("l2_rate_requests_per_second", "The shared rate by server.", labels=["server"])
    events = CounterMetricFamily("l2_rate_congestion_events", "Times a rate was cut.", labels=["server"])
    query = sa.select(columns.key, columns.requests_per_second, columns.congestion_events)
    for key, per_second, congested in connection.execute(query.order_by(columns.key)):
        rate.add_metric([key], per_second or 0.0)
        events.add_metric([key], congested or 0)
    yield from (rate, events)
