"""Commands that people work with: claim, release, ready, withdraw, publish, reopen, retry."""

from __future__ import annotations

import getpass
import re
from pathlib import Path
from typing import Any

import click

from dagster_l2.cli.output import json_option, print_json, shown
from dagster_l2.errors import L2Error, WrongUse
from dagster_l2.holds import approve, waiting_reason
from dagster_l2.ledger import NotAllowed, State, Transition
from dagster_l2.settings import Settings, load_settings
from dagster_l2.wiring import open_ledger

_COMMIT = re.compile(r"[0-9a-fA-F]{7,64}\Z")

as_option = click.option("--as", "name", metavar="NAME", help="Who acts; the user's name unless given.")


def _who(name: str | None) -> str:
    return name or getpass.getuser()


def _writable(settings: Settings) -> Settings:
    if settings.store_kind == "public":
        raise WrongUse(
            "The public dataset search is read only: set L2_STORE_KIND=graphql to claim and to publish."
        )
    return settings


def _operator(settings: Settings, name: str | None) -> str:
    who = _who(name)
    if who not in settings.operator_names:
        known = ", ".join(sorted(settings.operator_names))
        raise NotAllowed(
            f"Only an operator may do this, and {who} is none: use --as with one of {known}, or L2_OPERATORS."
        )
    return who


def _print(step: Transition, as_json: bool, sentence: str) -> None:
    content: dict[str, Any] = {
        "op_id": step.op_id,
        "state": step.to_state.value,
        "inversion_id": step.inversion_id,
        "actor": step.actor,
        "occurred_at": step.occurred_at,
        "details": step.details,
    }
    if as_json:
        print_json(content)
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
        step = ledger.claim(op, actor=_who(name))
    package = settings.data / str(step.details.get("package"))
    _print(step, as_json, f"{shown(op)} is yours as {step.inversion_id}. Inputs: {package}")


@click.command("release")
@click.argument("op")
@as_option
@json_option
def release_command(op: str, name: str | None, as_json: bool) -> None:
    """Give a claimed OP back to the queue."""
    settings = load_settings()
    who = _who(name)
    with open_ledger(settings) as ledger:
        step = ledger.release(op, actor=who, is_operator=who in settings.operator_names)
    _print(step, as_json, f"{shown(op)} is back in the queue.")


@click.command("ready")
@click.argument("op")
@click.option("--products", required=True, type=click.Path(path_type=Path), help="Folder of the FITS files.")
@click.option("--commit", required=True, metavar="HASH", help="Commit of the inversion software.")
@click.option("--datasets", metavar="ID,ID", help="The datasets that were inverted; all of the package.")
@click.option("--inputs-changed-ok", is_flag=True, help="Hand over although the inputs have changed.")
@as_option
@json_option
def ready_command(
    op: str,
    products: Path,
    commit: str,
    datasets: str | None,
    inputs_changed_ok: bool,
    name: str | None,
    as_json: bool,
) -> None:
    """Say that the products of a claimed OP are ready; they are verified and published next."""
    settings = _writable(load_settings())
    if not products.is_dir():
        raise WrongUse(f"The folder {products} of the products is not there.")
    if not _COMMIT.match(commit):
        raise WrongUse(f"--commit takes a hash of 7 to 64 hexadecimal digits, not {commit!r}.")
    chosen = [part.strip() for part in datasets.split(",") if part.strip()] if datasets is not None else None
    who = _who(name)
    with open_ledger(settings) as ledger:
        event = ledger.submit_ready(
            op,
            products=str(products.absolute()),
            commit_hash=commit,
            actor=who,
            is_operator=who in settings.operator_names,
            dataset_ids=chosen,
            inputs_changed_ok=inputs_changed_ok,
        )
    if as_json:
        print_json({"event_id": event.event_id, "op_id": op, "inversion_id": event.inversion_id})
    else:
        click.echo(
            f"Taken down as event {event.event_id}: the sensor (make ui) or the next `l2 run` verifies and"
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
    who = _who(name)
    with open_ledger(settings) as ledger:
        present = ledger.present(op)
        is_allowed = who == present.claimed_by or who in settings.operator_names
        # In any other state there is nothing to withdraw, whoever asks; the ledger says so.
        if present.state is State.INVERTED and not is_allowed:
            raise NotAllowed(
                f"{shown(op)} is {present.claimed_by}'s; only they or an operator may withdraw it."
            )
        step = ledger.withdraw(op, actor=who, reason=reason)
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
        present = ledger.present(op)
        if present.state is not State.INVERTED:
            raise WrongUse(f"{shown(op)} is {present.state}; only an Inverted OP can be published.")
        approve(ledger, present, actor=who)
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
@click.argument("op")
@as_option
@json_option
def retry_command(op: str, name: str | None, as_json: bool) -> None:
    """Bring an OP in Error back to the state before it; the next pass tries the step again."""
    with open_ledger(load_settings()) as ledger:
        step = ledger.retry(op, actor=_who(name))
    _print(step, as_json, f"{shown(op)} is {step.to_state} again; the next pass goes on with it.")
