"""Killed at any step of staging and preprocessing, the next run ends in the same state."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from dagster_l2.inputs import build_package, package_details, package_folder, write_package
from dagster_l2.ledger import State
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.settings import REPOSITORY, Settings
from dagster_l2.store.server import LocalStoreServer, RecordSet, store_app
from tests.inputs.frame_kit import RANGE_NM, frame_bytes, header

OP = "eid_1_1_opAbcdef_R001.80000.13000000"
START = datetime(2025, 3, 1, 20, 0, 0)
PLACES = [(stokes, 1) for stokes in "IV"]


def make_space(space: Path) -> list[dict[str, Any]]:
    out = []
    for stokes, step in PLACES:
        key, begins_at = f"pid_1_1/AAAAA/VISP_{step}{stokes}.fits", START + timedelta(seconds=step)
        said = header(op_id=OP, dataset_id="AAAAA", stokes=stokes, step=step, begins_at=begins_at, steps=2)
        path = space / "data" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(frame_bytes(said))
        out.append(
            {
                "inventoryId": key, "frameId": key, "bucket": "data", "objectKey": key,
                "observationDate": begins_at.isoformat(), "createDate": "2025-03-02T00:00:00",
                "frameStatus": "AVAILABLE", "frameSize": path.stat().st_size, "datasetId": "AAAAA",
                "processingType": "L1", "observingProgramExecutionId": OP,
            }
        )  # fmt: skip
    return out


def make_template(folder: Path) -> Path:
    row = {
        "op_id": OP, "dataset_id": "AAAAA", "instrument_program_id": "id.1.1", "proposal_id": "pid_1_1",
        "frame_count": len(PLACES), "bucket": "data", "stokes": "IQUV",
        "wavelength_min_nm": RANGE_NM[0], "wavelength_max_nm": RANGE_NM[1],
    }  # fmt: skip
    package = build_package(
        OP, [row], inputs_hash="h", rule_version="r", created_at=datetime(2026, 1, 1, tzinfo=UTC)
    )
    write_package(package_folder(folder, OP), package)
    with open_ledger(Settings(data_dir=folder)) as ledger:
        ledger.append(OP, State.DISCOVERED, actor="scan", cause="found", inputs_hash="h", rule_version="r")
        ledger.append(OP, State.INVERTIBLE, actor="verdict", cause="passed", inputs_hash="h")
        ledger.record_preprocessed(
            OP, inputs_hash="h", details=package_details(package), run_id=None, actor="pipeline"
        )
    return folder


def test_a_kill_at_any_step_changes_nothing(tmp_path: Path) -> None:
    space, template = tmp_path / "space", make_template(tmp_path / "template")
    app = store_app(RecordSet({"frameInventories": make_space(space)}), inversions_file=tmp_path / "i.sqlite")
    with LocalStoreServer(app) as server:
        command = [sys.executable, "-m", "tests.inputs.kill_everywhere"]
        done = subprocess.run(
            [*command, str(template), str(tmp_path / "work"), str(space), server.url, OP],
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    report = json.loads(done.stdout)
    whole, found = report["whole"], report["after_kill"]
    assert {"inputs.json", "frames.json", "quicklook.png", "cubes/cubes.json"} <= set(whole)
    assert len([name for name in whole if name.startswith("frames/")]) == len(PLACES)
    killed = {one["killed_at"] for one in found.values()}
    names = [f"VISP_{step}{stokes}.fits" for stokes, step in PLACES]
    renamed = (*names, "quicklook.png", "frames.json", "inputs.json", "cube_AAAAA.fits", "cubes.json")
    assert {f"rename {name}" for name in renamed} <= killed
    # Every kind of step is died at.
    kinds = {" ".join(step.split()[:-1]) for step in killed}
    assert {"write", "fsync", "rename", "fsync the folder of"} <= kinds
    assert any(kind.startswith("plane") for kind in kinds)
    assert "fsync VISP_1I.fits" in killed
    assert {one["killed_at"]: one["state"] for one in found.values() if one["state"] != whole} == {}
    for one in found.values():  # nothing is fetched twice
        assert one["renamed"] == sorted(f"rename {name}" for name in names), one["killed_at"]
