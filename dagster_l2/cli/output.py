"""How commands print: a table for people, JSON for programs. Ids from outside are never markup."""

from __future__ import annotations

import logging
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
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


def print_json(content: Any, *, default: Callable[[Any], Any] | None = None) -> None:
    """Print one JSON value; ``default`` makes JSON of what is none, `plain` unless given."""
    import json

    click.echo(json.dumps(content, indent=2, ensure_ascii=False, default=default or plain))


def print_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str] | None = None, *, empty: str = "(no rows)"
) -> None:
    """Print rows as a table, or say on standard error that there is nothing.

    Where the terminal is narrow, names of columns and columns of words are folded, never ids, which are
    copied from here. Where it is too narrow for that, each row is printed as lines of name and value.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    if not rows:
        click.echo(empty, err=True)
        return
    names = list(columns or rows[0])
    # In a pipe a row is a line, however long, so that grep and awk find whole ids.
    terminal = shutil.get_terminal_size().columns if sys.stdout.isatty() else _PIPE_WIDTH
    columns_of = {name: [row.get(name) for row in rows] for name in names}
    whole = {name: _whole_width(values) for name, values in columns_of.items()}
    widths = {name: _least_width(values) for name, values in columns_of.items()}
    gaps = 2 * (len(names) - 1)
    is_wide = gaps + sum(max(len(name), whole[name]) for name in names) <= terminal
    heads = {
        name: name if is_wide or len(name) <= whole[name] else name.replace("_", "_\n") for name in names
    }
    least = gaps + sum(max(widths[name], *map(len, heads[name].split("\n"))) for name in names)
    if least > terminal:
        for number, row in enumerate(rows, 1):
            click.echo(f"row {number}")
            print_pairs({name: row.get(name) for name in names})
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name, values in columns_of.items():
        numeric = any(isinstance(value, int | float) for value in values)
        table.add_column(
            Text(heads[name]),
            justify="right" if numeric else "left",
            overflow="fold",
            no_wrap=widths[name] == whole[name],
        )
    for row in rows:
        table.add_row(*(Text(shown(row.get(name))) for name in names))
    Console(width=terminal, soft_wrap=False).print(table)


def _whole_width(values: Sequence[Any]) -> int:
    return max(len(shown(value)) for value in values)


def _least_width(values: Sequence[Any]) -> int:
    """How narrow a column may be: words are folded between them, all else stays whole."""
    texts = [shown(value) for value in values]
    if any(isinstance(value, datetime) for value in values) or not any(" " in text for text in texts):
        return _whole_width(values)
    return max((len(word) for text in texts for word in text.split()), default=0)


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
    """A value as JSON can hold it; a moment without a zone is UTC, and says so."""
    if isinstance(value, datetime) and value.tzinfo is None:
        value = value.replace(tzinfo=UTC)
    return stored(value)


def stored(value: Any) -> Any:
    """A value as JSON can hold it, its zone as it is: for answers whose meaning is the asker's."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    return str(value)
