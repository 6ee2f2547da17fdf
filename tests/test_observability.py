"""What a download tells: log lines with ids, counts per task that add up to the server's, Prometheus text."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from dagster_l2.base.logs import JsonLines, TextLines
from dagster_l2.base.telemetry import Tally, at_work_on, carried, count, merged_series, sums, tallying
from dagster_l2.batch import RunSummary
from dagster_l2.ledger import Ledger
from dagster_l2.pipeline.downloads import download_reach, reach_request
from dagster_l2.pipeline.metrics import write_metrics
from dagster_l2.settings import REPOSITORY, Settings, load_settings
from dagster_l2.store.server import LocalStoreServer, RecordSet, store_app
from dagster_l2.store.server.reach_generate import ReachFleet

TOKEN = "c2VjcmV0OnNlY3JldA=="


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    logger = logging.getLogger("dagster_l2")
    before = (list(logger.handlers), logger.level, logger.propagate)
    yield
    logger.handlers, logger.level, logger.propagate = before


@pytest.fixture
def udl(data: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A UDL that breaks off the fourth answer and turns down the ninth request."""
    data.mkdir()
    fleet = ReachFleet(satellites=2, cadence_s=3600, quirks=False)
    app = store_app(
        RecordSet(), inversions_file=data.parent / "inversions.sqlite", reach=fleet, udl_token=TOKEN
    )
    app.state.faults.add("status", status=429, headers={"Retry-After": "0"}, skip=8, times=1)
    app.state.faults.add("cut", skip=3, times=1)
    with LocalStoreServer(app) as server:
        monkeypatch.setenv("L2_UDL_URL", server.url)
        monkeypatch.setenv("L2_UDL_TOKEN", TOKEN)
        monkeypatch.setenv("L2_REACH_CADENCE_S", "3600")
        yield app


def download(settings: Settings) -> RunSummary:
    request = reach_request(
        settings, date(2025, 5, 1), date(2025, 5, 2), sensor="REACH-101", rate={"initial": 20.0}
    )
    return download_reach(settings, request)


