"""A scan, and a day of REACH, killed at any durable step: the next run ends as if nothing had happened."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from dagster_l2.base.files import sha256
from dagster_l2.lake import committed_files
from dagster_l2.settings import REPOSITORY
from dagster_l2.sources import ScanTables
from dagster_l2.store.server import LocalStoreServer, ReachFleet, RecordSet, store_app

from .reach_kit import LIST, TOKEN, UdlWorld, served

Make = Callable[..., dict[str, Any]]
EXPERIMENT = {
    "experimentDescriptionId": 1,
    "experimentId": "eid_1_1",
    "createDate": "2024-01-01T00:00:00",
}
DAYS = ("2025-05-01", "2025-05-02")


class Killer:
    """Runs in copies of one process, which die where they are told to."""

    def __init__(self, what: str, settings: dict[str, str]) -> None:
        self.what, self.settings = what, settings
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.sources.kill_ingestion"],
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, data: Path, *, day: str = DAYS[0], die_at: int | None = None) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        settings = {**self.settings, "L2_DATA_DIR": str(data)}
        told = {"what": self.what, "settings": settings, "day": day, "die_at": die_at}
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        report: dict[str, Any] = json.loads(self.process.stdout.readline())
        return report

    def each_kill(
        self, template: Path, steps: list[str], folder: Path, *, day: str = DAYS[0], but: str = "fsync "
    ) -> Iterator[tuple[int, Path]]:
        """The number of a step of each kind in turn, and the data folder of a run that was killed there.

        Of a kind are steps of one name (ids and numbers apart) after the same change of the state database: a
        second batch takes the steps of the first. A kill loses nothing of what was written, so that at an
        fsync there is on the disk what is there at the next step: those are left out.
        """
        kinds: dict[tuple[str, str], int] = {}
        state = ""
        for at, step in enumerate(steps):
            if not re.match(but, step):
                kinds.setdefault((re.sub(r"[0-9a-f]*[0-9]", "0", step), state), at)
            if step.startswith("database"):
                state = step
        for at in kinds.values():
            data = folder / str(at)
            shutil.copytree(template, data)
            assert self.run(data, day=day, die_at=at)["code"] == -signal.SIGKILL, (at, steps[at])
            yield at, data
            shutil.rmtree(data)

    def close(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture
def killer(request: pytest.FixtureRequest) -> Iterator[Callable[..., Killer]]:
    made: list[Killer] = []

    def make(what: str, settings: dict[str, str]) -> Killer:
        made.append(Killer(what, settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


@contextmanager
def serving(records: list[Any], *experiments: Any) -> Iterator[str]:
    """The address of a store of these records."""
    held = RecordSet({"datasetInventories": records, "experimentDescriptions": list(experiments)})
    with TemporaryDirectory() as folder:
        app = store_app(held, inversions_file=Path(folder) / "inversions.sqlite")
        with LocalStoreServer(app) as server:
            yield server.url


def rows_of(frame: Any) -> list[str]:
    """Rows whatever their order, and whichever scan brought them."""
    kept = frame.drop("scanned_at", "job_id")
    return sorted(repr(row) for row in kept.iter_rows())


def left(data: Path, manifests: list[Any]) -> list[str]:
    """What was half written and is still there, but for the folder of a job that never began."""
    of_jobs = [data / "jobs" / one["job_id"] for one in manifests if one["status"] is not None]
    folders = [data / "lake", data / "scratch", *of_jobs]
    return [str(path.relative_to(data)) for folder in folders for path in folder.rglob("*.tmp")]


def scanned(data: Path) -> dict[str, Any]:
    """All that others see of the scans of a data folder."""
    tables = ScanTables.under(data / "lake")
    attempts = tables.attempts.scan().collect()
    marks = tables.missing.scan().collect()
    newest = attempts.sort("attempt_id").group_by("unit_id", maintain_order=True).last()
    manifests = [json.loads(path.read_text()) for path in (data / "jobs").glob("*/manifest.json")]
    return {
        **{
            table.name: rows_of(table.scan().collect())
            for table in (tables.datasets, tables.experiments, tables.processing_candidates, tables.rejected)
        },
        "missing": rows_of(marks.with_columns(missing_since=marks["missing_since"].is_not_null())),
        "attempts once": attempts["attempt_id"].is_unique().all(),
        "open attempts": newest.filter(newest["status"] != "DOWNLOADED").height,
        "open jobs": [one["job_id"] for one in manifests if one["status"] == "RUNNING"],
        "left": left(data, manifests),
    }


def test_a_scan_killed_at_any_step_ends_the_same(
    killer: Callable[..., Killer], record: Make, tmp_path: Path
) -> None:
    template = tmp_path / "template"
    scan = killer("scan", {"L2_SCAN_WINDOW_RECORDS": "12", "L2_SCAN_WORKERS": "1"})
    records = [record(5 * i) for i in range(12)]
    with serving(records) as scan.settings["L2_STORE_URL"]:
        assert scan.run(template)["said"]["new"] == 12
    back = records.pop(3)
    with serving(records) as scan.settings["L2_STORE_URL"]:
        assert scan.run(template)["said"]["missing"] == 1

    records.insert(3, back)
    records.pop(1)
    records[1] |= {"frameCount": 99}
    records[7] |= {"frameCount": "many"}
    # Two that share an id, far apart in time: which of them counts is known at the end.
    records += [record(70), {**record(75), "datasetId": "D0070"}, record(80, frameCount="none")]
    with serving(records, EXPERIMENT) as scan.settings["L2_STORE_URL"]:
        whole = tmp_path / "whole"
        shutil.copytree(template, whole)
        done = scan.run(whole)
        wanted, steps = scanned(whole), done["steps"]
        assert done["said"] == {"new": 1, "changed": 1, "unchanged": 9, "rejected": 2, "missing": 1}
        assert {"write sweep.json", "database: task SUCCESS", "database: attempt DOWNLOADED"} <= set(steps)
        tables = {path.parent.name for path in whole.rglob("bronze/*/scan-*.parquet")}
        assert tables == {"datasets", "experiments", "missing", "rejected", "attempts"}
        assert (wanted["attempts once"], wanted["open attempts"], wanted["left"]) == (True, 0, [])
        for at, data in scan.each_kill(template, steps, tmp_path):
            assert scan.run(data)["code"] == 0, steps[at]
            found = scanned(data)
            assert {name: found[name] for name in found if found[name] != wanted[name]} == {}, steps[at]


def test_a_day_of_reach_killed_at_any_step_ends_in_the_same_bytes(
    killer: Callable[..., Killer], tmp_path: Path
) -> None:
    template, whole = tmp_path / "template", tmp_path / "whole"
    with served(tmp_path) as udl:
        udl.stock.now = ReachFleet(
            satellites=2, cadence_s=3600, quirks=False, now=datetime(2026, 1, 1, tzinfo=UTC)
        )
        download = killer(
            "reach",
            {
                "L2_STORE_URL": "http://127.0.0.1:9",
                "L2_UDL_URL": udl.url,
                "L2_UDL_TOKEN": TOKEN,
                "L2_REACH_CADENCE_S": "3600",
            },
        )
        assert download.run(template)["said"]["downloaded"] == 1
        shutil.copytree(template, whole)
        done = download.run(whole, day=DAYS[1])
        steps = done["steps"]
        assert {"write results.parquet", "remove results.parquet", "database: claim"} <= set(steps)
        wanted = downloaded(whole)
        assert len(wanted["files"]) == 2
        # Every step of a job is killed in tests/batch; here those of chunks, rows and bronze.
        but = "fsync |database|.*(manifest|summary|batch)"
        for at, data in download.each_kill(template, steps, tmp_path, day=DAYS[1], but=but):
            kept = len(list(data.glob("scratch/*/*/*.json")))
            chunks_asked(udl)
            assert download.run(data, day=DAYS[1])["code"] == 0, steps[at]
            is_fetched = "database: task SUCCESS" in steps[:at]
            assert chunks_asked(udl) == (0 if is_fetched else 4 - kept), steps[at]
            found = downloaded(data)
            assert {name: found[name] for name in found if found[name] != wanted[name]} == {}, steps[at]


def chunks_asked(udl: UdlWorld) -> int:
    """How many chunks of the day were asked for since the last look; others only look how long one is."""
    start = re.compile(r"obTime=(2025-05-02T\d\d)\S+?\.\.(\S+?T\d\d)")
    spans = [start.match(query) for path, query in udl.asked if path == LIST]
    udl.app.state.requests.clear()
    hours = [(datetime.fromisoformat(one) for one in span.groups()) for span in spans if span]
    return sum((end - begin).seconds == 6 * 3600 for begin, end in hours)


def downloaded(data: Path) -> dict[str, Any]:
    """All that others see of the downloads of a data folder."""
    attempts = ScanTables.under(data / "lake").attempts.scan().collect().sort("attempt_id")
    newest = attempts.group_by("unit_id", maintain_order=True).last()
    manifests = [json.loads(path.read_text()) for path in (data / "jobs").glob("*/manifest.json")]
    return {
        "files": sorted(
            sha256(path)
            for path in committed_files(data / "lake" / "bronze" / "reach")
            if "0-schema" not in path.name
        ),
        "attempts once": attempts["attempt_id"].is_unique().all(),
        "newest": newest["status"].to_list(),
        "open jobs": [one["job_id"] for one in manifests if one["status"] == "RUNNING"],
        "left": left(data, manifests),
        "scratch": [str(path.relative_to(data)) for path in data.glob("scratch/**/*")],
    }
