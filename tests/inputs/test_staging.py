"""Frames staged over real HTTP and from a folder: once, whole, within the quota, gone on with, removed."""

from __future__ import annotations

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from matplotlib.image import imread

from dagster_l2.assets.frames import frames
from dagster_l2.cli import _run
from dagster_l2.inputs import (
    PICTURE_FILE,
    Collection,
    package_folder,
    read_package,
    standing,
    write_transfer_lists,
)
from dagster_l2.ledger import State
from dagster_l2.pipeline.quota import evict_published, taken_bytes
from dagster_l2.pipeline.staging import stage_next
from dagster_l2.resources import L2
from dagster_l2.settings import REPOSITORY
from dagster_l2.store import StoreClient
from dagster_l2.store.server import LocalStoreServer, RecordSet, store_app
from tests.inputs.staging_world import EACH, OP, World, check_whole


def materialized(world: World) -> dict[str, Any]:
    """What the asset says of a run, as the UI has it."""
    result = dg.materialize([frames], resources={"l2": L2(world.settings)})
    (event,) = result.get_asset_materialization_events()
    return {name: value.value for name, value in event.materialization.metadata.items()}


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


@pytest.mark.parametrize(("first", "wanted"), [(0, []), (1, ["op2"]), (2, ["op2", OP])])
def test_the_head_of_the_queue_is_staged_and_no_more(world: World, first: int, wanted: list[str]) -> None:
    shutil.copytree(world.folder, package_folder(world.settings.data, "op2"))
    for state in (State.DISCOVERED, State.INVERTIBLE):
        world.ledger.append("op2", state, actor="t", cause="c", inputs_hash="h", rule_version="r")
    world.ledger.record_preprocessed("op2", inputs_hash="h", details={}, run_id=None, actor="t")
    world.ledger.prioritize("op2", 3, actor="op", reason="first")
    with duckdb.connect(str(world.settings.gold)) as gold:
        gold.execute(f"create table work_queue as select '{OP}' as op_id, 0.9e0 as merit_score")
        for table in ("state_rules", "priority_parts"):
            seed = REPOSITORY / "dbt_project" / "seeds" / "states" / f"{table}.csv"
            gold.execute(f"create table {table} as select * from read_csv('{seed}')")
    # Without room for one frame, what is wanted is left out, and says so.
    settings = world.settings.model_copy(update={"stage_first": first, "stage_quota_gb": 1e-9})
    report = stage_next(settings, world.ledger, world.store, actor="t", run_id=None)
    assert [op_id for op_id, _ in report.left_out] == wanted


def test_an_op_without_listed_frames_stays_as_it_is(world: World, tmp_path: Path) -> None:
    app = store_app(RecordSet(), inversions_file=tmp_path / "e.sqlite")
    with LocalStoreServer(app) as server, StoreClient(server.url) as store:
        world.store = store
        report = world.stage()
    assert report.left_out == [(OP, "the store lists no frames")]
    assert world.present().state is State.PREPROCESSED
    assert read_package(world.folder)["staged"] is False


def test_the_asset_shows_a_picture_and_removes_what_is_published(world: World) -> None:
    world.ledger.claim(OP, actor="ann")
    shown = materialized(world)
    assert (shown["frames of"], shown["frames"], shown["removed"]) == (OP, 2 * EACH - 2, 0)
    head, tail = "![picture](data:image/png;base64,", ")"
    png = base64.b64decode(shown["quick look"].removeprefix(head).removesuffix(tail), validate=True)
    assert png == (world.folder / PICTURE_FILE).read_bytes()
    height, width = imread(io.BytesIO(png)).shape[:2]
    assert min(height, width) > 100

    assert evict_published(world.settings, [world.present()]) == []
    event = world.ledger.submit_ready(OP, products="/p", commit_hash="abc1234", actor="ann")
    world.ledger.settle(event, lambda _event: {"products": []}, run_id=None, actor="pipeline")
    world.ledger.published(
        OP, inversion_id=event.inversion_id, details={"bucket": "data"}, actor="pipeline", run_id=None
    )
    assert materialized(world)["removed"] == 1
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
