"""Headers of staged frames against the OP: each thing that can be wrong is found, with the frame and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from dagster_l2.inputs import Frame, check_frames
from dagster_l2.inputs.checks import not_listed
from dagster_l2.inputs.level1 import read_header
from tests.inputs.frame_kit import RANGE_NM, frame_bytes, header

OP = "eid_1_1_opAbcdef_R001.80000.13000000"
START = datetime(2025, 3, 1, 20, 0, 0)
STEPS = 3
LAST = 4 * STEPS - 1


def dataset(name: str, **changes: Any) -> dict[str, Any]:
    return {
        "dataset_id": name,
        "frame_count": 4 * STEPS,
        "stokes": "IQUV",
        "wavelength_min_nm": RANGE_NM[0],
        "wavelength_max_nm": RANGE_NM[1],
    } | changes


def package(*datasets: dict[str, Any]) -> dict[str, Any]:
    return {"op_id": OP, "instrument_program_id": "id.1.1", "groups": [{"datasets": list(datasets)}]}


def said(number: int) -> dict[str, Any]:
    """Frame ``number``: the Stokes parameters of a step follow each other, a second apart."""
    step, which = divmod(number, 4)
    return header(
        op_id=OP,
        dataset_id="AAAAA",
        stokes="IQUV"[which],
        step=step + 1,
        begins_at=START + timedelta(seconds=number),
        steps=STEPS,
    )


def looked_at(
    folder: Path, changes: dict[int, dict[str, Any]], raw: dict[int, bytes] | None = None
) -> tuple[list[Frame], list[dict[str, Any]]]:
    """The list of the store, and what the headers of the files say."""
    frames, rows = [], []
    for number in range(4 * STEPS):
        key, path = f"p/AAAAA/{number}.fits", folder / f"{number}.fits"
        content = (raw or {}).get(number) or frame_bytes({**said(number), **changes.get(number, {})})
        path.write_bytes(content)
        moment = START + timedelta(seconds=number)
        frames.append(Frame("data", key, "AAAAA", moment, len(content), "AVAILABLE"))
        rows.append({"object_key": key, "dataset_id": "AAAAA", **read_header(path)})
    return frames, rows


def test_right_frames_pass_whatever_order_they_arrive_in(tmp_path: Path) -> None:
    frames, rows = looked_at(tmp_path, {})
    assert check_frames(package(dataset("AAAAA")), frames, rows[::-1]) == []


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"DSETID": "BBBBB"}, "header", "DSETID is 'BBBBB', not 'AAAAA'"),
        ({"OBSPR_ID": "another"}, "header", "OBSPR_ID is 'another'"),
        ({"IP_ID": "id.9.9"}, "header", "IP_ID is 'id.9.9', not 'id.1.1'"),
        ({"IP_ID": None}, "header", "IP_ID is None"),
        ({"STOKES": "X"}, "header", "STOKES is 'X'"),
        ({"VSPARMID": 2}, "header", "VSPARMID is 2, not 1"),
        ({"VSPSTP": None}, "header", "VSPSTP is missing"),
        ({"WAVEMIN": 853.9, "WAVEMAX": 854.5}, "wavelength", "853.90–854.50 nm, and its dataset 629.90"),
        ({"WAVEMIN": None}, "wavelength", "no range"),
        ({"CTYPE3": "LINEAR"}, "wcs", "no usable world coordinates"),
        ({"CUNIT2": "parrots"}, "wcs", "no usable world coordinates"),
        ({"CDELT1": None}, "wcs", "no usable world coordinates"),
        ({"DATE-BEG": "2025-03-01T20:05:00.000000"}, "time", "not 2025-03-01T20:00:05 as listed"),
        ({"DATE-BEG": "yesterday"}, "time", "DATE-BEG is missing or no time"),
        ({"VSPSTP": 1}, "twice", "is that of p/AAAAA/1.fits, too"),
        ({"DATE-BEG": "2025-03-01T20:00:00.000000"}, "time", "begins before step 1 of map 1"),
    ],
)
def test_one_wrong_header_is_found(tmp_path: Path, changes: dict[str, Any], kind: str, says: str) -> None:
    frames, rows = looked_at(tmp_path, {5: changes})
    (finding,) = check_frames(package(dataset("AAAAA")), frames, rows)
    assert (finding.kind, finding.object_key, finding.dataset_id) == (kind, "p/AAAAA/5.fits", "AAAAA")
    assert says in finding.message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"<html>not found</html>" * 400, "no FITS file"),
        (b"", "no FITS file"),
        (frame_bytes(said(5))[:2880], "no image"),
        (frame_bytes(said(5))[:-2000] + b"\x7f" * 2000, "DATASUM"),
        (frame_bytes(said(5))[:6000], "can't be read"),
    ],
    ids=["a page", "empty", "headless", "changed pixels", "cut in the header"],
)
def test_a_damaged_file_is_found(tmp_path: Path, content: bytes, says: str) -> None:
    if says == "no FITS file" and not content:
        content = b" "
    frames, rows = looked_at(tmp_path, {}, {5: content})
    (finding,) = check_frames(package(dataset("AAAAA")), frames, rows)
    assert (finding.kind, finding.object_key) == ("damaged", "p/AAAAA/5.fits")
    assert says in finding.message


def test_a_list_that_is_too_short_is_found_and_none_at_all_is_not(tmp_path: Path) -> None:
    frames, rows = looked_at(tmp_path, {})
    asked = package(dataset("AAAAA"), dataset("BBBBB"))
    assert check_frames(asked, frames, rows) == []
    assert not_listed(asked, frames) == ["BBBBB"]
    (finding,) = check_frames(asked, frames[:LAST], rows[:LAST])
    assert (finding.kind, finding.object_key, finding.message) == (
        "missing", None, "the store counts 12 frames and lists 11",
    )  # fmt: skip


@pytest.mark.parametrize("status", ["LOST", "REMOVED"])
def test_a_frame_that_is_listed_as_gone_is_not_missing_from_the_list(tmp_path: Path, status: str) -> None:
    frames, rows = looked_at(tmp_path, {})
    frames[LAST] = replace(frames[LAST], status=status)
    assert check_frames(package(dataset("AAAAA")), frames, rows[:LAST]) == []
    assert not_listed(package(dataset("AAAAA")), [frames[LAST]]) == []


def test_a_dataset_of_intensities_alone_has_no_other_stokes_parameter(tmp_path: Path) -> None:
    frames, rows = looked_at(tmp_path, {})
    wrong = check_frames(package(dataset("AAAAA", stokes="I")), frames, rows)
    assert {row["stokes"] for row in rows if row["object_key"] in {one.object_key for one in wrong}} == {
        "Q", "U", "V",
    }  # fmt: skip
