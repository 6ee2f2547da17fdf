"""``l2 notebook``: the notebook on the analysts' DuckDB file, in the browser."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys

import click

from dagster_l2.base.errors import L2Error
from dagster_l2.cli.serve import refuse_taken
from dagster_l2.pipeline.gold import NoGold
from dagster_l2.settings import REPOSITORY, load_settings

NOTEBOOK = REPOSITORY / "notebooks" / "l2.py"


@click.command("notebook")
@click.option("--edit", is_flag=True, help="Edit a copy of your own, data/notebooks/l2.py.")
@click.option(
    "--port", type=click.IntRange(1, 65535), default=2718, show_default=True, help="Port of the page."
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to bind to.")
@click.option("--no-browser", is_flag=True, help="Open no browser.")
def notebook_command(edit: bool, port: int, host: str, no_browser: bool) -> None:
    """Open the notebook: seeing, OPs over time, the disk, how far the OPs are; Ctrl-C stops it."""
    settings = load_settings(reading_gold=True)
    if importlib.util.find_spec("marimo") is None:
        raise L2Error("The notebook needs marimo: `make notebook` installs and opens it.")
    if not settings.gold.exists():
        raise NoGold(f"There is no {settings.gold} yet: `l2 run` makes it.")
    refuse_taken(host, port, "The notebook (--port)")
    notebook = NOTEBOOK
    if edit:
        notebook = settings.data / "notebooks" / NOTEBOOK.name
        notebook.parent.mkdir(parents=True, exist_ok=True)
        if not notebook.exists():
            shutil.copyfile(NOTEBOOK, notebook)
    # Whoever edits runs code of their own: there marimo asks for the token in the address it prints.
    how = ["edit", "--skip-update-check"] if edit else ["run", "--include-code", "--no-token"]
    where = ["--host", host, "--port", str(port), *(["--headless"] if no_browser else [])]
    command = [sys.executable, "-m", "marimo", *how, str(notebook), *where]
    # In this process's place, so that whatever ends the command ends the page.
    os.execve(sys.executable, command, {**os.environ, "L2_DATA_DIR": str(settings.data)})  # noqa: S606
