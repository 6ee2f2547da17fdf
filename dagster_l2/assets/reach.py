"""REACH in Dagster: a day is a partition, and a span of days one run. The work is in ``downloads``."""

import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from dagster_l2.assets.pictures import availability_calendar, rate_plot
from dagster_l2.assets.tables import counts_table, picture, rows_table
from dagster_l2.base.telemetry import RETRY_CAUSES, Speed
from dagster_l2.batch import Covered, RunSummary, Wishes, coverage
from dagster_l2.pipeline.downloads import download_reach, reach_request
from dagster_l2.resources import L2, one_sentence
from dagster_l2.settings import Settings
from dagster_l2.sources import ALL

KEY = dg.AssetKey(["bronze", "reach"])
DAYS = dg.DailyPartitionsDefinition(start_date="2024-01-01", timezone="UTC")
_SHOWN = 50
_SAID_EVERY_S = 30.0
_CAME = ("DOWNLOADED", "SKIPPED_NO_DATA")

# Single-run backfills are marked as beta; the mark is known, and would be shown by every command.
warnings.filterwarnings("ignore", message="Parameter `backfill_policy`", category=dg.BetaWarning)


class ReachConfig(dg.Config):
    """What is downloaded; a day that failed is tried again, since a person asked for it."""

    sensor: str = ALL
    descriptor: str = "QUICKLOOK"
    retry_failed: bool = True
    recheck_empty: bool = False


@dg.asset(
    key=KEY,
    group_name="reach",
    kinds={"parquet", "polars"},
    owners=["team:operators"],
    partitions_def=DAYS,
    # A run for each day would pay for the start of a run each time, and each would learn the rate anew.
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[
        dg.AssetCheckSpec(
            "windows_downloaded", asset=KEY, description="Every day that was asked for came, or is empty."
        )
    ],
)
def reach(
    context: dg.AssetExecutionContext, config: ReachConfig, l2: dg.ResourceParam[L2]
) -> Iterator[dg.MaterializeResult | dg.AssetCheckResult]:
    """Observations of the REACH dosimeters; finished days are skipped, unfinished ones resumed.

    Days that did not come fail the run in the end, and only they count as not materialized.
    """
    settings, span = l2.settings, context.partition_time_window
    speed, seldom = Speed(), _Seldom(context.log.info)
    with one_sentence():
        request = reach_request(
            settings,
            span.start.date(),
            span.end.date() - timedelta(days=1),
            sensor=config.sensor,
            descriptor=config.descriptor,
            wishes=Wishes(retry_failed=config.retry_failed, recheck_empty=config.recheck_empty),
            run_id=context.run.run_id,
        )
        with l2.ledger() as ledger:
            summary = download_reach(
                settings,
                request,
                ledger=ledger,
                progress=lambda standing: seldom.say(f"reach: {standing.line(speed)}"),
            )
            days = coverage(
                ledger.engine,
                "reach",
                {"sensor": config.sensor, "descriptor": config.descriptor},
                start=request.windows[0].start,
                end=request.windows[-1].end,
            )
    context.log.info(
        f"reach: {summary.planned} days = {summary.downloaded} downloaded + {summary.skipped_existing} there"
        f" already + {summary.skipped_no_data} without data + {summary.failed} failed"
    )
    found = {f"{day.window.start:%Y-%m-%d}": _day_metadata(day) for day in days}
    # What is of the whole run is at its last day: at each day, it would be taken for that day's and drawn as
    # such, and the pictures of a year would make every look at the asset slow.
    last = context.partition_key_range.end
    found[last] = found.get(last, {}) | _run_metadata(settings, summary) | _pictures(settings, summary, days)
    if not summary.failed:
        for key, metadata in found.items():
            context.add_asset_metadata(metadata, partition_key=key)
        yield dg.MaterializeResult(check_results=[_check(days, summary)])
        return
    # A result would say of the days that failed, too, that they are there.
    came = {f"{day.window.start:%Y-%m-%d}" for day in days if day.status in _CAME}
    for key, metadata in found.items():
        event = dg.AssetMaterialization if key in came else dg.AssetObservation
        context.log_event(event(KEY, partition=key, metadata=metadata))
    check = _check(days, summary)
    yield check
    raise dg.Failure(check.description, allow_retries=False)


class _Seldom:
    """Says how far it is, twice a minute: each line of a run is a row in Dagster's own database."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say, self._next = say, 0.0

    def say(self, line: str) -> None:
        """Say it, unless something was said just now."""
        if (now := time.monotonic()) >= self._next:
            self._next = now + _SAID_EVERY_S
            self._say(line)


def _day_metadata(day: Covered) -> dict[str, Any]:
    """The figures of one day, which the UI draws over all days."""
    share = {} if day.availability_pct is None else {"availability_pct": round(day.availability_pct, 2)}
    return {"status": day.status, "records": day.records or 0, "bytes": day.bytes or 0, **share}


def _pictures(settings: Settings, summary: RunSummary, days: Sequence[Covered]) -> dict[str, Any]:
    """The calendar of the span, and the rate over the time of the job."""
    out: dict[str, Any] = {}
    if days:
        marks = {day.window.start.date(): (day.status, day.availability_pct) for day in days}
        out["calendar of availability"] = picture(availability_calendar(marks))
    over_time = _job_summary(settings, summary).get("over_time")
    if over_time:
        out["rate"] = picture(rate_plot(over_time))
    return out


def _job_summary(settings: Settings, summary: RunSummary) -> dict[str, Any]:
    """What the job says of itself; empty where there was nothing to do."""
    path = settings.jobs_folder / str(summary.job_id) / "summary.json"
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return content


def _run_metadata(settings: Settings, summary: RunSummary) -> dict[str, Any]:
    out: dict[str, Any] = {
        "windows planned": summary.planned,
        "downloaded": summary.downloaded,
        "skipped existing": summary.skipped_existing,
        "without data": summary.skipped_no_data,
        "failed": summary.failed,
    }
    content = _job_summary(settings, summary)
    if not content:
        return out
    totals = content["totals"]
    counts = {cause: int(totals.get(f"retries_{cause}", 0)) for cause in RETRY_CAUSES}
    retries = {cause: number for cause, number in counts.items() if number}
    told = {"retries": counts_table("cause", retries)} if retries else {}
    return out | {
        "job_id": content["job_id"],
        "summary": dg.MetadataValue.path(settings.jobs_folder / content["job_id"] / "summary.json"),
        "seconds": float(content["seconds"]),
        "records received": int(totals.get("records", 0)),
        "bytes received": int(totals.get("received_bytes", 0)),
        "requests": int(totals.get("api_requests", 0)),
        "turned down (429)": int(totals.get("turned_down", 0)),
        # Of all requests together: many wait at once.
        "seconds requests waited for the rate": float(totals.get("token_wait_s", 0.0)),
        **told,
    }


def _check(days: Sequence[Covered], summary: RunSummary) -> dg.AssetCheckResult:
    """Fail for the days that did not come; the others are there all the same."""
    bad = [
        {"day": f"{day.window.start:%Y-%m-%d}", "error": day.error_message or "interrupted"}
        for day in days
        if day.status not in _CAME
    ]
    said = f"{summary.failed} of {summary.planned} days of REACH failed; the others are there."
    return dg.AssetCheckResult(
        passed=not summary.failed,
        check_name="windows_downloaded",
        description=said if summary.failed else "Every day is there",
        metadata={
            "failed days": summary.failed,
            **({"failed": rows_table(bad[:_SHOWN], ("day", "error"))} if bad else {}),
        },
    )
