"""Cubes of staged frames: each pixel where it belongs, axes and levels right, bounded, gone on with."""

from __future__ import annotations

import tracemalloc
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from dagster_l2.base.files import sha256, watch_steps
from dagster_l2.inputs import CubeRefused, cube_bytes, make_cubes, read_cubes
from tests.inputs.frame_kit import CONTINUUM, RANGE_NM, SLIT, WAVELENGTHS, frame_bytes, header, pixels

OP = "eid_1_1_opAbcdef_R001.80000.13000000"
START = datetime(2025, 3, 1, 20, 0, 0)
STEPS = 10
ABSENT = ("V", 7)
PACKAGE: dict[str, Any] = {
    "op_id": OP,
    "proposal_id": "pid_1_1",
    "instrument_program_id": "id.1.1",
    "groups": [
        {
            "arm": "Fe I (630.15 nm)",
            "datasets": [{"dataset_id": "AAAAA", "spectral_lines": ["Fe I (630.15 nm)", "Fe I (630.25 nm)"]}],
        }
    ],
}


def write_frame(folder: Path, stokes: str, step: int, data: Any = None) -> dict[str, Any]:
    begins_at = START + timedelta(seconds=step)
    said = header(op_id=OP, dataset_id="AAAAA", stokes=stokes, step=step, begins_at=begins_at, steps=STEPS)
    path = folder / "frames" / "AAAAA" / f"{stokes}{step}.fits"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(frame_bytes(said, data))
    return {
        "object_key": path.name,
        "dataset_id": "AAAAA",
        "path": str(path.relative_to(folder)),
        "sha256": sha256(path),
        "stokes": stokes,
        "map": 1,
        "step": step,
        "begins_at": begins_at.isoformat(),
    }


def write_frames(folder: Path) -> list[dict[str, Any]]:
    places = [(stokes, step) for step in range(1, STEPS + 1) for stokes in "IQUV"]
    return [write_frame(folder, *place) for place in places if place != ABSENT]


@pytest.fixture
def rows(tmp_path: Path) -> list[dict[str, Any]]:
    return write_frames(tmp_path)


@pytest.fixture
def steps_seen() -> Iterator[list[str]]:
    seen: list[str] = []
    watch_steps(seen.append)
    yield seen
    watch_steps(None)


@pytest.mark.parametrize("memory_bytes", [1, 2 * 4 * STEPS * SLIT * 7, 2**20])
def test_each_pixel_is_where_it_belongs(
    tmp_path: Path, rows: list[dict[str, Any]], memory_bytes: int
) -> None:
    (cube,) = make_cubes(tmp_path, PACKAGE, rows[::-1], memory_bytes=memory_bytes)
    assert cube.shape == (4, WAVELENGTHS, SLIT, STEPS)
    assert (cube.arm, cube.stokes, cube.absent) == ("Fe I (630.15 nm)", "IQUV", 1)
    path = tmp_path / "cubes" / cube.file
    assert (cube.sha256, cube.bytes) == (sha256(path), path.stat().st_size)
    data = fits.getdata(path)
    assert data.shape == cube.shape
    for number, stokes in enumerate("IQUV"):
        for step in range(1, STEPS + 1):
            plane = data[number, :, :, step - 1]
            if (stokes, step) == ABSENT:
                assert np.isnan(plane).all()
            else:
                np.testing.assert_array_equal(plane, pixels(stokes, step)[0])


