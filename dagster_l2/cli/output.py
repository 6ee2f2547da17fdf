"""How commands print: a table for people, JSON for programs. Ids from outside are never markup."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import click

_SHOWN_WARNINGS = 5
_PIPE_WIDTH = 100_000

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def show_warnings() -> None:
    """Print the first warnings of what runs in this process; nothing where log lines are asked for."""
    logger = logging.getLogger("dagster_l2")
    others = [handler for handler in logger.handlers if not isinstance(handler, _Warnings)]
    if not others:
        logger.handlers = [_Warnings(logging.WARNING)]


class _Warnings(logging.Handler):
    shown = 0

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`."""
        self.shown += 1
        if self.shown <= _SHOWN_WARNINGS:
            click.echo(f"! {' '.join(record.getMessage().split())}", err=True)
        elif self.shown == _SHOWN_WARNINGS + 1:
            click.echo("! More warnings are not shown; with L2_LOG_FORMAT=text all are.", err=True)


def print_json(content: Any) -> None:
    """Print one JSON value."""
    import json

    click.echo(json.dumps(content, indent=2, ensure_ascii=False, default=plain))


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, *, empty: str = "(no rows)"
) -> None:
    """Print rows as a table, or say on standard error that there is nothing."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        click.echo(empty, err=True)
        return
    names = list(columns or rows[0])
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in names:
        numeric = any(isinstance(row.get(name), int | float) for row in rows)
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(shown(row.get(name))) for name in names))
    # In a pipe a row is a line, however long, so that grep and awk find whole ids.
    console = Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, soft_wrap=False)
    console.print(table)


def print_pairs(pairs: Mapping[str, Any]) -> None:
    """Print names and values, one a line."""
    width = max(map(len, pairs), default=0)
    for name, value in pairs.items():
        click.echo(f"  {name:<{width}}  {shown(value)}")


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value) or "–"
    text = str(value)
    return text if text.isprintable() else ascii(text)


def plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
