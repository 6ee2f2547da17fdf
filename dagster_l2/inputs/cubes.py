"""Analysis-ready cubes of staged frames: one FITS file a dataset, ``[stokes, wavelength, slit, step]``.

Bounded in memory whatever the size: frames are streamed one by one into a scratch file and turned round
from there, block by block. Which frames there are, and whether they are right, is decided before.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dagster_l2.base.errors import L2Error
from dagster_l2.base.files import fsync_file, fsync_folder, safe_name, sha256, step, write_json
from dagster_l2.inputs.cube_file import STOKES, append_parts, cube_header, fill_levels
from dagster_l2.inputs.frames import CUBES_FOLDER
from dagster_l2.inputs.level1 import Array, NoWorld, World, read_image
from dagster_l2.inputs.pictures import continuum_of

CUBES_FILE = "cubes.json"
MEMORY_BYTES = 256 * 2**20
_WORK_FOLDER = ".work"
_VERSION = 1
_PIXEL = np.dtype(">f4")  # as FITS keeps it, so that nothing is turned round twice

Row = Mapping[str, Any]


class CubeRefused(L2Error):
    """The frames of a dataset make no cube."""


@dataclass(frozen=True)
class Cube:
    """One cube, as ``cubes.json`` names it.

    Parameters
    ----------
    frames
        Changes with the frames, by their hashes, and with this module.
    shape
        ``[stokes, wavelength, slit, step]``.
    continuum
        Median continuum intensity, in ``unit``.
    noise
        By Stokes parameter, as a fraction of the continuum: 1.4826 times the median absolute difference of
        neighbouring continuum wavelengths, over the square root of 2.
    absent
        Places in the raster whose frame the store lost or removed; they are NaN.
    """

    file: str
    arm: str | None
    dataset_id: str
    frames: str
    shape: tuple[int, ...]
    stokes: str
    unit: str
    wavelength_min_nm: float
    wavelength_max_nm: float
    continuum: float
    noise: dict[str, float | None]
    absent: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class _Raster:
    """The frames of one dataset by their place."""

    rows: Mapping[tuple[int, int, str], Row]
    steps: Sequence[tuple[int, int]]
    stokes: str
    header: Any
    world: World

    @property
    def shape(self) -> tuple[int, int, int, int]:
        _, slit, wavelengths = self.world.sizes
        return len(self.stokes), wavelengths, slit, len(self.steps)

    @property
    def absent(self) -> int:
        return len(self.steps) * len(self.stokes) - len(self.rows)


def cube_bytes(folder: Path, package: Row, rows: Sequence[Row]) -> int:
    """What the cubes of an OP that are not there yet will take, with the largest scratch file, about."""
    files = []
    for dataset, mine in _datasets(package, rows):
        if _there(folder, _name(dataset), _digest(mine)) is None:
            stokes, *plane = _raster(folder, mine).shape
            files.append((stokes, 4 * int(np.prod(plane))))
    return sum(count * size for count, size in files) + max((size for _, size in files), default=0)


def make_cubes(
    folder: Path, package: Row, rows: Sequence[Row], *, memory_bytes: int = MEMORY_BYTES
) -> list[Cube]:
    """Write the cube of every dataset with staged frames; one that is there is left alone.

    A cube has its name only when it is whole; what a killed run left is removed by the next. Only one at a
    time may work in a folder.

    Parameters
    ----------
    folder
        The input package's; the cubes come into its ``cubes``.
    rows
        Staged frames: ``dataset_id, path, sha256, stokes, map, step, begins_at``.
    memory_bytes
        For pixels, at most; one frame and one line of the raster must fit.

    Raises
    ------
    CubeRefused
        When frames of a dataset do not go together, or were changed since they were checked.
    """
    out = folder / CUBES_FOLDER
    work = out / _WORK_FOLDER
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    cubes = []
    for dataset, mine in _datasets(package, rows):
        frames = _digest(mine)
        cube = _there(folder, _name(dataset), frames)
        if cube is None:
            try:
                cube = _make(folder, work, package, dataset, mine, frames, memory_bytes)
            except NoWorld as error:
                raise CubeRefused(
                    f"The frames of dataset {dataset['dataset_id']} make no cube ({error}); stage them again."
                ) from None
        cubes.append(cube)
        others = [one for one in read_cubes(folder) if one.file not in {cube.file for cube in cubes}]
        _write_list(folder, [*cubes, *others])
    _write_list(folder, cubes)
    for path in set(out.glob("*.fits")) - {out / cube.file for cube in cubes}:
        path.unlink()
    work.rmdir()
    return cubes


def read_cubes(folder: Path) -> list[Cube]:
    """The cubes in an input package."""
    try:
        content = json.loads((folder / CUBES_FOLDER / CUBES_FILE).read_text(encoding="utf-8"))
        return [Cube(**{**one, "shape": tuple(one["shape"])}) for one in content]
    except (OSError, ValueError, TypeError, KeyError):
        return []


def _write_list(folder: Path, cubes: Sequence[Cube]) -> None:
    if read_cubes(folder) != list(cubes):
        write_json(folder / CUBES_FOLDER / CUBES_FILE, [asdict(cube) for cube in cubes])


def _datasets(package: Row, rows: Sequence[Row]) -> Iterator[tuple[Row, list[Row]]]:
    by_dataset: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_dataset[row["dataset_id"]].append(row)
    for group in package["groups"]:
        for dataset in group["datasets"]:
            if by_dataset[dataset["dataset_id"]]:
                yield {**dataset, "arm": group["arm"]}, by_dataset[dataset["dataset_id"]]


def _name(dataset: Row) -> str:
    return f"cube_{safe_name(dataset['dataset_id'])}.fits"


def _digest(rows: Sequence[Row]) -> str:
    text = json.dumps([_VERSION, sorted((row["object_key"], row["sha256"]) for row in rows)])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _there(folder: Path, name: str, frames: str) -> Cube | None:
    path = folder / CUBES_FOLDER / name
    for cube in read_cubes(folder):
        if cube.file == name and cube.frames == frames and path.is_file():
            return cube if path.stat().st_size == cube.bytes else None
    return None


def _raster(folder: Path, rows: Sequence[Row]) -> _Raster:
    places = {(row["map"], row["step"], row["stokes"]): row for row in rows}
    steps = sorted({(raster, number) for raster, number, _ in places})
    seen = {stokes for _, _, stokes in places}
    first = min(places, key=lambda place: (place[:2], STOKES.index(place[2])))
    header, _ = _frame(folder, places[first])
    stokes = "".join(one for one in STOKES if one in seen)
    if "I" not in stokes:
        raise NoWorld("there is no frame of the intensity")
    return _Raster(places, steps, stokes, header, World.of(header))


def _frame(folder: Path, row: Row) -> tuple[Any, Array]:
    try:
        return read_image(folder / row["path"])
    except OSError as error:
        if error.errno is not None and not isinstance(error, FileNotFoundError):
            raise
        raise NoWorld(f"{row['object_key']} is gone or damaged") from None


def _make(
    folder: Path, work: Path, package: Row, dataset: Row, rows: Sequence[Row], frames: str, memory_bytes: int
) -> Cube:
    from astropy.io import fits

    raster = _raster(folder, rows)
    _, wavelengths, slit, steps = raster.shape
    target, scratch = work / _name(dataset), work / "plane"
    header = cube_header(raster.header, raster.world, raster.shape, package, dataset)
    step(f"write {target.name}")
    stream = fits.StreamingHDU(target, header)
    continuum = np.full((slit, steps), np.nan, np.float32)
    mask = np.ones(wavelengths, bool)
    worlds: dict[int, World] = {}
    noise: dict[str, float | None] = {}
    try:
        for stokes in raster.stokes:
            step(f"plane {stokes} of {target.name}")
            spectrum = _stream_plane(folder, raster, stokes, scratch, worlds)
            plane = np.memmap(scratch, _PIXEL, "r", shape=(steps, wavelengths, slit))
            if stokes == "I":
                mask = continuum_of(spectrum)
                for number in range(steps):
                    continuum[:, number] = plane[number][mask].mean(axis=0)
            noise[stokes] = _noise(plane, mask)
            for block in _turned(plane, memory_bytes):
                stream.write(block)
            del plane
    finally:
        stream.close()
        scratch.unlink(missing_ok=True)
    level = float(np.nanmedian(continuum))
    relative = {name: None if value is None else value / level for name, value in noise.items()}
    unit, nm = str(raster.header.get("BUNIT") or "ct"), raster.world.wavelengths_nm()
    append_parts(target, unit, nm, continuum, _places(raster, worlds))
    fill_levels(target, level, relative)
    step(f"fsync {target.name}")
    fsync_file(target)
    cube = Cube(
        file=target.name,
        arm=dataset["arm"],
        dataset_id=dataset["dataset_id"],
        frames=frames,
        shape=raster.shape,
        stokes=raster.stokes,
        unit=unit,
        wavelength_min_nm=float(nm.min()),
        wavelength_max_nm=float(nm.max()),
        continuum=level,
        noise=relative,
        absent=raster.absent,
        bytes=target.stat().st_size,
        sha256=sha256(target),
    )
    step(f"rename {target.name}")
    target.replace(folder / CUBES_FOLDER / target.name)
    fsync_folder(folder / CUBES_FOLDER)
    return cube


def _stream_plane(
    folder: Path, raster: _Raster, stokes: str, scratch: Path, worlds: dict[int, World]
) -> Array:
    """Write all frames of a Stokes parameter, one after the other; gives their mean spectrum."""
    _, wavelengths, slit, _ = raster.shape
    nothing = np.full((wavelengths, slit), np.nan, _PIXEL)
    total, count = np.zeros(wavelengths), 0
    with scratch.open("wb") as file:
        for number, (map_, step_) in enumerate(raster.steps):
            row = raster.rows.get((map_, step_, stokes))
            if row is None:
                file.write(nothing.tobytes())
                continue
            header, plane = _frame(folder, row)
            if plane.shape != (wavelengths, slit):
                raise NoWorld(f"{row['object_key']} is of another size")
            worlds.setdefault(number, World.of(header))
            total, count = total + np.nanmean(plane, axis=1), count + 1
            file.write(plane.astype(_PIXEL).tobytes())
    return total / max(1, count)


def _noise(plane: Array, mask: Array) -> float | None:
    """Of the median step, in counts; None where no two continuum wavelengths are neighbours."""
    pairs = np.flatnonzero(mask[:-1] & mask[1:])
    if not pairs.size:
        return None
    values = []
    for frame in plane:
        apart = frame[pairs + 1].astype(np.float64) - frame[pairs]
        if np.isfinite(apart).any():
            values.append(1.4826 * np.nanmedian(np.abs(apart - np.nanmedian(apart))) / np.sqrt(2))
    return float(np.median(values)) if values else None


def _turned(plane: Array, memory_bytes: int) -> Iterator[Array]:
    """``[step, wavelength, slit]`` as ``[wavelength, slit, step]``, some wavelengths at a time."""
    steps, wavelengths, slit = plane.shape
    # A block is there twice: as it is read and as it is written.
    at_once = max(1, memory_bytes // (2 * _PIXEL.itemsize * steps * slit))
    for first in range(0, wavelengths, at_once):
        block = np.array(plane[:, first : first + at_once])
        yield np.ascontiguousarray(block.transpose(1, 2, 0))


def _places(raster: _Raster, worlds: Mapping[int, World]) -> list[dict[str, Any]]:
    """Time and place of each step, by its first frame."""
    out = []
    for number, (map_, step_) in enumerate(raster.steps):
        found = (raster.rows.get((map_, step_, one)) for one in raster.stokes)
        row = next(one for one in found if one is not None)
        x, y = worlds[number].along_slit()
        place = {"map": map_, "step": step_, "begins_at": row["begins_at"]}
        out.append({**place, "x": float(x.mean()), "y": float(y.mean())})
    return out
