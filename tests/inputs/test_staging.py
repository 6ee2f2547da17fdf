"""Frames staged over real HTTP and from a folder: once, whole, within the quota, gone on with, removed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from dagster_l2.batch import jobs_in_short
from dagster_l2.cli import _run
from dagster_l2.files import watch_steps
from dagster_l2.inputs import (
    Collection,
    build_package,
    package_details,
    package_folder,
    read_package,
    standing,
    write_package,
    write_transfer_lists,
)
from dagster_l2.ledger import Ledger, Present, State
from dagster_l2.quota import evict_published, taken_bytes
from dagster_l2.settings import Settings
from dagster_l2.staging import StageReport, stage, stage_next
from dagster_l2.store import StoreClient
from dagster_l2.store.server import LocalStoreServer, RecordSet, store_app
from dagster_l2.wiring import open_ledger
from tests.inputs.frame_kit import RANGE_NM, frame_bytes, header

OP = "eid_1_1_opAbcdef_R001.80000.13000000"
MIDNIGHT = datetime(2025, 3, 1, 23, 59, 30)
KEYS = ("pid_1_1/AAAAA/", "pid_1_1/BBBBB/")
EACH = 66


class Space:
    """An object space: a folder over HTTP that notes what was asked and can be told how to answer it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.asked: list[tuple[str, str | None]] = []
        self.instead: dict[str, list[int]] = {}
        self.url = ""

    async def answer(self, request: Request) -> Response:
        path = request.path_params["path"]
        self.asked.append((path, request.headers.get("Range")))
        if self.instead.get(path):
            status = self.instead[path].pop(0)
            if status != 200:
                return Response(status_code=status)
            # Half of it under a length that is honest: the connection ends well, the frame is short.
            return Response((self.root / path).read_bytes()[:500])
        file = self.root / path
        return FileResponse(file) if file.is_file() else Response(status_code=404)


@dataclass
class World:
    settings: Settings
    ledger: Ledger
    store: StoreClient
    space: Space
    frames: list[dict[str, Any]]

    @property
    def folder(self) -> Path:
        return package_folder(self.settings.data, OP)

    def present(self) -> Present:
        return self.ledger.present(OP)

    def stage(self, **changes: Any) -> StageReport:
        settings = self.settings.model_copy(update=changes)
        return stage(settings, self.ledger, self.store, [self.present()], actor="pipeline", run_id=None)

    def staged_files(self) -> set[Path]:
        return {path for path in (self.folder / "frames").rglob("*") if path.is_file()}


