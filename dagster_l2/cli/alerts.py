"""``l2 alerts``: what people were told, and what waits to be."""

from __future__ import annotations

from dataclasses import asdict

import click

from dagster_l2.cli.output import json_option, print_json, print_rows, shown
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import load_settings

COLUMNS = ("raised_at", "kind", "responsible", "what", "look", "delivered")


@click.command("alerts")
@click.option(
    "--limit", type=click.IntRange(0), default=20, show_default=True, help="The newest so many; 0: all."
)
@json_option
def alerts_command(limit: int, as_json: bool) -> None:
    """Every alert that was raised, newest first, and by which ways it went out."""
    settings = load_settings()
    with open_ledger(settings) as ledger:
        alerts = ledger.alerts(limit=limit or None)
    from dagster_l2.operations.alerts import ways_of

    if as_json:
        print_json([asdict(alert) for alert in alerts])
        return
    rows = [
        {
            **alert.details,
            "raised_at": alert.raised_at,
            "kind": alert.kind,
            "delivered": ", ".join(f"{way} {shown(at)}" for way, at in alert.delivered.items()) or "waits",
        }
        for alert in alerts
    ]
    print_rows(rows, COLUMNS, empty="No alert was raised.")
    if not ways_of(settings):
        click.echo("Nobody is told: neither L2_ALERT_URL nor L2_ALERT_MAIL_TO is set here.", err=True)
