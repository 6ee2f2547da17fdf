"""``l2 jobs``: what was, or is being, downloaded by jobs; resumed and retried."""

from __future__ import annotations

import json
from collections import Counter as Counts
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from dagster_l2.base.errors import L2Error
from dagster_l2.base.telemetry import Speed
from dagster_l2.cli.interrupt import stop_on_interrupt
from dagster_l2.cli.output import json_option, print_json, print_pairs, print_rows, show_warnings
from dagster_l2.cli.progress import Counter
from dagster_l2.cli.work import acting
from dagster_l2.settings import Settings, load_settings

if TYPE_CHECKING:
    from dagster_l2.batch import JobState

_SHOWN = 50


@click.group("jobs", invoke_without_command=True)
@click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="The newest so many."
)
@json_option
@click.pass_context
def jobs_command(context: click.Context, limit: int, as_json: bool) -> None:
    """List the jobs, newest first; or look into one, resume it, retry its failures."""
    if context.invoked_subcommand is not None:
        return
    settings = load_settings()
    from dagster_l2.batch import jobs_in_short
    from dagster_l2.pipeline.wiring import open_ledger

    with open_ledger(settings) as ledger:
        rows = [asdict(job) for job in jobs_in_short(ledger.engine, limit=limit)]
    if as_json:
        print_json(rows)
        return
    shown = [
        {
            "job": row["job_id"],
            "source": row["name"],
            "status": row["status"],
            "tasks": f"{row['tasks_done']}/{row['tasks']}",
            "failed": row["tasks_failed"],
            "rows": row["rows"],
            "submitted": row["submitted_at"],
            "finished": row["finished_at"],
        }
        for row in rows
    ]
    print_rows(shown, empty="No job has run yet: `l2 scan` and `l2 download` start some.")


@jobs_command.command("show")
@click.argument("job")
@json_option
def show_command(job: str, as_json: bool) -> None:
    """One job: its summary, tasks by status, failures by class, and the items that failed."""
    settings = load_settings()
    content = _content(settings, job)
    if as_json:
        print_json(content)
        return
    print_pairs(
        {
            name: content[name]
            for name in ("job_id", "source", "status", "phase", "submitted_at", "finished_at", "output")
        }
    )
    if content["summary"]:
        totals = content["summary"]["totals"]
        print_pairs({name: totals[name] for name in sorted(totals)})
    _print("Tasks", content["tasks"])
    _print("Failures by class", content["failures"])
    _print("Items that failed or are gone", content["items"])


@jobs_command.command("resume")
@click.argument("job")
@json_option
def resume_command(job: str, as_json: bool) -> None:
    """Bring an interrupted job to its end."""
    _run(job, None, as_json)


@jobs_command.command("retry")
@click.argument("job")
@click.option(
    "--class",
    "kinds",
    type=click.Choice(["passing", "permanent"]),
    multiple=True,
    required=True,
    help="What to try again; may be given twice.",
)
@json_option
def retry_command(job: str, kinds: tuple[str, ...], as_json: bool) -> None:
    """Try again what failed in a job that has ended; what is gone for good stays gone."""
    _run(job, kinds, as_json)


@jobs_command.command("clean")
@click.option(
    "--older-than",
    "days",
    type=click.FloatRange(min=0),
    default=30,
    show_default=True,
    help="Only jobs that ended so many days ago.",
)
@click.option("--dry-run", is_flag=True, help="Say what would go; removes nothing.")
@json_option
def clean_command(days: float, dry_run: bool, as_json: bool) -> None:
    """Remove the working files of jobs that succeeded and whose rows are in bronze.

    Their manifests stay, so nothing is downloaded again. What failed jobs have kept for another try goes
    after L2_SCRATCH_DAYS.
    """
    settings = load_settings()
    from dagster_l2.pipeline.downloads import clean_jobs
    from dagster_l2.pipeline.wiring import open_ledger

    with open_ledger(settings) as ledger:
        found = clean_jobs(settings, ledger, older_than_days=days, dry_run=dry_run)
    rows = [{"job": one.job_id, "what": one.what, "bytes": one.bytes} for one in found]
    if as_json:
        print_json({"removed": not dry_run, "leftovers": rows})
        return
    if not rows:
        click.echo("Nothing to remove.")
        return
    print_rows(rows)
    megabytes = sum(one.bytes for one in found) / 1e6
    click.echo(f"{len(rows)} {'could go' if dry_run else 'removed'}, {megabytes:,.1f} MB.")


