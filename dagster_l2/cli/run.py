"""``l2 run`` and ``l2 scan``: one whole pass, or the scan alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

import click

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.base.files import only_one
from dagster_l2.cli.output import json_option, print_json, print_pairs, print_rows, shown
from dagster_l2.ledger import State
from dagster_l2.pipeline.wiring import open_ledger, store_name
from dagster_l2.settings import Settings, load_settings

SCAN_COUNTS = ("new", "changed", "unchanged", "rejected", "missing")


@click.command("run")
@click.option("--play-scientist", is_flag=True, help="On generated records only: hand one OP over.")
@json_option
def run_command(play_scientist: bool, as_json: bool) -> None:
    """One whole pass, as a run of the Dagster job that the UI shows; a second one finds nothing to do."""
    settings = load_settings()
    from dagster_l2.cli.runner import run_handover, run_job
    from dagster_l2.jobs import PASS

    with only_one(settings.data / "locks" / "pass.lock", "A pass"):
        settings.mark_origin()
        results = [run_job(settings, PASS)]
        if play_scientist and settings.is_embedded_default:
            from dagster_l2.pipeline.demo import play

            with open_ledger(settings) as ledger:
                handed_over = play(settings, ledger)
            if handed_over:
                click.echo(f"  demo: the scientist's part is played for {handed_over}", err=True)
                results.append(run_handover(settings))
    content = _summary(settings, [result.metadata for result in results])
    if as_json:
        print_json(content)
    else:
        _print_summary(settings, content)
    failed = [sentence for result in results for sentence in result.failed]
    if failed:
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        raise L2Error(f"{failed[0]}{more}")


@click.command("scan")
@click.option("--accept-missing", is_flag=True, help="Mark missing ones even above a tenth at once.")
@click.option("--recent", is_flag=True, help="Only what was created or updated since the last whole scan.")
@json_option
def scan_command(accept_missing: bool, recent: bool, as_json: bool) -> None:
    """Scan the metadata store into bronze, and nothing else.

    A recent scan is a quick look between whole ones: it marks nothing missing, and does not see a record
    that changed without a new date.
    """
    settings = load_settings()
    if recent and accept_missing:
        raise WrongUse("A recent scan marks nothing missing; leave out --recent or --accept-missing.")
    counts = _recent_counts(settings) if recent else _scan_counts(settings, accept_missing=accept_missing)
    if as_json:
        print_json(counts)
    else:
        click.echo(", ".join(f"{count} {name}" for name, count in counts.items()))


def _scan_counts(settings: Settings, *, accept_missing: bool) -> dict[str, int]:
    if accept_missing:
        settings = settings.model_copy(update={"scan_accept_missing": True})
    from dagster_l2.cli.runner import run_job
    from dagster_l2.jobs import SCAN

    metadata = run_job(settings, SCAN).metadata["bronze/datasets"]
    return {name: metadata[name] for name in SCAN_COUNTS}


def _recent_counts(settings: Settings) -> dict[str, int]:
    from dagster_l2.pipeline.scans import scan_recent

    counts = scan_recent(settings).counts()
    return {name: count for name, count in counts.items() if name != "missing"}


def _summary(settings: Settings, runs: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
    with open_ledger(settings) as ledger:
        presents = list(ledger.present_all().values())
    scanned = runs[0]["bronze/datasets"]
    published = [
        inversion
        for run in runs
        for inversion in str(run["published/inversions"].get("inversions", "")).split(", ")
        if inversion
    ]
    counts = Counter(present.state.value for present in presents)
    return {
        "scan": {name: scanned[name] for name in SCAN_COUNTS},
        "states": {state.value: counts[state.value] for state in State if counts[state.value]},
        "published": published,
        "failed": [
            {
                "op_id": present.op_id,
                "step": present.details.get("step"),
                "message": present.details.get("message"),
            }
            for present in presents
            if present.state is State.ERROR
        ],
    }


def _print_summary(settings: Settings, content: dict[str, Any]) -> None:
    from dagster_l2.answers.looking import history_rows
    from dagster_l2.cli.queue import QUEUE_COLUMNS
    from dagster_l2.pipeline.queue import live_queue

    click.echo(f"\nScanned {store_name(settings)}:")
    click.echo("  " + ", ".join(f"{count} {name}" for name, count in content["scan"].items()))
    click.echo("\nObserving programs by state")
    print_rows([{"state": name, "OPs": count} for name, count in content["states"].items()], ("state", "OPs"))
    with open_ledger(settings) as ledger:
        queue = live_queue(settings.gold, ledger)[:5]
        if queue:
            click.echo("\nThe queue's top")
            print_rows(queue, QUEUE_COLUMNS)
        shown_op = _latest_published(ledger)
        if shown_op:
            click.echo(f"\nHistory of {shown(shown_op)}")
            print_rows(
                history_rows(ledger, shown_op),
                ("seq", "occurred_at", "to_state", "actor", "cause", "inversion_id"),
            )
    if content["failed"]:
        click.echo("\nIn Error")
        print_rows(content["failed"])
    click.echo("\nWhere to look next")
    own = {} if shown_op is None else {f".venv/bin/l2 show {shown(shown_op)}": "frames, picture, cubes"}
    print_pairs(
        {
            **own,
            ".venv/bin/l2 queue": "who does what next; then l2 show OP, l2 history OP",
            "make ui": "the Dagster UI: graph, runs, checks",
            '.venv/bin/l2 sql "from proposals"': "or any SQL on the analysts' file",
            str(settings.gold): "the same with DuckDB, opened read only",
        }
    )


def _latest_published(ledger: Any) -> str | None:
    published = [p for p in ledger.present_all().values() if p.state is State.PUBLISHED]
    return max(published, key=lambda present: present.since).op_id if published else None
