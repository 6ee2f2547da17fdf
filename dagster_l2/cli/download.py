"""``l2 download``: windowed downloads into bronze; what they do is in ``downloads``."""

from __future__ import annotations

from collections import Counter as Counts
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import click

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.base.telemetry import Speed
from dagster_l2.cli.interrupt import stop_on_interrupt
from dagster_l2.cli.output import json_option, print_json, print_rows, show_warnings
from dagster_l2.cli.progress import Counter
from dagster_l2.settings import Settings, load_settings

if TYPE_CHECKING:
    from dagster_l2.batch import JobRequest, Planned, RunSummary
    from dagster_l2.pipeline.downloads import Standing

_DAY = click.DateTime(["%Y-%m-%d"])


@click.group("download")
def download_command() -> None:
    """Download in windows of a day: what is finished is skipped, what was interrupted goes on."""


@download_command.command("reach")
@click.option("--start", required=True, type=_DAY, metavar="DAY", help="First day, UTC.")
@click.option("--end", required=True, type=_DAY, metavar="DAY", help="Last day, included.")
@click.option("--sensor", default="ALL", show_default=True, help="One sensor, such as REACH-101.")
@click.option(
    "--descriptor", type=click.Choice(["QUICKLOOK", "PROVISIONAL"]), default="QUICKLOOK", show_default=True
)
@click.option(
    "--output-dir", type=click.Path(path_type=Path, file_okay=False), help="Write the days here, too."
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["parquet", "csv", "json"]),
    default="parquet",
    show_default=True,
    help="Of the files in --output-dir.",
)
@click.option("--max-concurrent-requests", type=click.IntRange(min=1), help="Requests under way at once.")
@click.option(
    "--initial-rate", type=float, help="Requests per second to begin with, where nothing is known yet."
)
@click.option("--rate-increase", type=float, help="Requests per second won while the rate is the limit.")
@click.option("--rate-decrease", type=float, help="Factor when the server turns requests down.")
@click.option("--min-rate", type=float, help="Requests per second at least.")
@click.option("--max-rate", type=float, help="Requests per second at most.")
@click.option("--retry-failed", is_flag=True, help="Try days again that failed.")
@click.option("--recheck-empty", is_flag=True, help="Look again for days that were empty.")
@click.option("--limit", type=click.IntRange(min=1), help="At most so many of the days that are still to do.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; writes nothing, asks the UDL nothing.")
@json_option
def reach_command(
    start: datetime,
    end: datetime,
    output_dir: Path | None,
    form: str,
    dry_run: bool,
    as_json: bool,
    **wishes: Any,
) -> None:
    """Observations of the REACH dosimeters, by UTC day, into bronze/reach."""
    settings = load_settings()
    show_warnings()
    request = _request(settings, start, end, **wishes)
    if form != "parquet" and output_dir is None:
        raise WrongUse(f"Bronze is parquet; say with --output-dir where the {form} files are to go.")
    from dagster_l2.pipeline.downloads import plan_reach

    planned = plan_reach(settings, request)
    if dry_run:
        _print_plan(planned, as_json)
        return
    click.echo(f"  {_told_before(request, planned)}", err=True)
    summary, files = _download(settings, request, output_dir, form)
    if as_json:
        print_json(asdict(summary) | {"files": files})
    else:
        click.echo(_told_after(summary))
        if output_dir is not None:
            click.echo(f"{len(files)} files in {output_dir}.")
    if summary.failed:
        raise L2Error(_why(settings, summary))


def _request(
    settings: Settings,
    start: datetime,
    end: datetime,
    *,
    sensor: str,
    descriptor: str,
    max_concurrent_requests: int | None,
    retry_failed: bool,
    recheck_empty: bool,
    limit: int | None,
    **numbers: float | None,
) -> JobRequest:
    from dagster_l2.batch import Wishes
    from dagster_l2.pipeline.downloads import reach_request

    names = {
        "initial": "initial_rate",
        "increase": "rate_increase",
        "decrease": "rate_decrease",
        "min": "min_rate",
        "max": "max_rate",
    }
    return reach_request(
        settings,
        start.date(),
        end.date(),
        sensor=sensor,
        descriptor=descriptor,
        wishes=Wishes(retry_failed=retry_failed, recheck_empty=recheck_empty, limit=limit),
        rate={name: number for name, option in names.items() if (number := numbers[option]) is not None},
        max_concurrent_requests=max_concurrent_requests,
    )


