"""``l2 queue``: who does what next. How it is ranked is in the warehouse and in ``pipeline.queue``."""

from __future__ import annotations

import click

from dagster_l2.cli.output import json_option, print_json, print_rows
from dagster_l2.ledger import State
from dagster_l2.pipeline.queue import by_responsible, live_queue, named, part_columns
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import load_settings

QUEUE_COLUMNS = (
    "rank",
    "op_id",
    "state",
    "responsible",
    "reason",
    "days_in_state",
    "is_overdue",
    "priority",
    "priority_score",
)
_SCORE_COLUMNS = ("rank", "op_id", "state", "responsible", "priority_score", "priority", "merit_score")


@click.command("queue")
@click.option("--for", "whom", metavar="NAME", help="Only what waits for this person or role.")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice([state.value for state in State]),
    help="Only OPs in this state; may be given again.",
)
@click.option("--overdue", is_flag=True, help="Only what has been in its state for too long.")
@click.option("--parts", is_flag=True, help="Show what the score is made of.")
@click.option("--limit", type=click.IntRange(1), help="How many; 20 in a table, all in JSON.")
@json_option
def queue_command(
    whom: str | None, states: tuple[str, ...], overdue: bool, parts: bool, limit: int | None, as_json: bool
) -> None:
    """Who does what next: merit from gold; state, claimer, priority and assignment live from the ledger.

    A role is one of pipeline, operator and scientist.
    """
    settings = load_settings()
    with open_ledger(settings) as ledger:
        waiting = live_queue(settings.gold, ledger)
    rows = [
        row
        for row in waiting
        if (whom is None or row["responsible"] == whom)
        and (not states or row["state"] in states)
        and (row["is_overdue"] or not overdue)
    ]
    if as_json:
        print_json(rows[:limit])
        return
    if not rows:
        others = f"None of the {len(waiting)} OPs that wait is asked for; they wait for:"
        click.echo(f"{others} {named(by_responsible(waiting))}." if waiting else "Nothing waits.")
        return
    limit = limit or 20
    print_rows(rows[:limit], (*_SCORE_COLUMNS, *part_columns(rows[0])) if parts else QUEUE_COLUMNS)
    if len(rows) > limit:
        click.echo(f"… and {len(rows) - limit} more (--limit).")
    late = by_responsible(row for row in rows if row["is_overdue"])
    if late:
        click.echo(f"{sum(late.values())} overdue: {named(late)}")