def frame(number: int, root: Path, **changes: Any) -> dict[str, Any]:
    """The record of a frame, and its file in the object space."""
    key = f"{KEYS[number % 2]}VISP_{number:05d}_L1.fits"
    begins_at = MIDNIGHT + timedelta(seconds=number / 2)
    place = number // 2
    said = header(
        op_id=OP,
        dataset_id=key.split("/")[1],
        stokes="IQUV"[place % 4],
        step=place // 4 + 1,
        begins_at=begins_at,
    )
    content = frame_bytes({**said, **changes})
    path = root / "data" / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {
        "inventoryId": f"f{number}",
        "frameId": f"{number}",
        "bucket": "data",
        "objectKey": key,
        "observationDate": begins_at.isoformat(),
        "createDate": "2025-03-02T00:00:00",
        "frameStatus": "AVAILABLE",
        "frameSize": len(content),
        "datasetId": key.split("/")[1],
        "processingType": "L1",
        "observingProgramExecutionId": OP,
    }


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An OP that is Preprocessed, with two datasets whose frames were taken around midnight."""
    space = Space(tmp_path / "space")
    frames = [frame(number, space.root) for number in range(2 * EACH)]
    frames[-2] |= {"frameStatus": "LOST", "frameSize": None}
    frames[-1] |= {"frameStatus": "REMOVED", "frameSize": None}
    frames.append({**frames[0], "inventoryId": "raw", "objectKey": "raw", "processingType": "RAW"})
    app = store_app(RecordSet({"frameInventories": frames}), inversions_file=tmp_path / "i.sqlite")
    objects = Starlette(routes=[Route("/{path:path}", space.answer)])
    with LocalStoreServer(app) as server, LocalStoreServer(objects) as space_server:
        space.url = space_server.url
        settings = Settings(data_dir=tmp_path / "data", frames_from=space.url, store_url=server.url)
        with open_ledger(settings) as ledger, StoreClient(server.url) as store:
            prepare(ledger, settings)
            yield World(settings, ledger, store, space, frames)


def prepare(ledger: Ledger, settings: Settings) -> None:
    rows = [
        {
            "op_id": OP,
            "dataset_id": name,
            "instrument_program_id": "id.1.1",
            "proposal_id": "pid_1_1",
            "frame_count": EACH - 1,
            "bucket": "data",
            "stokes": "IQUV",
            "wavelength_min_nm": RANGE_NM[0],
            "wavelength_max_nm": RANGE_NM[1],
        }
        for name in ("AAAAA", "BBBBB")
    ]
    package = build_package(
        OP, rows, inputs_hash="h", rule_version="r", created_at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    write_package(package_folder(settings.data, OP), package)
    ledger.append(OP, State.DISCOVERED, actor="scan", cause="found", inputs_hash="h", rule_version="r")
    ledger.append(OP, State.INVERTIBLE, actor="verdict", cause="passed", inputs_hash="h")
    ledger.record_preprocessed(
        OP, inputs_hash="h", details=package_details(package), run_id=None, actor="pipeline"
    )


def check_whole(world: World) -> None:
    """Every available frame is there, byte for byte, and listed with its hash; nothing else is."""
    available = [one for one in world.frames[:-1] if one["frameStatus"] == "AVAILABLE"]
    said = read_package(world.folder)["frames"]
    listed = {row["object_key"]: row for row in json.loads((world.folder / said["list"]).read_text())}
    assert set(listed) == {one["objectKey"] for one in available}
    for one in available:
        content = (world.folder / listed[one["objectKey"]]["path"]).read_bytes()
        assert content == (world.space.root / "data" / one["objectKey"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == listed[one["objectKey"]]["sha256"]
    assert len(world.staged_files()) == len(available) == said["files"] == 2 * EACH - 2
    assert said["bytes"] == sum(one["frameSize"] for one in available)
    assert said["lost"] == [world.frames[-3]["objectKey"]]
    assert said["removed"] == [world.frames[-2]["objectKey"]]


def test_frames_are_staged_once_over_http(world: World) -> None:
    report = world.stage()
    assert (report.staged, report.failed, report.left_out) == ([OP], [], [])
    assert report.files == 2 * EACH - 2
    check_whole(world)
    assert read_package(world.folder)["staged"] is True
    assert len(world.space.asked) == 2 * EACH - 2
    again = world.stage()
    assert (again.staged, again.already, len(world.space.asked)) == ([], [OP], 2 * EACH - 2)
    urls = (world.folder / "transfer" / "http.txt").read_text().split()
    assert urls[0] == f"{world.space.url}/data/{world.frames[0]['objectKey']}"
    assert world.present().state is State.PREPROCESSED
    stands = standing(world.folder)
    assert (stands["frames"], stands["frames_listed"]) == (2 * EACH - 2, 2 * EACH - 2)
    assert (world.folder / stands["picture"]).read_bytes().startswith(b"\x89PNG")
    assert read_package(world.folder)["frames"]["provenance"]["frames_from"] == world.space.url


def test_from_a_mounted_folder(world: World) -> None:
    assert world.stage(frames_from=str(world.space.root)).staged == [OP]
    check_whole(world)


def test_one_that_is_short_or_turned_down_is_tried_again(world: World) -> None:
    paths = [f"data/{world.frames[n]['objectKey']}" for n in (3, 70)]
    world.space.instead = {paths[0]: [200], paths[1]: [503]}
    assert world.stage().staged == [OP]
    check_whole(world)
    # The short one goes on where it broke off.
    assert [asked[1] for asked in world.space.asked if asked[0] == paths[0]] == [None, "bytes=500-"]


def test_frames_that_do_not_arrive_bring_the_op_to_error_with_their_list(world: World) -> None:
    gone = [world.frames[n]["objectKey"] for n in (5, 6)]
    for key in gone:
        (world.space.root / "data" / key).unlink()
    report = world.stage()
    assert [op for op, _ in report.failed] == [OP]
    present = world.present()
    assert present.state is State.ERROR
    assert present.details["class"] == "permanent"
    assert f"2 of {2 * EACH - 2} frames did not arrive" in present.details["message"]
    assert "HTTP 404" in present.details["message"]
    assert sorted(json.loads((world.folder / "frames_missing.json").read_text())) == sorted(gone)
    assert read_package(world.folder)["staged"] is False

    # They are there again: the retried OP is staged, and what had arrived is not fetched again.
    for number in (5, 6):
        frame(number, world.space.root)
    world.ledger.retry(OP, actor="operator")
    before = len(world.space.asked)
    assert world.stage().staged == [OP]
    check_whole(world)
    assert {path for path, _ in world.space.asked[before:]} <= {f"data/{key}" for key in gone}
    assert not (world.folder / "frames_missing.json").exists()


@pytest.mark.parametrize("broken", ["absent", "wrong"])
def test_a_claimed_op_goes_on_without_frames_that_do_not_come(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], broken: str
) -> None:
    path = world.space.root / "data" / world.frames[5]["objectKey"]
    if broken == "absent":
        path.unlink()
    else:
        frame(5, world.space.root, OBSPR_ID="another")
    says = {"absent": "did not arrive", "wrong": "are not those of the OP"}[broken]
    world.ledger.claim(OP, actor="ann")
    monkeypatch.setenv("L2_DATA_DIR", str(world.settings.data))
    monkeypatch.setenv("L2_FRAMES_FROM", str(world.space.root))
    monkeypatch.setenv("L2_STORE_URL", str(world.settings.store_url))
    for _ in range(2):
        assert _run(["stage", OP]) == 1
        shown = capsys.readouterr()
        assert says in shown.out
        assert says in shown.err
    assert world.present().state is State.WORKING
    assert len(world.ledger.annotations(OP)) == 1  # the same is noted once
    assert _run(["show", OP, "--json"]) == 0
    assert says in json.loads(capsys.readouterr().out)["staging"]["failed"]
    assert _run(["show", OP]) == 0
    assert says in " ".join(capsys.readouterr().out.split())
    world.ledger.submit_ready(OP, products="/p", commit_hash="abc1234", actor="ann")

    frame(5, world.space.root)
    assert _run(["stage", OP]) == 0
    capsys.readouterr()
    assert _run(["show", OP, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["staging"]["failed"] is None


def test_wrong_headers_bring_the_op_to_error_with_their_list(world: World) -> None:
    frame(7, world.space.root, OBSPR_ID="another")
    frame(8, world.space.root, STOKES="X")
    report = world.stage(frames_from=str(world.space.root))
    assert [op for op, _ in report.failed] == [OP]
    present, wrong = world.present(), [world.frames[n]["objectKey"] for n in (7, 8)]
    assert present.state is State.ERROR
    assert (present.details["step"], present.details["class"]) == ("preprocess", "permanent")
    assert f"2 of {2 * EACH - 2} frames are not those of the OP" in present.details["message"]
    listed = json.loads((world.folder / "frames_wrong.json").read_text())
    assert sorted(one["object_key"] for one in listed) == sorted(wrong)
    assert {one["message"] for one in listed} == {
        f"OBSPR_ID is 'another', not '{OP}'", "STOKES is 'X', not one of IQUV",
    }  # fmt: skip
    assert read_package(world.folder)["staged"] is False
    assert standing(world.folder)["frames"] == 2 * EACH - 4  # the others stay
    # Mended and retried, the OP is staged, and only the two are fetched anew.
    for number in (7, 8):
        frame(number, world.space.root)
    world.ledger.retry(OP, actor="operator")
    assert world.stage().staged == [OP]
    check_whole(world)
    assert {path for path, _ in world.space.asked} == {f"data/{key}" for key in wrong}
    assert standing(world.folder)["wrong"] == []


def test_a_staging_resumed_by_its_job_is_in_the_package(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(name: str) -> None:
        if name == "rename VISP_00100_L1.fits":
            raise OSError(28, "No space left on device")

    watch_steps(refuse)
    try:
        world.stage()
    finally:
        watch_steps(None)
    world.ledger.retry(OP, actor="operator")
    (job,) = jobs_in_short(world.ledger.engine)
    assert job.status == "RUNNING"
    monkeypatch.setenv("L2_DATA_DIR", str(world.settings.data))
    monkeypatch.setenv("L2_FRAMES_FROM", world.space.url)
    monkeypatch.setenv("L2_STORE_URL", str(world.settings.store_url))
    assert _run(["jobs", "resume", job.job_id]) == 0
    check_whole(world)
    assert read_package(world.folder)["frames"]["provenance"]["job_id"] == job.job_id
    asked = len(world.space.asked)
    assert world.stage().already == [OP]
    assert len(world.space.asked) == asked


def test_cubes_are_made_on_request_and_go_with_the_frames(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("L2_DATA_DIR", str(world.settings.data))
    monkeypatch.setenv("L2_FRAMES_FROM", str(world.space.root))
    monkeypatch.setenv("L2_STORE_URL", str(world.settings.store_url))
    assert _run(["preprocess", OP, "--cubes", "--json"]) == 0
    cubes = json.loads(capsys.readouterr().out)["cubes"]
    assert [cube["dataset_id"] for cube in cubes] == ["AAAAA", "BBBBB"]
    assert all(cube["shape"][:1] == [4] for cube in cubes)
    for cube in cubes:
        assert (world.folder / "cubes" / cube["file"]).stat().st_size == cube["bytes"]
    assert read_package(world.folder)["cubes"]["files"] == 2
    assert _run(["show", OP]) == 0
    shown = capsys.readouterr().out
    assert f"{2 * EACH - 2} of {2 * EACH - 2}" in shown
    assert cubes[0]["file"] in shown
    assert "quicklook.png" in shown
    assert _run(["preprocess", "nobody", "--cubes"]) != 0
    monkeypatch.setenv("L2_STAGE_QUOTA_GB", "1e-6")
    (world.folder / "cubes" / cubes[0]["file"]).unlink()
    capsys.readouterr()
    assert _run(["preprocess", OP, "--cubes"]) == 1
    assert "L2_STAGE_QUOTA_GB" in capsys.readouterr().err


@pytest.mark.parametrize("at", ["rename VISP_00100_L1.fits", "write frames.json", "write inputs.json"])
def test_interrupted_at_a_step_it_goes_on(world: World, at: str) -> None:
    def refuse(name: str) -> None:
        if name == at:
            raise OSError(28, "No space left on device")

    watch_steps(refuse)
    try:
        assert [op for op, _ in world.stage().failed] == [OP]
    finally:
        watch_steps(None)
    assert world.present().state is State.ERROR
    assert world.present().details["class"] == "transient"
    world.ledger.retry(OP, actor="operator")
    fetched = len(world.space.asked)
    report = world.stage()
    assert (report.staged, report.failed) == ([OP], [])
    check_whole(world)
    # What had arrived is not fetched again.
    assert len(world.space.asked) <= fetched + (0 if at.endswith(".json") else 2 * EACH - 100)


def test_the_quota_is_kept(world: World) -> None:
    report = world.stage(stage_quota_gb=1e-6)
    assert report.staged == []
    assert "L2_STAGE_QUOTA_GB" in report.left_out[0][1]
    assert not world.staged_files()
    assert world.present().state is State.PREPROCESSED


def test_a_full_quota_takes_the_frames_that_nobody_waits_for(world: World) -> None:
    world.stage()
    taken = taken_bytes(world.settings)

    def pass_by(quota: float) -> list[str]:
        settings = world.settings.model_copy(update={"stage_quota_gb": quota / 1e9})
        return stage_next(settings, world.ledger, world.store, actor="t", run_id=None).evicted

    world.ledger.claim(OP, actor="ann")
    assert pass_by(taken / 2) == []
    world.ledger.release(OP, actor="ann")
    world.ledger.append(OP, State.NOT_INVERTIBLE, actor="verdict", cause="c")
    assert pass_by(taken) == []
    assert world.staged_files()
    assert pass_by(taken / 2) == [OP]
    assert not world.staged_files()
    assert read_package(world.folder)["staged"] is False


def test_an_op_without_listed_frames_stays_as_it_is(world: World, tmp_path: Path) -> None:
    app = store_app(RecordSet(), inversions_file=tmp_path / "e.sqlite")
    with LocalStoreServer(app) as server, StoreClient(server.url) as store:
        world.store = store
        report = world.stage()
    assert report.left_out == [(OP, "the store lists no frames")]
    assert world.present().state is State.PREPROCESSED
    assert read_package(world.folder)["staged"] is False


def test_published_ones_are_removed_and_others_stay(world: World) -> None:
    world.stage()
    assert evict_published(world.settings, [world.present()]) == []
    world.ledger.claim(OP, actor="ann")
    event = world.ledger.submit_ready(OP, products="/p", commit_hash="abc1234", actor="ann")
    world.ledger.settle(event, lambda _event: {"products": []}, run_id=None, actor="pipeline")
    world.ledger.published(
        OP, inversion_id=event.inversion_id, details={"bucket": "data"}, actor="pipeline", run_id=None
    )
    assert evict_published(world.settings, [world.present()]) == [OP]
    assert not world.staged_files()
    assert read_package(world.folder)["staged"] is False
    assert evict_published(world.settings, [world.present()]) == []


def test_transfer_lists_aim_at_the_science_side(world: World) -> None:
    package = read_package(world.folder)
    source, destination = Collection.parse("aaa-1:/l1/"), Collection.parse("bbb-2:/home/ann")
    globus, rsync = write_transfer_lists(world.folder, package, source=source, destination=destination)
    command, *lines = globus.read_text().splitlines()
    assert command.startswith("# globus transfer aaa-1 bbb-2 ")
    assert lines == [
        f'--recursive "/l1/data/pid_1_1/{name}/" "/home/ann/{OP}/{name}/"' for name in ("AAAAA", "BBBBB")
    ]
    assert rsync.read_text().split() == ["data/pid_1_1/AAAAA/", "data/pid_1_1/BBBBB/"]
    with pytest.raises(ValueError, match="<uuid>:/path"):
        Collection.parse("/home/ann")
