"""Commands that people work with: claim, release, ready, withdraw, publish, reopen, retry."""

from __future__ import annotations

import getpass
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from dagster_l2.answers.orders import (
    approve_publishing,
    check_commit,
    check_writable,
    place_of_products,
    read_checksums,
)
from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.cli.output import json_option, print_json, print_rows, shown
from dagster_l2.ledger import (
    Conflict,
    Delivery,
    ErrorClass,
    IllegalTransition,
    Ledger,
    NotAllowed,
    ReadyWord,
    State,
    Transition,
)
from dagster_l2.pipeline.holds import waiting_reason
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import Settings, load_settings

as_option = click.option("--as", "name", metavar="NAME", help="Who acts; the user's name unless given.")


def acting(name: str | None) -> str:
    """Who acts: ``name``, else the user."""
    # An empty name is a script's unset variable; whoever runs the script has not claimed anything.
    if name is not None and not name.strip():
        raise WrongUse("--as names nobody: give a name, or leave it out to act as yourself.")
    try:
        return name or getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        raise WrongUse("The user of this process has no name: say who acts with --as NAME.") from None


def _writable(settings: Settings) -> Settings:
    check_writable(settings)
    return settings


def _operator(settings: Settings, name: str | None) -> str:
    who = acting(name)
    if who not in settings.operator_names:
        known = ", ".join(sorted(settings.operator_names))
        how = f"use --as with one of {known}, or L2_OPERATORS" if known else "L2_OPERATORS names nobody"
        raise NotAllowed(f"Only an operator may do this, and {shown(who)} is none: {how}.")
    return who


def _shown_step(step: Transition) -> dict[str, Any]:
    return {
        "op_id": step.op_id,
        "state": step.to_state.value,
        "inversion_id": step.inversion_id,
        "actor": step.actor,
        "occurred_at": step.occurred_at,
        "details": step.details,
    }


def _print(step: Transition, as_json: bool, sentence: str, **more: Any) -> None:
    if as_json:
        print_json({**_shown_step(step), **more})
    else:
        click.echo(sentence)


@click.command("claim")
@click.argument("op")
@as_option
@json_option
def claim_command(op: str, name: str | None, as_json: bool) -> None:
    """Take a Preprocessed OP to invert it; it gets an inversion id."""
    settings = _writable(load_settings())
    with open_ledger(settings) as ledger:
        step = ledger.claim(op, actor=acting(name))
        assigned_to = ledger.assigned_to(op)
    package = settings.data / str(step.details.get("package"))
    another = f" (it was assigned to {shown(assigned_to)})" if assigned_to not in (None, step.actor) else ""
    _print(
        step,
        as_json,
        f"{shown(op)} is yours as {step.inversion_id}{another}. Inputs: {package}",
        assigned_to=assigned_to,
    )


@click.command("release")
@click.argument("op")
@as_option
@json_option
def release_command(op: str, name: str | None, as_json: bool) -> None:
    """Give a claimed OP back to the queue."""
    settings = load_settings()
    who = acting(name)
    with open_ledger(settings) as ledger:
        step = ledger.release(op, actor=who, is_operator=who in settings.operator_names)
    _print(step, as_json, f"{shown(op)} is back in the queue.")


@click.command("ready")
@click.argument("op")
@click.option(
    "--products",
    required=True,
    metavar="PLACE",
    help="Folder of the FITS files, its http(s):// address, or globus://collection/path.",
)
@click.option("--commit", required=True, metavar="HASH", help="Commit of the inversion software.")
@click.option("--datasets", metavar="ID,ID", help="The datasets that were inverted; all of the package.")
@click.option(
    "--checksums",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What `sha256sum *.fits` printed; a file that is another when it is verified is refused.",
)
@click.option("--event-id", metavar="ID", help="Known again by it when it is said twice; drawn unless given.")
@click.option("--inputs-changed-ok", is_flag=True, help="Hand over although the inputs have changed.")
@as_option
@json_option
def ready_command(
    op: str,
    products: str,
    commit: str,
    datasets: str | None,
    checksums: Path | None,
    event_id: str | None,
    inputs_changed_ok: bool,
    name: str | None,
    as_json: bool,
) -> None:
    """Say that the products of a claimed OP are ready; they are verified and published next."""
    settings = _writable(load_settings())
    check_commit(commit, "--commit")
    chosen = [part.strip() for part in datasets.split(",") if part.strip()] if datasets is not None else None
    who = acting(name)
    with open_ledger(settings) as ledger:
        word = ReadyWord(
            event_id=event_id or str(uuid.uuid4()),
            op_id=op,
            products=place_of_products(settings, products),
            commit_hash=commit,
            actor=who,
            dataset_ids=None if chosen is None else tuple(chosen),
            inputs_changed_ok=inputs_changed_ok,
            sent_at=datetime.now(UTC),
            checksums=None if checksums is None else read_checksums(checksums),
        )
        receipt = ledger.receive(
            word,
            Delivery(f"command-{uuid.uuid4()}", "command", "l2 ready"),
            is_operator=who in settings.operator_names,
        )
    if not receipt.is_taken and receipt.outcome != "duplicate":
        raise L2Error(receipt.reason or receipt.outcome)
    if as_json:
        print_json({"event_id": word.event_id, "op_id": op, "inversion_id": receipt.inversion_id})
    elif not receipt.is_taken:
        click.echo(str(receipt.reason))
    else:
        click.echo(
            f"Taken down as event {word.event_id}: the sensor (make ui) or the next `l2 run` verifies and"
            f" publishes it; `l2 show {shown(op)}` tells what became of it."
        )