def _run(job: str, kinds: tuple[str, ...] | None, as_json: bool) -> None:
    settings = load_settings()
    show_warnings()
    from dagster_l2.batch import FailureClass, Status
    from dagster_l2.pipeline.downloads import go_on
    from dagster_l2.pipeline.staging import complete_job
    from dagster_l2.pipeline.wiring import open_ledger

    with stop_on_interrupt() as stop, Counter() as counter, open_ledger(settings) as ledger:
        speed = Speed()
        stop.advice = f"l2 jobs resume {job} goes on from there"
        state = go_on(
            settings,
            job,
            None if kinds is None else [FailureClass(kind) for kind in kinds],
            ledger=ledger,
            stop=stop,
            progress=lambda done, of, records: counter.say(
                f"  {done}/{of} tasks, {records:,} records, {speed.of(done, of, 'tasks')}"
            ),
        )
        completed = complete_job(settings, ledger, job, actor=acting(None))
    content = _content(settings, job)
    if as_json:
        print_json(content)
    else:
        click.echo(f"Job {job} ended: {state.status}.")
        _print("Failures by class", content["failures"])
    if state.status is not Status.SUCCESS:
        raise L2Error(f"Not all of job {job} came home; l2 jobs show {job} says what is missing.")
    if completed is not None and completed.failed:
        raise L2Error(completed.failed[0][1])


def _content(settings: Settings, job_id: str) -> dict[str, Any]:
    from dagster_l2.pipeline.downloads import open_jobs
    from dagster_l2.pipeline.wiring import open_ledger

    merged = (_read(settings, job_id, "aggregation/manifest.json") or {}).get("output_file")
    with open_ledger(settings) as ledger:
        jobs = open_jobs(settings, ledger)
        state = jobs.store.job(job_id)
        tasks = Counts((task.group, str(task.status)) for task in jobs.store.tasks(job_id))
        items = [item for item in jobs.items.of_job(job_id) if item.status != "DONE"]
    kinds = Counts(str(item.failure_class) for item in items)
    return {
        **_state(state),
        "summary": _read(settings, job_id, "summary.json"),
        "output": jobs.folders(job_id).found(merged) if merged else None,
        "tasks": [
            {"group": group, "status": status, "tasks": count} for (group, status), count in tasks.items()
        ],
        "failures": [{"class": kind, "items": count} for kind, count in kinds.items()],
        "items": [_item(item) for item in items],
    }


def _state(state: JobState) -> dict[str, Any]:
    return {
        "job_id": state.job_id,
        "source": state.name,
        "status": str(state.status),
        "phase": str(state.phase),
        "submitted_at": state.submitted_at,
        "finished_at": state.finished_at,
    }


def _item(item: Any) -> dict[str, Any]:
    content = asdict(item)
    del content["unit_id"], content["job_id"]
    return content


def _read(settings: Settings, job_id: str, name: str) -> dict[str, Any] | None:
    try:
        content: dict[str, Any] = json.loads(
            (settings.jobs_folder / job_id / name).read_text(encoding="utf-8")
        )
    except (OSError, ValueError):
        return None
    return content


def _print(title: str, rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    click.echo(f"\n{title}")
    print_rows(rows[:_SHOWN])
    if len(rows) > _SHOWN:
        click.echo(f"… and {len(rows) - _SHOWN:,} more (--json shows all).")
