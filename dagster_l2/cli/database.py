"""``l2 db``: the state database brought to this version's schema, and checked."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from dagster_l2.base.errors import L2Error
from dagster_l2.batch import STATE_TABLES
from dagster_l2.cli.output import json_option, print_json, print_rows
from dagster_l2.cli.progress import Counter
from dagster_l2.ledger import Finding, check_database, upgrade_database
from dagster_l2.settings import load_settings

SHOWN_FINDINGS = 50


@click.group("db")
def db_command() -> None:
    """The state database: upgrade it, check it."""


@db_command.command("upgrade")
@json_option
def upgrade_command(as_json: bool) -> None:
    """Bring the state database to the newest schema; other commands do so when they open it."""
    settings = load_settings()
    settings.data.mkdir(parents=True, exist_ok=True)
    place, before, after = upgrade_database(settings.state_url, schema=settings.db_schema)
    if as_json:
        print_json({"database": place, "before": before, "after": after})
    elif before == after:
        click.echo(f"{place} is already at revision {after}.")
    else:
        click.echo(f"{place} was upgraded from {f'revision {before}' if before else 'nothing'} to {after}.")


@db_command.command("check")
@json_option
def check_command(as_json: bool) -> None:
    """Check schema, guards and edges, and replay every OP's history; nothing is changed or made."""
    settings = load_settings()
    with Counter() as counter:
        report = check_database(
            settings.state_url,
            schema=settings.db_schema,
            others=STATE_TABLES,
            progress=lambda done, about: counter.show("replayed", done, about),
        )
    if as_json:
        content = asdict(report) | {"is_in_order": report.is_in_order}
        print_json(content)
    else:
        counts = f"{report.ops:,} OPs, {report.transitions:,} transitions"
        click.echo(f"{report.place}: {counts}: {'in order' if report.is_in_order else 'not in order'}.")
        _print("Found", report.findings, report.found)
        _print("Remarks, which need no mending", report.remarks, report.remarked)
    if not report.is_in_order:
        more = f" (and {report.found - 1:,} more)" if report.found > 1 else ""
        raise L2Error(f"The ledger in {report.place} is not in order: {_told(report.findings[0])}{more}")


def _print(title: str, findings: list[Finding], count: int) -> None:
    if not findings:
        return
    click.echo(f"\n{title}")
    rows: list[dict[str, Any]] = [
        {"op_id": finding.op_id, "seq": finding.seq, "what": finding.sentence}
        for finding in findings[:SHOWN_FINDINGS]
    ]
    print_rows(rows)
    if count > SHOWN_FINDINGS:
        click.echo(f"… and {count - SHOWN_FINDINGS:,} more.")


def _told(finding: Finding) -> str:
    if finding.op_id is None:
        return finding.sentence
    step = f", seq {finding.seq}" if finding.seq is not None else ""
    return f"OP {finding.op_id}{step}: {finding.sentence}."
