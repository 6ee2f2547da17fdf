"""Frames that do not come or are wrong, and stagings that break off: named, kept, gone on with."""

from __future__ import annotations

import json

import pytest

from dagster_l2.base.files import watch_steps
from dagster_l2.batch import jobs_in_short
from dagster_l2.cli import _run
from dagster_l2.inputs import (
    read_package,
    standing,
)
from dagster_l2.ledger import State
from tests.inputs.staging_world import EACH, OP, World, check_whole, frame


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
