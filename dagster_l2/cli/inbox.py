"""The command that shows the inbox; what comes in and how is in ``intake`` and the ledger."""

from __future__ import annotations

from dataclasses import asdict

import click

from dagster_l2.cli.output import json_option, print_json, print_rows
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import load_settings

COLUMNS = ("received_at", "door", "source", "op_id", "inversion_id", "actor", "outcome", "reason")


@click.command("inbox")
@click.option("--op", metavar="OP", help="Only what is about this OP.")
@click.option(
    "--limit", type=click.IntRange(0), default=20, show_default=True, help="The newest so many; 0: all."
)
@json_option
def inbox_command(op: str | None, limit: int, as_json: bool) -> None:
    """Every ready event that came in, by which door, and what became of it there."""
    with open_ledger(load_settings()) as ledger:
        receipts = ledger.receipts(op_id=op, limit=limit or None)
    rows = [asdict(receipt) for receipt in receipts]
    if as_json:
        print_json(rows)
    else:
        print_rows(rows, COLUMNS, empty="No ready event has come in.")
