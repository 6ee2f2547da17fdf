"""Readers and builds never wait for each other, and what fails a test is not published and is named."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import polars as pl
import pytest

from dagster_l2.assets.warehouse import bronze_tables, gold_descriptions, gold_tables, verdict_models
from dagster_l2.assets.warehouse import gold as gold_asset
from dagster_l2.lake import Description, write_gold
from dagster_l2.project import warehouse_project
from dagster_l2.resources import default_resources
from dagster_l2.settings import load_settings
from tests.end_to_end.kit import Pipeline
from tests.end_to_end.readers import Analysts, analysts

pytestmark = pytest.mark.xdist_group("analysts")

BUILDS = 10


def test_eight_readers_during_ten_builds(demo_copy: Callable[[], Pipeline], tmp_path: Path) -> None:
    """Each build is another version; who keeps the file open stays with the one they opened.

    Nobody waits: in the middle of each build, and of writing gold, all eight ask and are answered, and
    four of them have the file open from before the first build until after the last.
    """
    data = demo_copy().data
    versions = [_version(data / "l2.duckdb")]
    with analysts(data / "l2.duckdb", tmp_path, each=4, pause_s=0.1) as readers:
        for _ in range(BUILDS):
            versions.append(_build_and_publish(data, readers))
            readers.wait_for_version(versions[-1])
        held, opened = readers.answers("holds"), readers.answers("opens")
    assert versions == sorted(set(versions))
    assert [{version for version, _ in seen} for seen in held] == [{versions[0]}] * 4
    for seen in opened:
        assert list(dict.fromkeys(version for version, _ in seen)) == versions
    assert not list(data.glob("*.wal"))


class _Meanwhile(dict[str, Description]):
    """Descriptions for gold; before it writes them all readers are answered once more."""

    def __init__(self, readers: Analysts) -> None:
        super().__init__(gold_descriptions())
        self._readers = readers

    def items(self) -> Any:
        self._readers.wait_for_questions()
        return super().items()


def _build_and_publish(data: Path, readers: Analysts) -> int:
    """What a build and its publication do to the files; gives back the version."""
    with duckdb.connect(str(data / "warehouse.duckdb")) as connection:
        connection.execute("begin")
        connection.execute("update warehouse_info set built_at = built_at + interval 1 hour")
        readers.wait_for_questions()
        connection.execute("commit")
    macros = (warehouse_project.project_dir / "gold_macros.sql").read_text(encoding="utf-8")
    write_gold(
        data / "warehouse.duckdb",
        data / "l2.duckdb",
        data / "lake" / "gold",
        gold_tables(),
        macros,
        _Meanwhile(readers),
    )
    return _version(data / "warehouse.duckdb")


def _version(path: Path) -> int:
    with duckdb.connect(str(path), read_only=True) as connection:
        return int(connection.execute("select epoch_us(built_at) from warehouse_info").fetchall()[0][0])


# dagster-dbt asks for it.
@pytest.mark.filterwarnings("ignore:AssetExecutionContext.op is deprecated:DeprecationWarning")
def test_a_failing_data_test_publishes_nothing_and_names_the_rows(
    demo_copy: Callable[[], Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = demo_copy().data
    monkeypatch.setenv("L2_DATA_DIR", str(data))
    gold = (data / "l2.duckdb").read_bytes()
    _add_attempts_with_an_unknown_status(data, 25)
    result = dg.materialize(
        [verdict_models, gold_asset],
        selection=dg.AssetSelection.assets(["marts", "scan_coverage"], ["gold", "l2_duckdb"]),
        resources=default_resources(load_settings()),
        raise_on_error=False,
    )
    assert not result.success
    assert (data / "l2.duckdb").read_bytes() == gold
    (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    said = failure.user_failure_data.description
    assert "gold stays as it was" in said
    assert "window_start 2025-01-01 00:00:00" in said
    assert "status LOST" in said
    (check,) = [one for one in result.get_asset_check_evaluations() if not one.passed]
    assert check.asset_key == dg.AssetKey(["marts", "scan_coverage"])
    assert "status LOST" in check.description
    records = check.metadata["failing rows"].records
    assert len(records) == 20
    assert {record.data["status"] for record in records} == {"LOST"}


def _add_attempts_with_an_unknown_status(data: Path, number: int) -> None:
    (table,) = [table for table in bronze_tables(data / "lake") if table.name == "attempts"]
    row = table.scan().collect().row(0, named=True)
    start = datetime(2025, 1, 1)
    rows = [
        {
            **row,
            "attempt_id": 9000 + day,
            "status": "LOST",
            "window_start": start + timedelta(day),
            "window_end": start + timedelta(day + 1),
            "source": "elsewhere",
        }
        for day in range(number)
    ]
    table.append(pl.DataFrame(rows, schema=table.schema), job_id="spoiled", part="attempts")
