"""Input packages: what is in them, that they stay where they belong, and that a rerun changes nothing."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dagster_l2.inputs import (
    PACKAGE_FILE,
    InputDataset,
    InputError,
    PackageRefused,
    PackageUnreadable,
    build_package,
    package_details,
    package_folder,
    read_package,
    write_package,
)

OP = "eid_1_118_opAvoqBr_R001.82591.13964206"
NOW = datetime(2026, 1, 15, 12, tzinfo=UTC)


def row(dataset_id: str = "AAAAA", **changes: Any) -> dict[str, Any]:
    values = {
        "op_id": OP,
        "dataset_id": dataset_id,
        "product_id": f"L1-{dataset_id}",
        "arm": "1",
        "instrument_program_id": "id.82591.123456",
        "proposal_id": "pid_1_118",
        "wavelength_min_nm": 629.4,
        "wavelength_max_nm": 631.0,
        "frame_count": 1200,
        "stokes": "IQUV",
        "spectral_lines": ["Fe I (630.15 nm)"],
        "lines_estimated": False,
        "asdf_object_key": f"pid_1_118/{dataset_id}/{dataset_id}.asdf",
        "bucket": "data",
        "content_hash": "c0ffee",
    }
    return {**values, **changes}


def build(*rows: dict[str, Any], **changes: Any) -> dict[str, Any]:
    arguments = {"inputs_hash": "h1", "rule_version": "2025-11", "created_at": NOW, **changes}
    return build_package(OP, list(rows), **arguments)


THREE_ARMS = (
    row("CCCCC", arm="3", spectral_lines=["Na I D2 (589.0 nm)"], wavelength_min_nm=588.0),
    row("AAAAA", arm="1"),
    row("BBBBB", arm="2", spectral_lines=["Ca II (854.21 nm)"], bucket="other"),
)


def test_datasets_are_grouped_by_arm_and_line_whatever_order_they_come_in() -> None:
    package = build(*THREE_ARMS, row("DDDDD", arm="1"))
    assert package == build(row("DDDDD", arm="1"), *reversed(THREE_ARMS))
    groups = [
        (group["arm"], group["spectral_lines"], [dataset["dataset_id"] for dataset in group["datasets"]])
        for group in package["groups"]
    ]
    assert groups == [
        ("1", ["Fe I (630.15 nm)"], ["AAAAA", "DDDDD"]),
        ("2", ["Ca II (854.21 nm)"], ["BBBBB"]),
        ("3", ["Na I D2 (589.0 nm)"], ["CCCCC"]),
    ]
    assert package["buckets"] == ["data", "other"]
    assert package["staged"] is False
    assert package["groups"][0]["datasets"][0] == {
        "dataset_id": "AAAAA",
        "product_id": "L1-AAAAA",
        "wavelength_min_nm": 629.4,
        "wavelength_max_nm": 631.0,
        "frame_count": 1200,
        "stokes": "IQUV",
        "spectral_lines": ("Fe I (630.15 nm)",),
        "lines_estimated": False,
        "asdf_object_key": "pid_1_118/AAAAA/AAAAA.asdf",
        "bucket": "data",
        "content_hash": "c0ffee",
    }


def test_frame_counts_do_not_wrap() -> None:
    package = build(row("AAAAA", frame_count=77_694), row("BBBBB", frame_count=np.int32(77_694)))
    assert package["totals"]["frames"] == 155_388
    narrow = build(row("AAAAA", frame_count=np.int16(30_000)), row("BBBBB", frame_count=np.int16(30_000)))
    assert narrow["totals"]["frames"] == 60_000


def test_what_was_not_recorded_is_null_and_stays_json(tmp_path: Path) -> None:
    package = build(
        row(
            arm=None,
            wavelength_min_nm=float("nan"),
            wavelength_max_nm=None,
            asdf_object_key=None,
            spectral_lines=None,
        )
    )
    path = write_package(tmp_path, package)
    dataset = json.loads(path.read_text(), parse_constant=pytest.fail)["groups"][0]["datasets"][0]
    assert dataset["wavelength_min_nm"] is None
    assert dataset["asdf_object_key"] is None
    assert dataset["spectral_lines"] == []


def test_a_dataset_object_is_as_good_as_a_row() -> None:
    assert build(InputDataset.from_row(row())) == build(row())  # type: ignore[arg-type]


def test_lines_arrive_as_an_array_too() -> None:
    assert build(row(spectral_lines=np.array(["Fe I (630.15 nm)"]))) == build(row())


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([], "has no dataset"),
        ([row(), row("BBBBB", instrument_program_id="id.1.2")], "2 instrument programs"),
        ([row(), row("BBBBB", proposal_id="pid_9_9")], "2 proposals"),
        ([row(instrument_program_id=None)], "without instrument program"),
        ([row(), row()], "listed twice"),
        ([row(op_id="another")], "does not belong"),
        ([row(frame_count=None)], "no frame count"),
        ([row(frame_count="many")], "no frame count"),
        ([row(frame_count=-1)], "-1 frames"),
        ([row(bucket=None)], "no bucket"),
        ([row(dataset_id="")], "no dataset_id"),
    ],
)
def test_datasets_that_make_no_package_are_refused_in_one_sentence(
    rows: list[dict[str, Any]], said: str
) -> None:
    with pytest.raises(PackageRefused, match=said) as refused:
        build(*rows)
    assert str(refused.value).endswith(".")
    assert "\n" not in str(refused.value)


def test_a_rerun_leaves_the_file_alone_and_a_change_rewrites_it(tmp_path: Path) -> None:
    path = write_package(tmp_path, build(*THREE_ARMS))
    os.utime(path, ns=(1, 1))
    before = path.read_bytes()
    write_package(tmp_path, build(*reversed(THREE_ARMS), created_at=NOW + timedelta(days=1)))
    assert path.stat().st_mtime_ns == 1
    assert path.read_bytes() == before

    write_package(tmp_path, build(*THREE_ARMS, inputs_hash="h2", created_at=NOW + timedelta(days=1)))
    changed = read_package(path)
    assert changed["inputs_hash"] == "h2"
    assert changed["created_at"] == "2026-01-16T12:00:00+00:00"


def test_the_same_content_is_the_same_bytes(tmp_path: Path) -> None:
    one = write_package(tmp_path / "one", build(*THREE_ARMS))
    other = write_package(tmp_path / "other", build(*reversed(THREE_ARMS)))
    assert one.read_bytes() == other.read_bytes()


def test_times_are_utc() -> None:
    east = datetime(2026, 1, 15, 14, tzinfo=timezone(timedelta(hours=2)))
    naive = datetime(2026, 1, 15, 12)
    assert build(row(), created_at=east)["created_at"] == "2026-01-15T12:00:00+00:00"
    assert build(row(), created_at=naive)["created_at"] == "2026-01-15T12:00:00+00:00"


def test_what_was_written_is_what_is_read(tmp_path: Path) -> None:
    package = build(row(spectral_lines=["H α (656.28 nm)"]))
    path = write_package(tmp_path, package)
    assert read_package(path) == read_package(tmp_path) == json.loads(json.dumps(package))


@pytest.mark.parametrize("content", [None, b"", b"{", b"[]", b'{"schema_version": 99}', b"\xff\xfe\x00"])
def test_a_damaged_package_is_said_to_be_one_and_written_anew(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / PACKAGE_FILE
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PackageUnreadable, match=r"prepare"):
        read_package(path)
    write_package(tmp_path, build(row()))
    assert read_package(path)["op_id"] == OP


@pytest.mark.parametrize("op_id", ["../../etc/passwd", 'o\'p\n"x"', "x" * 300, "..", "ünï", "/abs"])
def test_a_package_never_leaves_its_folder(tmp_path: Path, op_id: str) -> None:
    package = build_package(op_id, [row(op_id=op_id)], inputs_hash="h", rule_version="r", created_at=NOW)
    path = write_package(package_folder(tmp_path, op_id), package)
    assert path.resolve().parent.parent == (tmp_path / "inputs").resolve()
    assert tmp_path / package_details(package)["package"] == path
    assert read_package(path)["op_id"] == op_id


def test_details_for_the_ledger() -> None:
    package = build(*THREE_ARMS)
    assert package_details(package) == {
        "package": f"inputs/{OP}/inputs.json",
        "instrument_program_id": "id.82591.123456",
        "dataset_ids": ["AAAAA", "BBBBB", "CCCCC"],
        "spectral_lines": ["Ca II (854.21 nm)", "Fe I (630.15 nm)", "Na I D2 (589.0 nm)"],
        "buckets": ["data", "other"],
    }


def test_details_of_what_was_inverted_name_only_its_lines_and_buckets(tmp_path: Path) -> None:
    package = read_package(write_package(tmp_path, build(*THREE_ARMS)))
    details = package_details(package, ["CCCCC", "AAAAA"])
    assert details["dataset_ids"] == ["AAAAA", "CCCCC"]
    assert details["spectral_lines"] == ["Fe I (630.15 nm)", "Na I D2 (589.0 nm)"]
    assert details["buckets"] == ["data"]
    with pytest.raises(PackageRefused, match="'ZZZZZ' is not in the input package"):
        package_details(package, ["ZZZZZ"])


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="cannot be written"):
        write_package(tmp_path / "file" / "op", build(row()))
