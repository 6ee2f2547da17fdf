"""``l2 serve`` and ``l2 token``: the service, and who may speak to it."""

from __future__ import annotations

from dataclasses import asdict
from typing import cast

import click

from dagster_l2.cli.output import json_option, print_json, print_rows, shown
from dagster_l2.cli.serve import refuse_taken
from dagster_l2.cli.work import acting, as_option
from dagster_l2.ledger import ROLES, Role
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import load_settings

TOKEN_COLUMNS = ("token_id", "name", "role", "added_at", "added_by", "revoked_at", "revoked_by")


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; L2_SERVICE_PORT unless given.")
def serve_command(host: str, port: int | None) -> None:
    """Serve OPs, the queue, claims and ready events over HTTP; Ctrl-C stops it.

    All but health takes a token of `l2 token add`. It speaks plain HTTP: beyond this machine, put it behind
    a server that speaks HTTPS.
    """
    settings = load_settings()
    from dagster_l2.answers.live import set_aside
    from dagster_l2.answers.serving import Serving
    from dagster_l2.service import Limits, serve, service_app

    wanted = settings.service_port if port is None else port
    refuse_taken(host, wanted, "The service")
    with Serving(settings) as backend:
        click.echo(f"The service answers at http://{host}:{wanted} (Ctrl-C stops it).", err=True)
        app = service_app(backend, Limits(per_second=settings.service_rate_max))
        set_aside()
        serve(app, host, wanted)


@click.group("token")
def token_command() -> None:
    """The personal tokens of the service; each is shown once and kept as a hash."""


@token_command.command("add")
@click.argument("holder", metavar="NAME")
@click.option("--role", type=click.Choice(ROLES), default="scientist", show_default=True, help="What it may.")
@as_option
@json_option
def add_command(holder: str, role: str, name: str | None, as_json: bool) -> None:
    """Give out a token: a reader looks, a scientist also claims and hands over, an operator also decides."""
    with open_ledger(load_settings()) as ledger:
        token, secret = ledger.add_token(holder, cast("Role", role), actor=acting(name))
    if as_json:
        print_json({**asdict(token), "token": secret})
        return
    click.echo(secret)
    click.echo(f"{shown(token.name)}'s token, as {role}; it is not shown again.", err=True)


@token_command.command("list")
@json_option
def list_command(as_json: bool) -> None:
    """Every token that was given out, and who took it back."""
    with open_ledger(load_settings()) as ledger:
        rows = [asdict(token) for token in ledger.tokens()]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, TOKEN_COLUMNS, empty="No token was given out: `l2 token add NAME` does it.")


@token_command.command("revoke")
@click.argument("token_id")
@as_option
@json_option
def revoke_command(token_id: str, name: str | None, as_json: bool) -> None:
    """Take a token back, by its id of `l2 token list`; it holds no more from now on."""
    with open_ledger(load_settings()) as ledger:
        token = ledger.revoke_token(token_id, actor=acting(name))
    if as_json:
        print_json(asdict(token))
    else:
        click.echo(f"{shown(token.name)}'s token {token.token_id} holds no more.")
