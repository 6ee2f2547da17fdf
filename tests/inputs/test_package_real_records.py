"""Packages of every observing program in the real records."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dagster_l2.inputs import build_package, package_details, read_package, write_package


def visp_programs(records: Path) -> dict[str, list[dict[str, Any]]]:
    by_op: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for file in sorted((records / "2025-10-23").glob("*.json")):
        for record in json.loads(file.read_text())["data"]["datasetInventories"]:
            op_id = record.get("observingProgramExecutionId")
            if record.get("instrumentName") != "VISP" or op_id is None:
                continue
            by_op[op_id].append(
                {
                    "op_id": op_id,
                    "dataset_id": record["datasetId"],
                    "product_id": record.get("productId"),
                    "instrument_program_id": record["instrumentProgramExecutionId"],
                    "proposal_id": record["primaryProposalId"],
                    "wavelength_min_nm": record["wavelengthMin"],
                    "wavelength_max_nm": record["wavelengthMax"],
                    "frame_count": record["frameCount"],
                    "spectral_lines": record.get("spectralLines"),
                    "asdf_object_key": record.get("asdfObjectKey"),
                    "bucket": record["bucket"],
                    "stokes": record.get("stokesParameters"),
                }
            )
    return by_op


def test_every_real_op_makes_a_package(tmp_path: Path, real_records: Path) -> None:
    programs = visp_programs(real_records)
    assert len(programs) == 73
    for op_id, rows in programs.items():
        package = build_package(op_id, rows, inputs_hash="h", rule_version="r", created_at=datetime.now(UTC))
        written = read_package(write_package(tmp_path / op_id, package))
        assert sorted(package_details(written)["dataset_ids"]) == sorted(row["dataset_id"] for row in rows)
        assert written["totals"]["frames"] == sum(row["frame_count"] for row in rows)
