"""Commands with which people say something about an OP: prioritize, note, assign; and how `show` tells it.

What they say is appended to the ledger and moves nothing.
"""

from __future__ import annotations

from typing import Any

import click

from dagster_l2.base.errors import WrongUse
from dagster_l2.cli.output import json_option, print_json, shown
from dagster_l2.cli.work import acting, as_option
from dagster_l2.ledger import Annotation
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import load_settings


def _print(said: Annotation, as_json: bool, sentence: str) -> None:
    if as_json:
        print_json(
            {
                "op_id": said.op_id,
                "kind": said.kind,
                "actor": said.actor,
                "recorded_at": said.recorded_at,
                **said.details,
            }
        )
    else:
        click.echo(sentence)


# Without it a negative LEVEL would be taken for an option.
@click.command("prioritize", context_settings={"ignore_unknown_options": True})
@click.argument("op")
@click.argument("level", type=int)
@click.option("--reason", required=True, help="Why.")
@as_option
@json_option
def prioritize_command(op: str, level: int, reason: str, name: str | None, as_json: bool) -> None:
    """Set the priority of an OP, LEVEL from -9 to 9; one level outranks any merit, 0 takes it back."""
    with open_ledger(load_settings()) as ledger:
        said = ledger.prioritize(op, level, reason=reason, actor=acting(name))
    _print(said, as_json, f"{shown(op)} has priority {level}, said by {shown(said.actor)}: {shown(reason)}")


@click.command("note")
@click.argument("op")
@click.argument("text")
@as_option
@json_option
def note_command(op: str, text: str, name: str | None, as_json: bool) -> None:
    """Add a remark to an OP; `l2 show OP` lists them."""
    with open_ledger(load_settings()) as ledger:
        said = ledger.note(op, text, actor=acting(name))
    _print(said, as_json, f"Noted on {shown(op)} by {shown(said.actor)}.")


@click.command("assign")
@click.argument("op")
@click.argument("person", metavar="NAME", required=False)
@click.option("--nobody", is_flag=True, help="Take the assignment back.")
@as_option
@json_option
def assign_command(op: str, person: str | None, nobody: bool, name: str | None, as_json: bool) -> None:
    """Say who should take an OP; anybody else can still claim it."""
    if (person is None) is not nobody:
        raise WrongUse("Name the one who should take it, or give --nobody.")
    with open_ledger(load_settings()) as ledger:
        said = ledger.assign(op, person, actor=acting(name))
    _print(said, as_json, f"{shown(op)} is assigned to {shown(said.details['to'] or 'nobody')}.")


def people_pairs(people: dict[str, Any]) -> dict[str, Any]:
    """What `looking.people_of` gives, except the notes, a line each."""
    priority = people["priority"]
    sentence = priority and f"{priority.get('level')} by {priority['actor']}: {priority.get('reason')}"
    return {"assigned_to": people["assigned_to"], "priority": sentence}
