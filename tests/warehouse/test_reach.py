"""REACH in Dagster and in the warehouse: a real UDL with a bad day, the asset, its check, and dbt."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import Any

import dagster as dg
import polars as pl
import pytest
from dagster_duckdb import DuckDBResource
from prometheus_client.parser import text_string_to_metric_families
from warehouse_kit import Warehouse

from dagster_l2.assets.warehouse import register_bronze
from dagster_l2.batch import export_job_tasks
from dagster_l2.build import build_defs
from dagster_l2.checks import windows_complete
from dagster_l2.jobs import REACH
from dagster_l2.ledger import Ledger
from dagster_l2.pipeline.downloads import reach_table
from dagster_l2.resources import L2
from dagster_l2.settings import Settings, load_settings
from dagster_l2.store.server import LocalStoreServer, RecordSet, store_app
from dagster_l2.store.server.reach_generate import ReachFleet

pytestmark = pytest.mark.xdist_group("dagster")

SAMPLES_A_DAY = 2 * 24
ONE_SENSOR = {"sensor": "REACH-101"}
# One chunk of four is refused, and those whose span or second look reaches into it.
PARTLY = pytest.approx(50.0, abs=26)


class World:
    """An installation over a UDL of a few slow dosimeters."""

    def __init__(self, settings: Settings, app: Any, dagster: dg.DagsterInstance) -> None:
        self.settings, self.app, self.dagster = settings, app, dagster

    def download(self, first: str, last: str, **config: Any) -> tuple[dict[str, dict[str, Any]], Any]:
        """A backfill of days as one run: metadata by day, and the check. A day that came is materialized."""
        result = (
            build_defs(settings=self.settings)
            .resolve_job_def(REACH)
            .execute_in_process(
                instance=self.dagster,
                tags={
                    "dagster/asset_partition_range_start": first,
                    "dagster/asset_partition_range_end": last,
                },
                run_config={"ops": {"bronze__reach": {"config": {**ONE_SENSOR, **config}}}},
                raise_on_error=False,
            )
        )
        came = [event.materialization for event in result.get_asset_materialization_events()]
        failed = [
            event.asset_observation_data.asset_observation for event in result.get_asset_observation_events()
        ]
        days = {
            str(event.partition): {name: value.value for name, value in event.metadata.items()}
            for event in (*came, *failed)
        }
        assert [event.partition for event in failed] == [
            key for key, day in days.items() if day["status"] == "FAILED"
        ]
        [check] = result.get_asset_check_evaluations()
        assert (result.success, check.passed) == (not failed, not failed)
        return days, check

    def figure(self, name: str, **labels: str) -> float | None:
        """A figure of the metrics file."""
        text = self.settings.metrics_file.read_text(encoding="utf-8")
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if sample.name == name and sample.labels == labels:
                    return float(sample.value)
        return None


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("reach")
    fleet = ReachFleet(satellites=2, cadence_s=3600, quirks=False)
    app = store_app(RecordSet(), inversions_file=folder / "inversions.sqlite", reach=fleet)
    with (
        LocalStoreServer(app) as server,
        pytest.MonkeyPatch.context() as patch,
        dg.DagsterInstance.ephemeral() as dagster,
    ):
        patch.setenv("L2_DATA_DIR", str(folder / "data"))
        patch.setenv("L2_UDL_URL", server.url)
        patch.setenv("L2_REACH_CADENCE_S", "3600")
        yield World(load_settings(), app, dagster)


@pytest.fixture(scope="module")
def first(world: World) -> tuple[dict[str, dict[str, Any]], Any]:
    """Three days, of which the UDL refuses a question about the second."""
    world.app.state.faults.add("status", status=400, body="no such field", match="2025-05-02T06")
    try:
        return world.download("2025-05-01", "2025-05-03")
    finally:
        world.app.state.faults.clear()


@pytest.fixture(autouse=True)
def _settings_of_the_world(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The workers read the settings too; those of the tests are cleared before each."""
    monkeypatch.setenv("L2_DATA_DIR", str(world.settings.data))
    monkeypatch.setenv("L2_UDL_URL", str(world.settings.udl_url))
    monkeypatch.setenv("L2_REACH_CADENCE_S", "3600")


