"""``l2 download reach`` against a real server: what comes home, what is skipped, what fails, what it says."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import polars as pl
import pytest

from dagster_l2.base.telemetry import Speed
from dagster_l2.pipeline.downloads import Standing
from dagster_l2.resources import L2
from dagster_l2.sensors import build_retention_sensor
from dagster_l2.settings import Settings, SettingsError
from dagster_l2.store.server.udl import HeldObservations
from tests.end_to_end.kit import Pipeline, wait_until
from tests.end_to_end.reach_world import A_DAY, ReachWorld, all_of, reach_world
from tests.sources.reach_kit import TOKEN


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """A command that runs in this process leaves its handlers behind."""
    logger = logging.getLogger("dagster_l2")
    before = logger.handlers[:], logger.level, logger.propagate
    logger.handlers, logger.propagate = [], True
    yield
    logger.handlers, logger.level, logger.propagate = before


@pytest.fixture
def world(l2: Pipeline, tmp_path: Path) -> Iterator[ReachWorld]:
    with reach_world(l2, tmp_path) as made:
        yield made


def test_days_come_home_once(world: ReachWorld) -> None:
    done = world.download(1, 3)
    assert world.counts(done) == (3, 3, 3, 0, 0, 0)
    assert world.asked() == all_of(1, 2, 3)
    rows = world.rows()
    assert len(rows) == 3 * A_DAY == rows.n_unique(("id_sensor", "duplicate_key", "ob_time"))
    assert rows["id_sensor"].unique().to_list() == ["REACH-101"]

    again = world.download(1, 4)
    assert world.counts(again) == (4, 1, 1, 3, 0, 0)
    assert "1 to do, 3 there already" in again.err
    assert world.asked() == all_of(4)
    assert world.counts(world.download(1, 4)) == (4, 0, 0, 4, 0, 0)
    assert not world.asked()


def test_days_come_home_once_with_the_state_in_postgresql(world: ReachWorld, postgres_url: str) -> None:
    url = postgres_url.replace("postgresql+psycopg:", "postgresql:")
    world.l2.settings |= {"L2_DATABASE_URL": url, "L2_DB_SCHEMA": "reach_download"}
    assert world.download(1, 2, "--dry-run").json["counts"] == {"run": 2}
    assert world.counts(world.download(1, 2)) == (2, 2, 2, 0, 0, 0)
    assert world.download(1, 3, "--dry-run").json["counts"] == {"skip_existing": 2, "run": 1}
    assert world.counts(world.download(1, 2)) == (2, 0, 0, 2, 0, 0)
    assert [job["rows"] for job in world.l2.here("jobs", "--json").json] == [2 * A_DAY]
    assert world.l2.here("db", "check", "--json").json["findings"] == []


def test_another_sensor_or_descriptor_is_other_work(world: ReachWorld) -> None:
    world.download(1, 1)
    assert world.counts(world.download(1, 1, "--sensor", "REACH-102")) == (1, 1, 1, 0, 0, 0)
    assert world.counts(world.download(1, 1, "--descriptor", "PROVISIONAL")) == (1, 1, 1, 0, 0, 0)
    assert world.rows().group_by("id_sensor", "descriptor").len()["len"].to_list() == [A_DAY] * 3


def test_an_artifact_that_is_gone_or_damaged_is_downloaded_again(world: ReachWorld) -> None:
    output = Path(world.download(1, 1).json["output"])
    output.write_bytes(b"")
    world.asked()
    assert world.counts(world.download(1, 1)) == (1, 1, 1, 0, 0, 0)
    assert world.asked() == all_of(1)
    assert len(world.rows()) == A_DAY


def test_a_dry_run_writes_nothing_and_calls_nothing(world: ReachWorld) -> None:
    dry = world.download(1, 2, "--dry-run")
    assert dry.json["counts"] == {"run": 2}
    assert list(world.l2.home.iterdir()) == []
    world.download(1, 1)
    world.asked()
    before = _files(world.l2.home)
    days = world.download(1, 3, "--limit", "1", "--dry-run").json["days"]
    assert [day["action"] for day in days] == ["skip_existing", "run", "beyond_limit"]
    assert _files(world.l2.home) == before
    assert not world.asked()


def _files(folder: Path) -> dict[Path, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_the_limit_is_spent_on_days_still_to_do(world: ReachWorld) -> None:
    world.udl.faults.add("status", status=400, match="2025-05-01T06")
    world.download(1, 2, "--limit", "1", code=1)
    done = world.download(1, 3, "--limit", "1", code=1)
    assert world.counts(done) == (2, 1, 1, 0, 0, 1)
    assert done.json["beyond_limit"] == 1
    assert world.counts(world.download(2, 3)) == (2, 1, 1, 1, 0, 0)


def test_a_refused_token_fails_no_day_and_is_found_nowhere(world: ReachWorld) -> None:
    wrong = "d3Jvbmc6dG9rZW4tb2YtdGhlLXRlc3Q="
    done = world.l2.here("--debug", *world.arguments(1, 2), code=2, L2_UDL_TOKEN=wrong)
    assert wrong not in done.out + done.err
    done = world.download(1, 2, code=2, L2_UDL_TOKEN=wrong)
    assert "refused the token (HTTP 401); set L2_UDL_TOKEN" in done.error
    assert wrong not in done.out + done.err
    assert world.counts(world.download(1, 2)) == (2, 2, 2, 0, 0, 0)
    for path in world.l2.home.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert wrong.encode() not in content, path
            assert TOKEN.encode() not in content, path


def test_a_name_and_password_in_the_address_are_the_token_and_found_nowhere(world: ReachWorld) -> None:
    world.l2.settings["L2_UDL_URL"] = world.udl.url.replace("//", "//secret-user:secret-word@")
    del world.l2.settings["L2_UDL_TOKEN"]
    done = world.download(1, 1, L2_LOG_FORMAT="json")
    assert world.counts(done) == (1, 1, 1, 0, 0, 0)
    assert "secret-word" not in done.out + done.err
    assert "secret-word" not in repr(Settings(udl_url=world.l2.settings["L2_UDL_URL"]))
    for path in world.l2.home.rglob("*"):
        assert not path.is_file() or b"secret-word" not in path.read_bytes(), path


def test_a_failed_day_stays_failed_until_it_is_asked_for(world: ReachWorld) -> None:
    world.udl.faults.add("status", status=400, match="obTime=2025-05-02T06")
    done = world.download(1, 3, code=1)
    assert world.counts(done) == (3, 3, 2, 0, 0, 1)
    assert "1 of 3 days failed (The UDL" in done.error
    assert f"l2 jobs show {done.json['job_id']}" in done.error
    shown = world.job(done, "show")
    assert shown["failures"] == [{"class": "permanent", "items": 1}]
    assert [item["item_id"] for item in shown["items"]] == ["20250502T060000-20250502T120000"]
    world.udl.faults.clear()
    world.asked()
    again = world.download(1, 3, code=1)
    assert world.counts(again) == (3, 0, 0, 2, 0, 1)
    assert "--retry-failed" in again.error
    assert not world.asked()
    # A job that had nothing to do with the failure is not named for it.
    more = world.download(1, 4, code=1)
    assert world.counts(more) == (4, 1, 1, 2, 0, 1)
    assert "1 of 4 days failed in an earlier run" in more.error
    world.asked()
    assert world.counts(world.download(1, 3, "--retry-failed")) == (3, 1, 1, 2, 0, 0)
    assert world.asked() == {"02T06": 1}
    assert len(world.rows()) == 4 * A_DAY


def test_a_job_that_failed_is_retried_by_its_id(world: ReachWorld) -> None:
    world.udl.faults.add("status", status=400, match="obTime=2025-05-02T06")
    done = world.download(1, 2, code=1)
    world.udl.faults.clear()
    refused = world.l2.here("jobs", "retry", done.json["job_id"], "--class", "passing", code=1)
    assert "failed as passing" in refused.error
    world.asked()
    assert world.job(done, "retry", "--class", "permanent")["status"] == "SUCCESS"
    assert world.asked() == {"02T06": 1}
    assert len(world.rows()) == 2 * A_DAY
    assert world.job(done, "resume")["status"] == "SUCCESS"
    listed = world.l2.here("jobs", "--json").json
    assert [(job["job_id"], job["status"], job["rows"]) for job in listed] == [
        (done.json["job_id"], "SUCCESS", 2 * A_DAY)
    ]
    assert "SUCCESS" in world.l2.here("jobs").out
    assert "initial_batch" in world.l2.here("jobs", "show", done.json["job_id"]).out
    assert "no job nothing" in world.l2.here("jobs", "show", "nothing", code=1).error


def test_what_was_backed_up_goes_on_in_another_folder_and_asks_for_no_day_again(
    world: ReachWorld, tmp_path: Path
) -> None:
    world.download(1, 1)
    world.udl.faults.add("status", status=400, match="obTime=2025-05-03T06")
    failed = world.download(2, 3, code=1)
    world.udl.faults.clear()
    before = world.rows()
    world.l2.here("backup", str(tmp_path / "backup"))
    lost = world.l2.data
    shutil.rmtree(lost)
    world.l2.home = tmp_path / "elsewhere"
    world.l2.home.mkdir()
    world.l2.here("restore", str(tmp_path / "backup"))
    assert world.l2.here("db", "check", "--json").json["is_in_order"]
    assert world.rows().equals(before)
    world.asked()
    assert world.counts(world.download(1, 2)) == (2, 0, 0, 2, 0, 0)
    assert not world.asked()
    assert world.job(failed, "retry", "--class", "permanent")["status"] == "SUCCESS"
    assert world.asked() == all_of(3)
    assert len(world.rows()) == 3 * A_DAY
    assert world.job(failed, "show")["output"].startswith(str(world.l2.data / "lake" / "bronze" / "reach"))
    assert not lost.exists()


def test_working_folders_of_old_jobs_go_and_what_is_needed_stays(world: ReachWorld) -> None:
    done = world.download(1, 2)
    world.udl.faults.add("status", status=400, match="obTime=2025-05-04T06")
    failed = world.download(3, 4, code=1)
    world.udl.faults.clear()
    jobs = world.l2.data / "jobs"

    def tick(**days: float) -> str:
        settings = Settings(data_dir=world.l2.data, **days)  # type: ignore[arg-type]
        with dg.DagsterInstance.ephemeral() as instance:
            context = dg.build_sensor_context(instance=instance, resources={"l2": L2(settings)})
            return str(build_retention_sensor()(context))

    assert "0 folders of old jobs" in tick()
    assert "0 folders of old jobs" in tick(job_days=0)
    assert "1 folders of old jobs" in tick(job_days=1e-9)
    assert not (jobs / done.json["job_id"] / "tasks").exists()
    assert (jobs / failed.json["job_id"] / "tasks").exists()
    world.asked()
    assert world.counts(world.download(1, 2)) == (2, 0, 0, 2, 0, 0)
    assert not world.asked()
    assert world.job(failed, "retry", "--class", "permanent")["status"] == "SUCCESS"
    assert world.asked() == {"04T06": 1}


def test_an_empty_day_is_an_answer_and_looked_at_again_when_asked(world: ReachWorld) -> None:
    fleet, world.udl.stock.now = world.udl.stock.now, HeldObservations()
    assert world.counts(world.download(1, 2)) == (2, 2, 0, 0, 2, 0)
    world.udl.stock.now = fleet
    world.asked()
    assert world.counts(world.download(1, 2)) == (2, 0, 0, 0, 2, 0)
    assert not world.asked()
    assert world.counts(world.download(1, 2, "--recheck-empty")) == (2, 2, 2, 0, 0, 0)


def test_a_day_that_is_not_settled_is_downloaded_again(world: ReachWorld) -> None:
    settled = {"L2_REACH_SETTLED_DAYS": "36500"}
    world.download(1, 1, **settled)
    assert world.counts(world.download(1, 1, **settled)) == (1, 1, 1, 0, 0, 0)
    assert len(world.rows()) == 2 * A_DAY
    assert world.rows().unique().height == A_DAY


def test_a_day_below_the_floor_is_downloaded_again(world: ReachWorld) -> None:
    twice_as_many = {"L2_REACH_CADENCE_S": "900"}
    world.download(1, 1, **twice_as_many)
    assert world.counts(world.download(1, 1, L2_AVAILABILITY_FLOOR="50", **twice_as_many))[1] == 0
    assert world.counts(world.download(1, 1, L2_AVAILABILITY_FLOOR="51", **twice_as_many))[1] == 1


def test_a_server_that_turns_requests_down_gets_all_its_time(world: ReachWorld) -> None:
    world.udl.faults.add("rate", n=6, seconds=1.0, headers={"Retry-After": "1"})
    done = world.download(1, 3)
    assert world.counts(done) == (3, 3, 3, 0, 0, 0)
    assert len(world.rows()) == 3 * A_DAY


@pytest.mark.parametrize("form", ["csv", "json", "parquet"])
def test_days_as_files_of_their_own(world: ReachWorld, tmp_path: Path, form: str) -> None:
    folder = tmp_path / "out"
    options = ("--output-dir", str(folder), "--format", form)
    world.download(1, 1)
    done = world.download(1, 2, *options)
    names = [f"REACH-101_QUICKLOOK_2025-05-0{day}.{form}" for day in (1, 2)]
    assert [Path(path).name for path in done.json["files"]] == names
    bronze = world.rows().sort("ob_time", "duplicate_key")
    for day, name in enumerate(names, start=1):
        rows = bronze.filter(pl.col("ob_time").dt.day() == day)
        assert _read(folder / name) == [_plain(row) for row in rows.to_dicts()]
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    world.download(1, 2, *options)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before
    (folder / names[0]).write_bytes(b"")
    world.download(1, 2, *options)
    assert _read(folder / names[0])
    assert (folder / names[1]).stat().st_mtime_ns == before[folder / names[1]]


def _plain(row: dict[str, object]) -> dict[str, object]:
    """A few columns, as every format tells them."""
    seo = row["seo_list"]
    assert isinstance(seo, list)
    return {
        "id": row["id"],
        "ob_time": f"{row['ob_time']:%Y-%m-%dT%H:%M:%S.%fZ}",
        "lat": row["lat"],
        "sen_pos": row["sen_pos"],
        "value": seo[0]["ob_value"],
    }


def _read(path: Path) -> list[dict[str, object]]:
    if path.suffix == ".parquet":
        return [_plain(row) for row in pl.read_parquet(path).to_dicts()]
    if path.suffix == ".json":
        rows = json.loads(path.read_text())
    else:
        rows = pl.read_csv(path).to_dicts()
        for row in rows:
            row |= {name: json.loads(row[name]) for name in ("sen_pos", "seo_list")}
    return [
        {
            **{name: row[name] for name in ("id", "ob_time", "lat", "sen_pos")},
            "value": row["seo_list"][0]["ob_value"],
        }
        for row in rows
    ]


def test_progress_tells_how_far_how_fast_and_how_long(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("dagster_l2.base.telemetry.time", SimpleNamespace(monotonic=lambda: now))
    speed = Speed()
    line = "0/3 days, 0/613 chunks (251 more were there already), 0 records, 0.0 chunks/s"
    assert Standing(0, 3, 0, 613, 0, there_already=251).line(speed) == line
    now += 10
    line = "1/3 days, 300/864 chunks, 1,152,000 records, 30.0 chunks/s, 0:00:19 left"
    assert Standing(1, 3, 300, 864, 1_152_000).line(speed) == line
    now += 40
    assert "0.0 chunks/s" in Standing(1, 3, 300, 864, 1_152_000).line(speed)
    now += 30  # seldom told, and known all the same
    assert speed.of(330, 864, "chunks") == "1.0 chunks/s, 0:08:54 left"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--start", "2025-05-02", "--end", "2025-05-01"), "is before the first"),
        (("--start", "May", "--end", "2025-05-01"), "does not match the format"),
        (("--start", "9999-12-31", "--end", "9999-12-31"), "no day that a satellite"),
        (("--start", "2025-05-01", "--end", "2025-05-01", "--sensor", "../x"), "no sensor"),
        (("--start", "2025-05-01", "--end", "2025-05-01", "--format", "csv"), "--output-dir"),
        (("--start", "2025-05-01", "--end", "2025-05-01", "--rate-decrease", "2"), "decrease"),
        (("--start", "2025-05-01", "--end", "2025-05-01", "--min-rate", "9", "--max-rate", "3"), "must rise"),
    ],
)
def test_what_cannot_be_meant_is_refused(world: ReachWorld, options: tuple[str, ...], says: str) -> None:
    done = world.l2.here("download", "reach", *options, code=2)
    assert says in done.err
    assert list(world.l2.home.iterdir()) == []
    assert not world.asked()


def test_generated_and_real_observations_never_mix(world: ReachWorld) -> None:
    small = {"L2_REACH_SATELLITES": "1", "L2_REACH_CADENCE_S": "3600"}
    real, demo = dict(world.l2.settings), small
    days = ("download", "reach", "--start", "2025-05-01", "--end", "2025-05-01", "--sensor", "REACH-101")
    world.l2.settings = demo
    world.l2.here(*days, "--initial-rate", "25")
    world.l2.settings = real
    assert (
        "holds the history of a demo, which must not mix with a real UDL's"
        in world.l2.here(*days, code=2).error
    )
    other = world.l2.home / "other"
    world.l2.settings = {**real, "L2_DATA_DIR": str(other)}
    world.l2.here(*days)
    world.l2.settings = {**demo, "L2_DATA_DIR": str(other)}
    assert "is no demo" in world.l2.here(*days, code=2).error
    for url in (None, world.udl.url):
        with pytest.raises(SettingsError, match="Generated records must not mix with a real UDL's"):
            Settings(data_dir=other, udl_url=url).mark_origin()
    Settings(data_dir=other, store_url="http://store").mark_origin()
    assert Settings(data_dir=other).origin == "store"


def test_two_at_once_join_or_stand_apart(world: ReachWorld) -> None:
    world.udl.faults.add("slow", seconds=0.7)
    sensors = ("REACH-101", "REACH-102")
    started = [world.l2.start(*world.arguments(1, 3, "--sensor", sensor)) for sensor in sensors]
    jobs = world.l2.data / "jobs"
    wait_until(
        lambda: jobs.exists() and len(list(jobs.glob("*/manifest.json"))) == 2, started[0], "both work"
    )
    joined = world.download(1, 3).json
    same, other = map(_ended, started)
    assert same["job_id"] == joined["job_id"] != other["job_id"]
    assert [job["downloaded"] for job in (same, joined, other)] == [3, 3, 3]
    assert world.asked() == dict.fromkeys(all_of(1, 2, 3), 2)
    rows = world.rows()
    assert len(rows) == 6 * A_DAY == rows.n_unique(("id_sensor", "duplicate_key", "ob_time"))


def _ended(process: subprocess.Popen[str]) -> dict[str, object]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    found: dict[str, object] = json.loads(out)
    return found