def _download(
    settings: Settings, request: JobRequest, output_dir: Path | None, form: str
) -> tuple[RunSummary, list[Path]]:
    from dagster_l2.batch import Stopped
    from dagster_l2.pipeline.day_files import DayFormat, write_days
    from dagster_l2.pipeline.downloads import download_reach, open_jobs, reach_table, unfinished
    from dagster_l2.pipeline.wiring import open_ledger

    with stop_on_interrupt() as stop, Counter() as counter, open_ledger(settings) as ledger:
        speed, there_already = Speed(), 0

        def tell(standing: Standing) -> None:
            nonlocal there_already
            there_already = standing.there_already
            counter.say(f"  {standing.line(speed)}")

        def begin(job_id: str) -> None:
            stop.advice = (
                "and comes to bronze when the job has ended: run the command again,"
                f" or l2 jobs resume {job_id}"
            )

        try:
            summary = download_reach(
                settings,
                request,
                ledger=ledger,
                stop=stop,
                progress=tell,
                on_start=begin,
            )
        except Stopped:
            raise Stopped(stop.advice) from None
        if there_already:
            click.echo(f"  {there_already:,} chunks of unfinished days were there already.", err=True)
        for job_id in unfinished(settings, ledger, request):
            click.echo(
                f"! Job {job_id} has not ended: unless it runs elsewhere, l2 jobs resume {job_id} brings its"
                " days home.",
                err=True,
            )
        if output_dir is None:
            return summary, []
        found = open_jobs(settings, ledger).found(request)
        return summary, write_days(
            reach_table(settings.lake).folder, request, found, output_dir, cast(DayFormat, form)
        )


_WORDS = {
    "run": "to do",
    "skip_existing": "there already",
    "skip_terminal": "without data",
    "skip_failed": "failed before (--retry-failed tries them again)",
}


def _told_before(request: JobRequest, planned: Planned) -> str:
    params = request.source_params
    counts = Counts(str(action) for _window, action in planned.actions)
    parts = [f"{counts[name]} {words}" for name, words in _WORDS.items() if counts[name] or name == "run"]
    if planned.beyond_limit:
        parts.append(f"{len(planned.beyond_limit)} left for another run (--limit)")
    days = f"{request.windows[0].start:%Y-%m-%d} to {request.windows[-1].start:%Y-%m-%d}"
    return f"REACH {params['sensor'] or 'ALL'}, {params['descriptor']}, {days}: {', '.join(parts)}."


def _told_after(summary: RunSummary) -> str:
    beyond = f"; {summary.beyond_limit} left for another run" if summary.beyond_limit else ""
    job = f"; job {summary.job_id}" if summary.job_id else ""
    return (
        f"{summary.run_id}: {summary.planned} planned = {summary.downloaded} downloaded"
        f" + {summary.skipped_existing} skipped existing + {summary.skipped_no_data} skipped no data"
        f" + {summary.failed} failed; {summary.attempted} attempted{beyond}{job}"
    )


def _why(settings: Settings, summary: RunSummary) -> str:
    from dagster_l2.pipeline.downloads import reasons_of

    what = f"{summary.failed} of {summary.planned} days failed"
    reasons = reasons_of(settings, summary.job_id) if summary.job_id else []
    if not reasons:
        return f"{what} in an earlier run; --retry-failed tries them again."
    first = f" ({reasons[0].rstrip('.')})"
    return f"{what}{first}; l2 jobs show {summary.job_id} tells all, --retry-failed tries them again."


def _print_plan(planned: Planned, as_json: bool) -> None:
    rows = [{"day": f"{window.start:%Y-%m-%d}", "action": str(action)} for window, action in planned.actions]
    rows += [{"day": f"{window.start:%Y-%m-%d}", "action": "beyond_limit"} for window in planned.beyond_limit]
    rows.sort(key=lambda row: row["day"])
    counts = Counts(row["action"] for row in rows)
    if as_json:
        print_json({"days": rows, "counts": dict(counts)})
        return
    print_rows(rows)
    words = {**_WORDS, "beyond_limit": "left for another run (--limit)"}
    click.echo(", ".join(f"{count} {words.get(name, name)}" for name, count in counts.items()) + ".")
