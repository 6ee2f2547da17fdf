"""Commands that only look: status, show, history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import click

from dagster_l2.answers.looking import everything_of, hand_overs_of, history_rows, people_of, state_of
from dagster_l2.cli.frames import staging_pairs
from dagster_l2.cli.level2 import level2_pairs
from dagster_l2.cli.output import json_option, print_json, print_pairs, print_rows, shown
from dagster_l2.cli.past import Moment, as_of_options, lasted
from dagster_l2.cli.people import people_pairs
from dagster_l2.ledger import Ledger
from dagster_l2.pipeline.gold import NoGold, read_gold
from dagster_l2.pipeline.wiring import open_ledger, store_name
from dagster_l2.settings import Settings, load_settings

CRITERIA_COLUMNS = ("instrument", "criterion", "outcome", "explanation")
# Tables of gold that ought to be empty, with what their rows are.
UNUSED_RECORDS = {
    "rejected_records": "could not be read",
    "orphan_datasets": "name no observing program",
}
HANDOVER_COLUMNS = ("received_at", "actor", "inversion_id", "products", "outcome", "reason")


@click.command("status")
@as_of_options
@json_option
def status_command(as_of: datetime | None, known_at: datetime | None, as_json: bool) -> None:
    """How things stand: age of the data, OPs by state, what waits; or the OPs by state as of a moment."""
    settings = load_settings()
    moment = Moment(as_of, known_at)
    with open_ledger(settings) as ledger:
        counts = ledger.count_states(at=moment.at, known_at=moment.known_at)
        events = 0 if moment else len(ledger.pending_events())
    states = {state.value: count for state, count in counts.items()}
    if moment:
        _print_past_status(moment, states, as_json)
        return
    info = _info(settings)
    age = _age(info)
    content = {
        "built_at": info.get("built_at"),
        "gold_age_s": None if age is None else age.total_seconds(),
        "last_scan_at": info.get("last_scan_at"),
        "store": store_name(settings),
        "is_demo": settings.is_demo,
        "rejected_records": info.get("rejected_record_count"),
        "orphan_datasets": info.get("orphan_dataset_count"),
        "states": states,
        "ready_events_waiting": events,
        "data": settings.data,
        "state_database": _without_password(settings.state_url),
    }
    if as_json:
        print_json(content)
        return
    click.echo(_age_line(info, age))
    demo = " (a demo: the scientist's part is played)" if settings.is_demo else ""
    click.echo(f"Store: {store_name(settings)}{demo}")
    click.echo(f"Data:  {settings.data}\n")
    _print_states(states)
    for table, what in UNUSED_RECORDS.items():
        if count := content[table]:
            click.echo(f'\nUnused: {count} of the store\'s records {what} (`l2 sql "from {table}"`).')
    if events:
        click.echo(f"\nHand-overs that wait: {events}; the sensor takes them, or `l2 run`.")


def _print_past_status(moment: Moment, states: dict[str, int], as_json: bool) -> None:
    if as_json:
        print_json({**moment.pairs(), "states": states})
        return
    click.echo(f"{moment}:\n" if states else f"{moment}: no OP was there yet.")
    if states:
        _print_states(states)


def _print_states(states: dict[str, int]) -> None:
    print_rows(
        [{"state": name, "OPs": count} for name, count in states.items()],
        ("state", "OPs"),
        empty="No OP is known yet.",
    )


def _info(settings: Settings) -> dict[str, Any]:
    try:
        return read_gold(settings.gold, "select * from warehouse_info")[0]
    except NoGold:
        return {}


def _age(info: dict[str, Any]) -> timedelta | None:
    """How long ago gold was built; None before the first time."""
    built = info.get("built_at")
    return None if built is None else datetime.now(UTC).replace(tzinfo=None) - built.replace(tzinfo=None)


def _age_line(info: dict[str, Any], age: timedelta | None) -> str:
    if age is None:
        return "Gold has not been built yet: `l2 run` does it."
    built, scanned = info["built_at"], info["last_scan_at"]
    return f"Gold is {lasted(age)} old (built {shown(built)} UTC, last scan {shown(scanned)} UTC)."


def _without_password(url: str) -> str:
    from sqlalchemy.engine import make_url

    return make_url(url).render_as_string(hide_password=True)


@click.command("history")
@click.argument("op")
@json_option
def history_command(op: str, as_json: bool) -> None:
    """Every step an OP took, oldest first: who, why, and how long the state lasted."""
    with open_ledger(load_settings()) as ledger:
        rows = history_rows(ledger, op)
    if as_json:
        print_json(rows)
        return
    columns = (
        "seq", "occurred_at", "from_state", "to_state", "lasted", "actor", "cause", "inversion_id"
    )  # fmt: skip
    for row in rows:
        end = row["ended_at"] or datetime.now(UTC)
        row["lasted"] = lasted(end - row["occurred_at"]) + ("" if row["ended_at"] else " so far")
    print_rows(rows, columns)


@click.command("show")
@click.argument("op")
@as_of_options
@json_option
def show_command(op: str, as_of: datetime | None, known_at: datetime | None, as_json: bool) -> None:
    """Everything about one OP: state, verdict with measured values and thresholds, hand-overs.

    As of a moment it is what the ledger knew then; the measured values are those of the last pass only.
    """
    settings = load_settings()
    moment = Moment(as_of, known_at)
    with open_ledger(settings) as ledger:
        content = _past(ledger, op, moment) if moment else everything_of(settings, ledger, op)
    if as_json:
        print_json(content)
        return
    click.echo(f"OP {shown(op)}")
    if moment:
        click.echo(f"{moment}:")
    print_pairs({**content["state"], **people_pairs(content["people"])})
    program = content["observing_program"]
    if program:
        wanted = ("proposal_id", "experiment_id", "instruments", "dataset_count", "start_time", "end_time",
                  "is_complete", "is_invertible", "is_embargoed", "fried_parameter_median_m")  # fmt: skip
        print_pairs({name: program[name] for name in wanted})
    if content["verdict"]:
        click.echo(f"\nVerdict: {shown(content['verdict']['headline'])}")
        for warning in content["verdict"]["warnings"]:
            click.echo(f"Warning: {shown(warning)}")
    if content["criteria"]:
        click.echo("\nCriteria")
        print_rows(content["criteria"], CRITERIA_COLUMNS)
    if content["staging"]:
        click.echo("\nLevel-1 frames")
        print_pairs(staging_pairs(content["staging"]))
    if content["level2"]:
        click.echo("\nLevel-2 files")
        print_pairs(level2_pairs(content["level2"]))
    if content["people"]["notes"]:
        click.echo("\nNotes")
        print_rows(content["people"]["notes"], ("recorded_at", "actor", "text"))
    if content["hand_overs"]:
        click.echo("\nHand-overs")
        print_rows(content["hand_overs"], HANDOVER_COLUMNS)


def _past(ledger: Ledger, op: str, moment: Moment) -> dict[str, Any]:
    """What the ledger tells of an OP as of a moment, with the keys of `everything_of`."""
    present = ledger.present(op, at=moment.at, known_at=moment.known_at)
    told = {
        name: present.details[name] for name in ("failed_criteria", "warnings") if name in present.details
    }
    return {
        "op_id": op,
        **moment.pairs(),
        "state": state_of(present)
        | {name: present.details[name] for name in told if name in present.details},
        "people": people_of(ledger, op, moment.until),
        "observing_program": None,
        "verdict": None,
        "qualification": [],
        "criteria": [],
        "input_package": present.details.get("package"),
        "staging": None,
        "level2": None,
        "hand_overs": hand_overs_of(ledger, op, moment.until),
    }
