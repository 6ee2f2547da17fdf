"""The doors that assets are handed: the ledger, the store, dbt, and the warehouse's DuckDB file.

Opening is all that happens here; `wiring` knows how.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource
from dagster_duckdb import DuckDBResource
from packaging.version import Version

from dagster_l2.base.errors import L2Error, one_sentence_of
from dagster_l2.ledger import Ledger
from dagster_l2.pipeline.wiring import open_ledger, open_store, store_name
from dagster_l2.project import warehouse_project
from dagster_l2.settings import Settings
from dagster_l2.store import StoreClient


class L2:
    """The settings of the installation, and what opens with them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    def ledger(self) -> Ledger:
        """The open ledger."""
        return open_ledger(self.settings)

    @contextmanager
    def store(self) -> Iterator[StoreClient]:
        """A client of the store, for the time of a block."""
        with open_store(self.settings) as client:
            yield client

    @contextmanager
    def dbt_environment(self) -> Iterator[None]:
        """What the dbt profile and models read from the environment, for the time of a block."""
        wanted = {
            "L2_WAREHOUSE": str(self.settings.warehouse),
            "L2_WAREHOUSE_MEMORY": self.settings.warehouse_memory,
            "L2_STORE_NAME": store_name(self.settings),
            "L2_IS_DEMO": str(self.settings.is_demo).lower(),
            "DBT_LOG_PATH": str(self.settings.data / "dbt" / "logs"),
            # Where dagster-dbt looks for a parsed project: the second part of a pass takes the first's.
            "DBT_TARGET_PATH": str(self.settings.data / "dbt" / "verdicts"),
            "DO_NOT_TRACK": "1",
        }
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value


class DbtCore(DbtCliResource):
    """dbt-core of this installation, without what dagster-dbt prepares for its own row counts.

    Those leave the DuckDB file open in this process, so we count by ourselves (`assets.dbt_events`); asking
    ``dbt --version`` and loading the adapter for them took a quarter of a pass over small data.
    """

    @cached_property
    def _cli_version(self) -> Version:
        return Version(version("dbt-core"))

    def _initialize_dbt_core_adapter(self, args: Any) -> Any:  # noqa: ARG002
        return None


def rows_of(warehouse: DuckDBResource, query: str) -> list[dict[str, Any]]:
    """The rows of a query on the warehouse; for ops in its pool only."""
    with warehouse.get_connection() as connection:
        cursor = connection.execute(query)
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


@contextmanager
def one_sentence() -> Iterator[None]:
    """Turn an error that is meant for a person into a failure of the step with that sentence."""
    try:
        yield
    except L2Error as error:
        told: dict[str, Any] = {"exit_code": error.exit_code, "error": type(error).__name__}
        raise dg.Failure(str(error), metadata=told, allow_retries=False) from error
    except OSError as error:
        raise dg.Failure(one_sentence_of(error), metadata={"exit_code": 1}, allow_retries=False) from error


def default_resources(settings: Settings) -> dict[str, Any]:
    """The resources of production."""
    return {
        "l2": L2(settings),
        "warehouse": DuckDBResource(database=str(settings.warehouse)),
        "dbt": DbtCore(
            project_dir=str(warehouse_project.project_dir),
            dbt_executable=str(Path(sys.executable).parent / "dbt"),
        ),
    }
