"""``l2 docs``: the dbt docs with the lineage, as one static HTML file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import click

from dagster_l2.base.errors import L2Error
from dagster_l2.base.files import only_one
from dagster_l2.settings import load_settings


@click.command("docs")
@click.option(
    "--output", type=click.Path(path_type=Path), help="The file; data/docs/warehouse.html if not given."
)
def docs_command(output: Path | None) -> None:
    """Write the dbt docs (models, columns, tests, lineage) as one HTML file."""
    settings = load_settings()
    from dagster_duckdb import DuckDBResource

    from dagster_l2.assets.warehouse import register_bronze
    from dagster_l2.project import warehouse_project
    from dagster_l2.resources import L2

    target = settings.data / "dbt" / "docs"
    path = output or settings.data / "docs" / "warehouse.html"
    l2 = L2(settings)
    with (
        only_one(settings.data / "locks" / "warehouse.lock", "A build of the warehouse"),
        l2.dbt_environment(),
    ):
        register_bronze(l2, DuckDBResource(database=str(settings.warehouse)))
        command = [
            str(Path(sys.executable).parent / "dbt"),
            "--quiet",
            "docs",
            "generate",
            "--static",
            "--project-dir",
            str(warehouse_project.project_dir),
            "--profiles-dir",
            str(warehouse_project.project_dir),
            "--target-path",
            str(target),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise L2Error(f"dbt could not write the docs: {' '.join((done.stdout + done.stderr).split())[-300:]}")
    path.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(target / "static_index.html", path)
    click.echo(f"The docs are in {path}")
