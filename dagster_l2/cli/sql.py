"""``l2 sql``: a query on the analysts' DuckDB file, as a table, CSV, JSON or parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click

from dagster_l2.base.errors import WrongUse
from dagster_l2.base.files import write_durably
from dagster_l2.cli.output import json_option, print_json, print_rows, shown, stored
from dagster_l2.pipeline.gold import Answer, ask_gold, gold_to_parquet
from dagster_l2.settings import load_settings

FORMATS = ("table", "csv", "json", "parquet")
MOST_SHOWN = 80
"""Letters of a value that a table shows."""


@click.command("sql")
@click.argument("query")
@click.option(
    "--format", "wanted", type=click.Choice(FORMATS), help="By default a table, or as the file ends."
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="The file to write.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@json_option
def sql_command(query: str, wanted: str | None, output: Path | None, as_csv: bool, as_json: bool) -> None:
    """Run QUERY on the analysts' DuckDB file, read only; `-` reads it from standard input.

    In CSV lists are JSON text. A file is written beside its place and renamed, so it is there wholly or not.
    """
    chosen = _format(wanted, output, as_csv=as_csv, as_json=as_json)
    text = click.get_text_stream("stdin").read() if query == "-" else query
    if not text.strip(" \t\r\n;"):
        raise WrongUse("The query is empty; write some SQL, for instance: from op_latest_state.")
    gold = load_settings(reading_gold=True).gold
    if output is not None and not output.absolute().parent.is_dir():
        raise WrongUse(f"--output names {output}, whose folder is not there.")
    if chosen == "parquet":
        assert output is not None
        gold_to_parquet(gold, text, output)
    else:
        with ask_gold(gold, text) as answer:
            _WAYS[chosen](answer, output)
    if output is not None:
        click.echo(f"The answer is in {output}", err=True)


def _format(wanted: str | None, output: Path | None, *, as_csv: bool, as_json: bool) -> str:
    asked = {name for name, is_asked in ((wanted, wanted), ("csv", as_csv), ("json", as_json)) if is_asked}
    if len(asked) > 1:
        raise WrongUse("Choose one of --format, --csv and --json.")
    by_name = output.suffix.removeprefix(".").lower() if output else ""
    chosen = asked.pop() if asked else by_name if by_name in FORMATS else "table"
    assert chosen is not None
    if chosen == "parquet" and output is None:
        raise WrongUse("Parquet is written to a file: add --output FILE.")
    if chosen == "table" and output is not None:
        raise WrongUse(f"Say how to write {output}: --format csv, json or parquet.")
    return chosen


def _table(answer: Answer, output: Path | None) -> None:  # noqa: ARG001 - like the other ways
    """A table, its long values cut."""
    rows, is_cut = [], False
    for row in answer.rows():
        cut = {name: _cut(value) for name, value in row.items() if len(shown(value)) > MOST_SHOWN}
        is_cut = is_cut or bool(cut)
        rows.append({**row, **cut})
    print_rows(rows)
    if is_cut:
        click.echo("Long values are cut; --format json shows them whole.", err=True)


def _cut(value: Any) -> str:
    return f"{shown(value)[: MOST_SHOWN - 1]}…"


def _json(answer: Answer, output: Path | None) -> None:
    if output is None:
        print_json(list(answer.rows()), default=stored)
    else:
        _to_file(output, lambda stream: _dump_rows(answer, stream))


def _dump_rows(answer: Answer, stream: io.TextIOBase) -> None:
    before = "[\n"
    for row in answer.rows():
        stream.write(before + json.dumps(row, ensure_ascii=False, default=stored))
        before = ",\n"
    stream.write("[]\n" if before == "[\n" else "\n]\n")


def _csv(answer: Answer, output: Path | None) -> None:
    if output is None:
        _write_csv(answer, click.get_text_stream("stdout"))
    else:
        _to_file(output, lambda stream: _write_csv(answer, stream))


def _write_csv(answer: Answer, stream: Any) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(answer.names)
    writer.writerows(_cells(row) for row in answer)


def _cells(row: Iterable[Any]) -> list[Any]:
    return [
        json.dumps(value, ensure_ascii=False, default=stored) if isinstance(value, list | dict) else value
        for value in row
    ]


def _to_file(path: Path, write: Callable[[io.TextIOBase], None]) -> None:
    def fill(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            write(stream)

    write_durably(path, fill)


_WAYS: dict[str, Callable[[Answer, Path | None], None]] = {"table": _table, "csv": _csv, "json": _json}
