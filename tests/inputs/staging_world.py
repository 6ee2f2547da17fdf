"""An OP with frames in an object space over HTTP, and a ledger that knows it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from dagster_l2.inputs import (
    build_package,
    package_details,
    package_folder,
    read_package,
    write_package,
)
from dagster_l2.ledger import Ledger, Present, State
from dagster_l2.pipeline.staging import StageReport, stage
from dagster_l2.settings import Settings
from dagster_l2.store import StoreClient
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