@click.command("withdraw")
@click.argument("op")
@click.option("--reason", required=True, help="Why.")
@as_option
@json_option
def withdraw_command(op: str, reason: str, name: str | None, as_json: bool) -> None:
    """Take back products that are not published yet; the OP is Working again under a new inversion id."""
    settings = _writable(load_settings())
    who = acting(name)
    with open_ledger(settings) as ledger:
        step = ledger.withdraw(op, actor=who, reason=reason, is_operator=who in settings.operator_names)
    _print(step, as_json, f"{shown(op)} is Working again as {step.inversion_id}.")


@click.command("publish")
@click.argument("op")
@as_option
@json_option
def publish_command(op: str, name: str | None, as_json: bool) -> None:
    """Approve an Inverted OP and publish it now."""
    settings = _writable(load_settings())
    who = _operator(settings, name)
    with open_ledger(settings) as ledger:
        approve_publishing(ledger, op, actor=who)
    from dagster_l2.cli.runner import run_handover

    run_handover(settings)
    with open_ledger(settings) as ledger:
        present = ledger.present(op)
        if present.state is not State.PUBLISHED:
            reason = waiting_reason(ledger, present) or f"it is {present.state}"
            raise L2Error(f"{shown(op)} was approved but not published: {reason}.")
        step = ledger.history(op)[-1]
    _print(step, as_json, f"{shown(op)} is published as {step.inversion_id}.")


@click.command("reopen")
@click.argument("op")
@click.option("--reason", required=True, help="Why.")
@as_option
@json_option
def reopen_command(op: str, reason: str, name: str | None, as_json: bool) -> None:
    """Open a Published OP again: it is prepared anew and can be claimed once more."""
    settings = _writable(load_settings())
    who = _operator(settings, name)
    with open_ledger(settings) as ledger:
        step = ledger.reopen(op, actor=who, reason=reason)
    _print(step, as_json, f"{shown(op)} is Invertible again; the next pass prepares it.")


@click.command("retry")
@click.argument("op", required=False)
@click.option("--all", "is_all", is_flag=True, help="Every OP in Error, as after an outage.")
@click.option("--step", metavar="STEP", help="With --all: only what failed in this step.")
@click.option(
    "--class", "error_class", type=click.Choice(["transient", "permanent"]), help="With --all: only these."
)
@as_option
@json_option
def retry_command(
    op: str | None,
    is_all: bool,
    step: str | None,
    error_class: ErrorClass | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Bring an OP in Error back to the state before it; the next pass tries the step again."""
    if (op is None) is not is_all or (op is not None and (step or error_class)):
        raise WrongUse("Name one OP, or take --all, alone or with --step and --class.")
    who = acting(name)
    with open_ledger(load_settings()) as ledger:
        if op is None:
            errors = ledger.errors(step=step, error_class=error_class)
            rows = [row for error in errors if (row := _retried(ledger, error.op_id, error.details, who))]
        else:
            rows = [{**_failure(ledger.present(op).details), **_shown_step(ledger.retry(op, actor=who))}]
    if as_json:
        print_json(rows[0] if op is not None else rows)
    elif op is None and not errors:
        click.echo("No such OP is in Error." if step or error_class else "No OP is in Error.")
    elif op is None:
        click.echo(f"{len(rows)} of {len(errors)} in Error are back; the next pass goes on with them.")
        if rows:
            print_rows(rows, ("op_id", "state", "step", "class", "tries", "message"))
    else:
        said = rows[0]
        click.echo(f"{shown(op)} failed in {said['step']} ({said['class']}): {said['message']}")
        click.echo(f"It is {said['state']} again; the next pass goes on with it.")


def _failure(details: Mapping[str, Any]) -> dict[str, Any]:
    return {name: details.get(name) for name in ("step", "class", "message", "tries")}


def _retried(ledger: Ledger, op: str, details: Mapping[str, Any], who: str) -> dict[str, Any] | None:
    """What failed and where the OP is again; None when another was first."""
    try:
        return {**_failure(details), **_shown_step(ledger.retry(op, actor=who))}
    except (Conflict, IllegalTransition):
        return None
