"""``l2 ledger``: the whole ledger as a file of JSON lines, and back into an empty one."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from dagster_l2.base.errors import WrongUse
from dagster_l2.base.files import write_durably
from dagster_l2.batch import batch_attempts
from dagster_l2.cli.output import json_option, print_json
from dagster_l2.cli.progress import Counter
from dagster_l2.ledger import Dumped
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import load_settings


@click.group("ledger")
def ledger_command() -> None:
    """The ledger as a file: export it, import it."""


@ledger_command.command("export")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path, allow_dash=True))
@json_option
def export_command(file: Path, as_json: bool) -> None:
    """Write the whole ledger as of now to FILE, `-` for standard output."""
    to_stdout = str(file) == "-"
    if to_stdout and as_json:
        raise WrongUse("With - the dump itself goes to standard output; name a file, or leave out --json.")
    if not to_stdout and not file.absolute().parent.is_dir():
        raise WrongUse(f"The folder of {file} is not there; make it, or name another file.")
    written: list[Dumped] = []
    with open_ledger(load_settings()) as ledger, Counter() as counter:
        if to_stdout:
            stream = click.get_binary_stream("stdout")
            written.append(ledger.dump(stream, others=[batch_attempts], progress=counter.show))
            stream.flush()
        else:

            def write(temporary: Path) -> None:
                with temporary.open("wb") as stream:
                    written.append(ledger.dump(stream, others=[batch_attempts], progress=counter.show))

            write_durably(file, write)
    if as_json:
        print_json({"file": file, **asdict(written[0])})
    else:
        click.echo(f"{written[0].rows:,} rows are written, last hash {written[0].hash}.", err=to_stdout)


@ledger_command.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@json_option
def import_command(file: Path, as_json: bool) -> None:
    """Take a dump into this ledger, which must be empty; the whole file is verified first."""
    if not file.is_file():
        raise WrongUse(f"{file} is not a regular file; it is read twice, so write the dump to one first.")
    with open_ledger(load_settings(), importing=True) as ledger, Counter() as counter:
        loaded = ledger.load(file, others=[batch_attempts], progress=counter.show)
    if as_json:
        print_json({"file": file, **asdict(loaded.dump), "is_new": loaded.is_new})
    elif loaded.is_new:
        click.echo(f"{loaded.dump.rows:,} rows are imported, last hash {loaded.dump.hash}.")
    else:
        click.echo(f"The ledger has the {loaded.dump.rows:,} rows of {file} already.")
