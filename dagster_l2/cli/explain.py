"""Commands that explain decisions: why, what-if, replay. They only read."""

from __future__ import annotations

from typing import Any

import click

from dagster_l2.answers.explain import why
from dagster_l2.base.errors import WrongUse
from dagster_l2.cli.output import json_option, print_json, print_pairs, print_rows, shown
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import load_settings


@click.command("why")
@click.argument("op")
@json_option
def why_command(op: str, as_json: bool) -> None:
    """Why an OP can be inverted or not, in words: what it failed, what it passed and by how much."""
    settings = load_settings()
    with open_ledger(settings) as ledger:
        content = why(ledger, settings.gold, op)
    if as_json:
        print_json(content)
        return
    click.echo(
        f"OP {shown(op)} is {shown(content['headline'])}" if content["verdict"] else content["headline"]
    )
    print_why(content)
    if content["rule_version"]:
        click.echo(f"\nRules {shown(content['rule_version'])}, instrument {shown(content['instrument'])}.")
    click.echo(f"State: {content['state']} since {shown(content['since'])} UTC ({shown(content['cause'])}).")


def print_why(content: dict[str, Any]) -> None:
    """Print the sentences of a verdict under their headings."""
    sections = {
        "Failed": [row["explanation"] for row in content["failed"]],
        "Passed": [row["explanation"] for row in content["passed"]],
        "Warnings": content["warnings"],
        "Other instruments": content["other_instruments"],
    }
    for heading, sentences in sections.items():
        if sentences:
            click.echo(f"\n{heading}")
            for sentence in sentences:
                click.echo(f"  {shown(sentence)}")


@click.command("what-if")
@click.option(
    "--set",
    "settings_",
    multiple=True,
    required=True,
    metavar="NAME=VALUE",
    help="A threshold, as often as wanted.",
)
@json_option
def what_if_command(settings_: tuple[str, ...], as_json: bool) -> None:
    """Which OPs another threshold would move, for instance --set health=0.6; nothing is decided.

    NAME is a criterion or a column of the rules; an unknown one is answered with the list of all.
    """
    from dagster_l2.answers.what_if import what_if

    settings = load_settings()
    with open_ledger(settings) as ledger:
        found = what_if(ledger, settings.lake, _changes(settings_))
    if as_json:
        print_json({name: getattr(found, name) for name in found.__slots__})
        return
    for row in found.thresholds:
        click.echo(f"{row['threshold']}: {shown(row['tried'])} instead of {shown(row['now'])}")
    others = f"; {found.other_reasons} would fail by other criteria" if found.other_reasons else ""
    click.echo(
        f"{len(found.moved)} of {found.judged} OPs would have another verdict{others}. Nothing was decided."
    )
    if found.moved:
        click.echo()
        print_rows(found.counts)
        click.echo()
        rows = [{**row, "because": "; ".join(row["because"])} for row in found.moved]
        print_rows(rows, ("op_id", "state", "next_state", "from", "to", "by", "because"))


def _changes(texts: tuple[str, ...]) -> dict[str, str]:
    changes: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            raise WrongUse(f"{text!a} sets nothing; write it like health=0.6.")
        if name in changes:
            raise WrongUse(f"{name} is set twice; set it once.")
        changes[name] = value
    return changes


@click.command("replay")
@click.argument("op", required=False)
@click.option("--seq", type=int, metavar="N", help="Only this step of the OP; `l2 history OP` numbers them.")
@click.option("--all", "is_all", is_flag=True, help="Every decision of every OP.")
@json_option
def replay_command(op: str | None, seq: int | None, is_all: bool, as_json: bool) -> None:
    """Make decisions of the past again, from what was known then by the rules of then.

    Exit code 1 when the answer is not the one that the ledger has.
    """
    from dagster_l2.answers.replays import replay, replay_all

    if (op is None) is not is_all or (is_all and seq is not None):
        raise WrongUse("Name an OP, with --seq if only one step of it is meant, or choose --all.")
    settings = load_settings()
    with open_ledger(settings) as ledger:
        found = (
            replay(ledger, settings.lake, op, seq) if op is not None else replay_all(ledger, settings.lake)
        )
    if as_json:
        print_json([_replayed(each) for each in found])
    elif len(found) == 1:
        _print_replayed(found[0])
    else:
        rows = [_replayed(each) for each in found]
        print_rows(
            rows,
            (
                "op_id",
                "seq",
                "to_state",
                "known_at",
                "rule_version",
                "is_equal",
                "are_records_exact",
                "are_rules_exact",
                "differences",
            ),
        )
        equal = sum(each.is_equal for each in found)
        click.echo(f"\n{equal} of {len(found)} decisions come out as they are in the ledger.")
    if not all(each.is_equal for each in found):
        raise click.exceptions.Exit(1)


def _replayed(each: Any) -> dict[str, Any]:
    return {
        "op_id": each.op_id,
        "seq": each.seq,
        "from_state": each.from_state,
        "to_state": each.then["to_state"],
        "decided_at": each.decided_at,
        "known_at": each.known_at,
        "rule_version": each.then["rule_version"],
        "is_equal": each.is_equal,
        "are_records_exact": each.are_records_exact,
        "are_rules_exact": each.are_rules_exact,
        "differences": each.differences,
        "remarks": each.remarks,
        "then": each.then,
        "again": each.again,
        "today": each.today,
    }


def _print_replayed(each: Any) -> None:
    click.echo(f"OP {shown(each.op_id)}, step {each.seq}, decided {shown(each.decided_at)} UTC")
    click.echo(f"from what was known at {shown(each.known_at)} UTC:")
    answers = {"then": each.then, "again": each.again, "today": each.today}
    rows = [
        {"": name, **{key: answer[key] for key in ("to_state", "cause", "rule_version")},
         "inputs_hash": shown(answer["inputs_hash"])[:12]}
        for name, answer in answers.items()
        if answer is not None
    ]  # fmt: skip
    print_rows(rows)
    for remark in each.remarks:
        click.echo(shown(remark))
    if each.is_equal:
        click.echo("The answer is the same, with all that was measured.")
        return
    click.echo("The answer is not the same:")
    pairs = {
        name: f"{shown(each.then[name])} then, {shown(each.again[name])} now" for name in each.differences
    }
    print_pairs(pairs)
