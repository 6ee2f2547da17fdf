"""``l2 backup`` and ``l2 restore``: what cannot be made anew, copied away and brought back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import click

from dagster_l2.cli.output import json_option, print_json
from dagster_l2.cli.progress import Counter
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import load_settings

EXTRAS = click.Choice(("products", "published"))


@click.command("backup")
@click.argument("target", metavar="FOLDER|FILE.tar", type=click.Path(path_type=Path))
@click.option("--with", "extras", multiple=True, type=EXTRAS, help="Also products, or what was published.")
@json_option
def backup_command(target: Path, extras: tuple[str, ...], as_json: bool) -> None:
    """Copy the ledger, bronze, manifests and input packages away, while other work goes on.

    A folder is brought up to date: only what is new is copied. Gold is not in it, since the next pass
    makes it anew; neither are staged frames, logs and Dagster's own records.
    """
    from dagster_l2.operations.backups import back_up

    settings = load_settings()
    with open_ledger(settings) as ledger, Counter() as counter:
        kept = back_up(settings, ledger, target, extras=extras, progress=_told(counter))
    if as_json:
        print_json({"target": target, **asdict(kept)})
    else:
        click.echo(
            f"{target} holds {kept.files:,} files ({kept.bytes / 1e6:,.1f} MB; copied now:"
            f" {kept.copied_files:,}, {kept.copied_bytes / 1e6:,.1f} MB) and {kept.ledger_rows:,} rows of the"
            " ledger."
        )


@click.command("restore")
@click.argument("source", metavar="FOLDER|FILE.tar", type=click.Path(exists=True, path_type=Path))
@click.option("--files-only", is_flag=True, help="The state database lies elsewhere and was not lost.")
@json_option
def restore_command(source: Path, files_only: bool, as_json: bool) -> None:
    """Bring a backup into an empty data folder and state database; ended early, run it again."""
    from dagster_l2.operations.backups import restore

    settings = load_settings(restoring=True)
    with Counter() as counter:
        kept = restore(settings, source, files_only=files_only, progress=_told(counter))
    if as_json:
        print_json({"source": source, **asdict(kept)})
    else:
        click.echo(
            f"{settings.data} holds again what was backed up at {kept.created_at}: {kept.files:,} files and"
            f" {kept.ledger_rows:,} rows of the ledger. Next: `l2 db check`, and `l2 run`, which makes gold"
            " anew."
        )


def _told(counter: Counter) -> Callable[[int, int], None]:
    return lambda done, total: counter.say(f"  {done:,} of {total:,} files")