def figures(path: Path) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels, these by their names."""
    families = text_string_to_metric_families(path.read_text(encoding="utf-8"))
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_the_counts_of_all_tasks_add_up_to_what_the_server_saw(
    database: str,
    udl: Any,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if database == "postgresql":
        monkeypatch.setenv("L2_DATABASE_URL", request.getfixturevalue("postgres_url"))
        monkeypatch.setenv("L2_DB_SCHEMA", "observed")
    settings = load_settings()
    with tallying() as tally:
        summary = download(settings)
    assert (summary.downloaded, summary.failed) == (2, 0)
    assert capsys.readouterr().err == ""  # without a format there are warnings only

    folder = settings.jobs_folder / str(summary.job_id)
    manifests = [json.loads(path.read_text()) for path in sorted(folder.glob("tasks/*/manifest.json"))]
    workers = [manifest["metrics"] for manifest in manifests if manifest["role"] == "worker"]
    asked = len(udl.state.requests)
    assert sum(metrics["api_requests"] for metrics in workers) == asked == tally.counts()["api_requests"]
    assert all(metrics["api_requests"] >= 4 for metrics in workers)
    totals = json.loads((folder / "summary.json").read_text())
    assert (totals["totals"]["turned_down"], totals["totals"]["retries_turned_down"]) == (1, 1)
    assert totals["totals"]["retries_broken_off"] == 1
    assert totals["totals"]["tokens"] == asked
    assert sum(totals["over_time"]["api_requests"]) == asked
    assert sum(totals["over_time"]["turned_down"]) == 1

    told = figures(settings.metrics_file)
    page = (REPOSITORY / "docs" / "observability.md").read_text(encoding="utf-8")
    assert {name for name, *_labels in told} <= set(re.findall(r"l2_[a-z0-9_]+", page))
    assert told["l2_job_requests_total", "reach"] == asked
    assert told["l2_job_turned_down_total", "reach"] == 1
    assert told["l2_job_retries_total", "broken_off", "reach"] == 1
    assert told["l2_job_retries_total", "timeout", "reach"] == 0
    assert told["l2_job_records_total", "reach"] == totals["totals"]["records"] > 0
    assert told["l2_job_received_bytes_total", "reach"] == totals["totals"]["received_bytes"]
    assert told["l2_windows", "reach", "DOWNLOADED"] == 2
    assert (told["l2_job_last_success", "reach"], told["l2_jobs", "reach", "SUCCESS"]) == (1, 1)
    assert told["l2_observing_programs", "Discovered"] == 0
    assert next(value for (name, *_), value in told.items() if name == "l2_rate_requests_per_second") > 0
    if database == "postgresql":
        engine = sa.create_engine(settings.state_url)
        with engine.begin() as connection:
            connection.execute(sa.text("drop schema observed cascade"))
        engine.dispose()


def test_json_lines_say_which_job_task_batch_and_window_they_are_about(
    udl: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("L2_LOG_FORMAT", "JSON")
    summary = download(load_settings())
    text = capsys.readouterr().err
    lines = [json.loads(line) for line in text.splitlines()]
    messages = [line["message"].split(":")[0].split(".")[0] for line in lines]
    assert messages[0] == "Job started"
    assert messages[-1] == "Job ended"
    assert messages.count("Task claimed") == 3
    assert messages.count("Task ended") == 2
    assert {line["job_id"] for line in lines} == {summary.job_id}
    for line in lines:
        if line["message"].startswith("Task"):
            assert line["task_id"].startswith(str(summary.job_id))
    again = next(line for line in lines if line.get("cause") == "turned_down")
    assert again["window"] in ("2025-05-01..2025-05-01", "2025-05-02..2025-05-02")
    assert again["batch_id"].startswith("batch-")
    assert again["chunk"].startswith(again["window"][:10].replace("-", ""))
    assert TOKEN not in text


def test_a_line_of_text_stays_one_line() -> None:
    record = logging.makeLogRecord({"levelname": "INFO", "msg": "one\ntwo", "cause": "timeout"})
    with at_work_on(job_id="j1", window=None):
        assert TextLines().format(record).endswith(" INFO one two job_id=j1 cause=timeout")
        assert json.loads(JsonLines().format(record))["job_id"] == "j1"


def test_a_disk_that_refuses_the_figures_does_not_stop_the_work(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = load_settings()
    settings.metrics_file.parent.parent.mkdir(parents=True)
    settings.metrics_file.parent.write_text("a file where the folder should be")
    with Ledger.open(settings.state_url) as ledger:
        assert write_metrics(settings, ledger) is None
    assert "was not written" in caplog.text


def test_counts_go_to_who_tallies_in_this_thread_and_those_it_starts() -> None:
    with tallying() as outer:
        count("api_requests")
        with tallying() as inner:
            thread = threading.Thread(target=carried(lambda: count("api_requests", 2)))
            thread.start()
            thread.join()
            stranger = threading.Thread(target=lambda: count("api_requests", 10))
            stranger.start()
            stranger.join()
    count("api_requests", 100)
    assert (outer.counts(), inner.counts()) == ({"api_requests": 3}, {"api_requests": 2})
    assert Tally().series() is None
    assert merged_series([{}, {}]) is None
    assert sums([{"a": 1, "b": {"c": 1}}, {"a": 2.5}]) == {"a": 3.5}


PARTS = st.builds(
    lambda start, step, counts: {
        "start_s": start - start % step,
        "step_s": step,
        "api_requests": counts,
        "turned_down": counts[:1],
    },
    st.integers(1_000, 5_000),
    st.sampled_from([1, 2, 4, 8]),
    st.lists(st.integers(0, 9), min_size=1, max_size=300),
)


@given(st.lists(PARTS, min_size=1, max_size=4))
def test_series_that_are_added_up_lose_nothing_and_stay_short(parts: list[dict[str, Any]]) -> None:
    merged = merged_series(parts)
    assert merged is not None
    for name in ("api_requests", "turned_down"):
        assert sum(merged[name]) == sum(sum(part[name]) for part in parts)
        assert len(merged[name]) <= 240
    assert merged["start_s"] <= min(part["start_s"] for part in parts)
    assert merged_series([merged]) == merged