def test_a_day_that_fails_fails_the_check_and_not_the_other_days(
    world: World, first: tuple[dict[str, dict[str, Any]], Any]
) -> None:
    days, check = first
    assert not check.passed
    assert "1 of 3 days" in check.description
    [bad] = [record.data for record in check.metadata["failed"].value.records]
    assert bad["day"] == "2025-05-02"
    assert "no such field" in bad["error"]
    assert [(days[day]["status"], days[day].get("availability_pct")) for day in sorted(days)] == [
        ("DOWNLOADED", 100.0),
        ("FAILED", PARTLY),
        ("DOWNLOADED", 100.0),
    ]
    last = days["2025-05-03"]
    assert (last["windows planned"], last["downloaded"], last["failed"]) == (3, 2, 1)
    assert last["requests"] == len(world.app.state.requests)
    assert all(
        last[name].startswith("![picture](data:image/png") for name in ("calendar of availability", "rate")
    )
    # What is of the whole run would be drawn as each day's.
    assert set(days["2025-05-01"]) == {"status", "records", "bytes", "availability_pct"}

    rows = reach_table(world.settings.lake).scan().select("id_sensor", "ob_time").collect()
    assert set(rows["ob_time"].dt.date()) == {date(2025, 5, 1), date(2025, 5, 3)}
    assert (len(rows), rows["id_sensor"].unique().to_list()) == (2 * SAMPLES_A_DAY, ["REACH-101"])

    assert world.figure("l2_windows", source="reach", status="FAILED") == 1
    assert world.figure("l2_job_last_success", job="reach") == 0
    assert world.figure("l2_job_requests_total", job="reach") == last["requests"]


@pytest.mark.usefixtures("first")
def test_the_warehouse_reads_what_came_and_the_check_of_the_scan_is_not_about_reach(world: World) -> None:
    warehouse = Warehouse(world.settings.data)
    resource = DuckDBResource(database=str(world.settings.warehouse))
    with Ledger.open(world.settings.state_url) as ledger:
        assert export_job_tasks(world.settings.lake, ledger.engine) == 1
        assert export_job_tasks(world.settings.lake, ledger.engine) == 0
    register_bronze(L2(world.settings), resource)
    models = (
        "stg_reach__observations int_reach_observations"
        " stg_batch__attempts scan_coverage stg_batch__job_tasks download_jobs"
    )
    warehouse.dbt("build", "--select", *models.split(), "--exclude-resource-type", "unit_test")

    assert warehouse.rows(
        "select window_start::date as day, status, availability_pct from scan_coverage"
        " where source = 'reach' and (query->>'$.sensor') = 'REACH-101' order by window_start"
    ) == [
        {"day": date(2025, 5, 1), "status": "DOWNLOADED", "availability_pct": 100.0},
        {"day": date(2025, 5, 2), "status": "FAILED", "availability_pct": PARTLY},
        {"day": date(2025, 5, 3), "status": "DOWNLOADED", "availability_pct": 100.0},
    ]
    assert warehouse.query(
        "select job_name, status, task_count, failed_task_count, requests from download_jobs"
    ) == [("reach", "FAILED", 3, 1, world.figure("l2_job_requests_total", job="reach"))]
    assert warehouse.query(
        "select list_sum([step.requests for step in requests_over_time]) = requests from download_jobs"
    ) == [(True,)]
    check = windows_complete(warehouse=resource)
    assert isinstance(check, dg.AssetCheckResult)
    assert check.passed

    [first] = warehouse.rows("from int_reach_observations order by observed_at, duplicate_key limit 1")
    assert (first["sensor_id"], first["descriptor"]) == ("REACH-101", "QUICKLOOK")
    assert len(first["sensor_position_km"]) == 3
    assert first["measurements"][0]["ob_value"] is not None
    # A correction that came later, in a file of its own: both are in bronze, the later one counts.
    table = reach_table(world.settings.lake)
    again = table.scan().sort("ob_time", "duplicate_key").head(1).collect()
    late = again.with_columns(pl.col("created_at").dt.offset_by("3d"), alt=pl.lit(-1.0))
    table.append(late, job_id="later", part="day")
    register_bronze(L2(world.settings), resource)
    counts = "select count(*), count(*) filter (where altitude_km = -1) from"
    assert warehouse.query(f"{counts} stg_reach__observations") == [(2 * SAMPLES_A_DAY + 1, 1)]
    assert warehouse.query(f"{counts} int_reach_observations") == [(2 * SAMPLES_A_DAY, 1)]


@pytest.mark.usefixtures("first")
def test_a_second_run_asks_only_for_the_day_that_failed(world: World) -> None:
    world.app.state.requests.clear()
    days, check = world.download("2025-05-01", "2025-05-03")
    last = days["2025-05-03"]
    assert check.passed
    assert (last["skipped existing"], last["downloaded"], last["failed"]) == (2, 1, 0)
    assert "retries" not in last
    assert set(check.metadata) == {"failed days"}
    assert all("2025-05-02" in query for _at, (_path, query) in world.app.state.requests)
    assert days["2025-05-02"]["availability_pct"] == 100.0

    world.app.state.requests.clear()
    days, check = world.download("2025-05-01", "2025-05-03")
    assert check.passed
    assert days["2025-05-03"]["skipped existing"] == 3
    assert not world.app.state.requests
    assert world.figure("l2_windows", source="reach", status="DOWNLOADED") == 3


def test_a_pass_does_not_download(world: World) -> None:
    job = build_defs(settings=world.settings).resolve_job_def("whole_pass")
    assert not any("reach" in node.name and "model" not in node.name for node in job.nodes)
