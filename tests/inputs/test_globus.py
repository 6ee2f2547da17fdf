"""Globus, played by a local server that moves files: frames brought, packages sent, each once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from dagster_l2.base.errors import WrongUse
from dagster_l2.cli import _run
from dagster_l2.inputs import package_folder, read_package
from dagster_l2.ledger import State
from dagster_l2.pipeline.staging import stage
from dagster_l2.pipeline.wiring import open_ledger, open_objects
from dagster_l2.settings import Settings
from dagster_l2.store import StoreClient
from dagster_l2.store.server import LocalStoreServer, RecordSet, store_app
from tests.inputs.test_kill import OP, PLACES, make_space, make_template

TOKEN = "a-token-that-must-not-show"


class Globus:
    """The part of the transfer service that is used; a task moves its files when it is looked at."""

    def __init__(self, roots: dict[str, Path]) -> None:
        self.roots = roots
        self.submissions: dict[str, str] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.fail: str | None = None
        self.lose_answer = False
        self.app = Starlette(
            routes=[
                Route("/v0.10/transfer", self.submit, methods=["POST"]),
                Route("/v0.10/task/{task}", self.look),
            ]
        )

    async def submit(self, request: Request) -> JSONResponse:
        if request.headers["Authorization"] != f"Bearer {TOKEN}":
            said = {"code": "AuthenticationFailed", "message": "Who are you?", "request_id": "r"}
            return JSONResponse(said, status_code=401)
        order = await request.json()
        known = order["submission_id"] in self.submissions
        task = self.submissions.setdefault(order["submission_id"], f"task-{len(self.submissions)}")
        self.tasks.setdefault(task, order)
        if self.lose_answer:
            self.lose_answer = False
            return JSONResponse(
                {"code": "GatewayError", "message": "lost", "request_id": "r"}, status_code=400
            )
        return JSONResponse({"task_id": task, "code": "Duplicate" if known else "Accepted"}, status_code=202)

    async def look(self, request: Request) -> JSONResponse:
        task = request.path_params["task"]
        if self.fail:
            return JSONResponse({"status": "FAILED", "nice_status_short_description": self.fail})
        if task not in self.tasks:
            said = {"code": "ClientError.NotFound", "message": "No such task", "request_id": "r"}
            return JSONResponse(said, status_code=404)
        order = self.tasks[task]
        if not order.get("seen"):
            order["seen"] = True
            return JSONResponse({"status": "ACTIVE"})
        for item in order["DATA"]:
            source = self._place(order["source_endpoint"], item["source_path"])
            target = self._place(order["destination_endpoint"], item["destination_path"])
            target.parent.mkdir(parents=True, exist_ok=True)
            if item.get("recursive"):
                shutil.copytree(source, target, dirs_exist_ok=True)
            else:
                shutil.copyfile(source, target)
        return JSONResponse({"status": "SUCCEEDED", "files_transferred": len(order["DATA"])})

    def _place(self, endpoint: str, path: str) -> Path:
        return self.roots[endpoint] / path.lstrip("/")


class World:
    def __init__(self, folder: Path) -> None:
        self.space, self.data = folder / "store" / "l1", make_template(folder / "data")
        self.records = make_space(self.space)
        self.globus = Globus({"aaa": folder / "store", "bbb": folder, "ccc": folder / "science"})


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path)
    app = store_app(RecordSet({"frameInventories": world.records}), inversions_file=tmp_path / "i.sqlite")
    with LocalStoreServer(app) as server, LocalStoreServer(world.globus.app) as globus:
        for name, value in {
            "DATA_DIR": world.data, "STORE_URL": server.url, "GLOBUS_URL": globus.url, "GLOBUS_TOKEN": TOKEN,
            "STORE_COLLECTION": "aaa:/l1", "LOCAL_COLLECTION": "bbb:/data", "SCIENCE_COLLECTION": "ccc:/in",
        }.items():  # fmt: skip
            monkeypatch.setenv(f"L2_{name}", str(value))
        yield world


def frames_of(world: World) -> set[bytes]:
    return {path.read_bytes() for path in (package_folder(world.data, OP) / "frames").rglob("*.fits")}


def test_globus_brings_the_frames_in_one_transfer(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(["stage", OP, "--through", "globus", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["frames"] == len(PLACES)
    assert TOKEN not in shown.out + shown.err
    assert frames_of(world) == {path.read_bytes() for path in world.space.rglob("*.fits")}
    said = read_package(package_folder(world.data, OP))
    assert (said["staged"], said["frames"]["provenance"]["frames_from"]) == (True, "globus")
    (order,) = world.globus.tasks.values()
    assert (order["source_endpoint"], order["destination_endpoint"]) == ("aaa", "bbb")
    assert order["verify_checksum"] is True
    assert len(order["DATA"]) == len(PLACES)
    assert not [path for path in (world.data / "globus").rglob("*") if path.is_file()]
    assert _run(["stage", OP, "--through", "globus"]) == 0
    assert len(world.globus.tasks) == 1


def test_a_transfer_that_was_submitted_is_not_submitted_again(world: World) -> None:
    # The answer is lost behind the submission, as when this side is killed: the next try finds the same task.
    world.globus.lose_answer = True
    settings = Settings(frames_from="globus")
    objects_root = world.data / "globus" / "tasks"
    with open_ledger(settings) as ledger, StoreClient(str(settings.store_url)) as store:
        with open_objects(settings) as objects:
            transfers = objects._transfers  # type: ignore[attr-defined]
            note = objects_root / "n.json"
            ends = {"source": objects._source, "destination": objects._here, "label": "l"}  # type: ignore[attr-defined]
            with pytest.raises(Exception, match="lost"):
                transfers.start(note, [], **ends)
            assert transfers.start(note, [], **ends) == transfers.start(note, [], **ends) == "task-0"
        assert len(world.globus.submissions) == 1
        note.unlink()
        world.globus.fail = "PERMISSION_DENIED"
        report = stage(settings, ledger, store, [ledger.present(OP)], actor="a", run_id=None)
        assert "PERMISSION_DENIED" in report.failed[0][1]
        present = ledger.present(OP)
        assert (present.state, present.details["class"]) == (State.ERROR, "permanent")
        # Mended and retried, it is another transfer.
        world.globus.fail = None
        ledger.retry(OP, actor="operator")
        assert stage(settings, ledger, store, [ledger.present(OP)], actor="a", run_id=None).staged == [OP]
    assert len(frames_of(world)) == len(PLACES)


def test_an_input_package_is_sent_once(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    package = package_folder(world.data, OP)
    (package / "transfer").mkdir()
    (package / "transfer" / "globus.txt").write_text("what goes where\n")
    for expected in ("ACTIVE", "SUCCEEDED"):
        assert _run(["send", OP, "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        for part, task in ((content, "task-0"), (content["manifest"], "task-1")):
            assert (part["status"], part["task_id"], part["started"]) == (
                expected, task, expected == "ACTIVE",
            )  # fmt: skip
    sent = world.globus.roots["ccc"] / "in" / OP
    assert {path.name for path in (sent / "AAAAA").iterdir()} == {
        f"VISP_{step}{stokes}.fits" for stokes, step in PLACES
    }
    assert (sent / "inputs.json").read_bytes() == (package / "inputs.json").read_bytes()
    assert (sent / "transfer" / "globus.txt").read_text() == "what goes where\n"
    assert _run(["send", OP, "--again"]) == 0
    assert "task-2" in capsys.readouterr().out
    world.globus.fail = "FILE_NOT_FOUND"
    assert _run(["send", OP]) == 1
    assert "FILE_NOT_FOUND" in capsys.readouterr().err


def test_without_a_collection_of_this_machine_the_manifest_stays_and_that_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("L2_LOCAL_COLLECTION")
    assert _run(["send", OP]) == 0
    assert "set L2_LOCAL_COLLECTION, and the manifest goes along" in " ".join(capsys.readouterr().out.split())
    assert len(world.globus.tasks) == 1


def test_a_wrong_token_is_said_and_not_shown(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("L2_GLOBUS_TOKEN", "wrong-and-secret")
    assert _run(["send", OP]) == 1
    shown = capsys.readouterr()
    assert "L2_GLOBUS_TOKEN" in shown.err
    assert "wrong-and-secret" not in shown.out + shown.err
    monkeypatch.delenv("L2_GLOBUS_TOKEN")
    assert _run(["send", OP]) == 2
    monkeypatch.delenv("L2_LOCAL_COLLECTION")
    with pytest.raises(WrongUse, match="L2_LOCAL_COLLECTION"), open_objects(Settings(frames_from="globus")):
        pass