def test_its_axes_and_levels_are_right(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    (cube,) = make_cubes(tmp_path, PACKAGE, rows)
    with fits.open(tmp_path / "cubes" / cube.file) as hdus:
        hdus.verify("exception")
        head = hdus[0].header
        nm, light, steps = (hdus[name].data.copy() for name in ("WAVELENGTH", "CONTINUUM", "STEPS"))
    np.testing.assert_allclose(nm, np.linspace(*RANGE_NM, WAVELENGTHS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # astropy says that it takes arcsec as degrees
        wcs = WCS(head)
    # Pixels in the order of FITS: step, slit, wavelength, stokes.
    x, y, wave, stokes = wcs.wcs_pix2world([[STEPS - 1, SLIT - 1, 3, 2]], 0)[0]
    assert wave * 1e9 == pytest.approx(nm[3])
    assert stokes == 3  # U
    assert x * 3600 == pytest.approx(steps["X"][-1], abs=0.01)
    assert y * 3600 == pytest.approx(40 + 0.5 * (SLIT - 1) / 2, abs=0.01)
    np.testing.assert_allclose(np.diff(steps["X"]), 0.2)
    assert steps["STEP"].tolist() == list(range(1, STEPS + 1))
    assert steps["DATE_BEG"][0] == "2025-03-01T20:00:01"
    assert light.shape == (SLIT, STEPS)
    assert head["BUNIT"] == cube.unit == "ct"
    assert head["CONTLEV"] == pytest.approx(cube.continuum) == pytest.approx(CONTINUUM, rel=0.02)
    for name in "QU":  # made with noise of 2 counts
        assert head[f"NOISE_{name}"] == pytest.approx(2 / CONTINUUM, rel=0.15)
        assert cube.noise[name] == pytest.approx(head[f"NOISE_{name}"])
    assert (head["OBSPR_ID"], head["DSETID"], head["L2ARM"]) == (OP, "AAAAA", "Fe I (630.15 nm)")
    assert [head["SPECLN01"], head["SPECLN02"]] == ["Fe I (630.15 nm)", "Fe I (630.25 nm)"]


def test_memory_is_bounded_whatever_the_size(tmp_path: Path) -> None:
    # 40 frames of 1.3 MB: the cube is 51 MB, and no more than some frames are ever held.
    data = np.full((1, 640, 500), 1000.0, np.float32)
    rows = [write_frame(tmp_path, stokes, step, data) for step in range(1, 11) for stokes in "IQUV"]
    make_cubes(tmp_path, PACKAGE, rows[:4])  # what is loaded once
    assert cube_bytes(tmp_path, PACKAGE, rows) == 5 * 10 * data.nbytes
    tracemalloc.start()
    try:
        (cube,) = make_cubes(tmp_path, PACKAGE, rows, memory_bytes=2**20)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert cube.bytes > 40 * data.nbytes
    assert most < 12 * data.nbytes
    assert cube_bytes(tmp_path, PACKAGE, rows) == 0


def test_one_that_is_there_is_left_alone_and_one_of_other_frames_is_not(
    tmp_path: Path, rows: list[dict[str, Any]], steps_seen: list[str]
) -> None:
    (cube,) = make_cubes(tmp_path, PACKAGE, rows)
    path = tmp_path / "cubes" / cube.file
    before = path.stat().st_mtime_ns
    del steps_seen[:]
    assert make_cubes(tmp_path, PACKAGE, rows) == [cube]
    assert steps_seen == []
    assert path.stat().st_mtime_ns == before
    (shorter,) = make_cubes(tmp_path, PACKAGE, rows[:-4])
    assert shorter.shape == (4, WAVELENGTHS, SLIT, STEPS - 1)
    path.write_bytes(path.read_bytes()[:-1])  # damaged behind our back
    assert make_cubes(tmp_path, PACKAGE, rows[:-4]) == [shorter]
    assert sha256(path) == shorter.sha256


def test_stopped_at_any_step_the_next_run_ends_with_the_same_bytes(
    tmp_path: Path, steps_seen: list[str]
) -> None:
    rows = write_frames(tmp_path / "whole")
    (whole,) = make_cubes(tmp_path / "whole", PACKAGE, rows)
    assert len(steps_seen) == len(set(steps_seen)) > 8
    for number, at in enumerate(list(steps_seen)):
        folder = tmp_path / str(number)
        (folder / "frames").parent.mkdir()
        (folder / "frames").symlink_to(tmp_path / "whole" / "frames")

        def die(name: str, at: str = at) -> None:
            if name == at:
                raise KeyboardInterrupt

        watch_steps(die)
        with pytest.raises(KeyboardInterrupt):
            make_cubes(folder, PACKAGE, rows)
        watch_steps(None)
        assert make_cubes(folder, PACKAGE, rows) == [whole] == read_cubes(folder)
        assert sorted(path.name for path in (folder / "cubes").iterdir()) == sorted(
            ["cubes.json", whole.file]
        )


def test_frames_that_do_not_go_together_make_no_cube(tmp_path: Path, rows: list[dict[str, Any]]) -> None:
    with pytest.raises(CubeRefused, match="no frame of the intensity"):
        make_cubes(tmp_path, PACKAGE, [row for row in rows if row["stokes"] != "I"])
    (tmp_path / rows[5]["path"]).unlink()
    with pytest.raises(CubeRefused, match=f"{rows[5]['object_key']} is gone"):
        make_cubes(tmp_path, PACKAGE, rows)
    write_frame(tmp_path, "Q", 2, np.ones((1, 5, 5), np.float32))
    with pytest.raises(CubeRefused, match=r"Q2\.fits is of another size"):
        make_cubes(tmp_path, PACKAGE, rows)
    assert not list((tmp_path / "cubes").glob("*.fits"))
