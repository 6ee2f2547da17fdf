"""The FITS file of a cube: its header, its axes, and the small parts that follow the pixels.

How the pixels come into it, bounded in memory, is in ``cubes``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dagster_l2.inputs.level1 import Array, World

AXES = ("stokes", "wavelength", "slit", "step")
STOKES = "IQUV"
_KEPT = ("DATE-BEG", "TIMESYS", "TELESCOP", "INSTRUME", "SOLARRAD", "VSPARMID", "VSPWID")

Row = Mapping[str, Any]


def cube_header(
    header: Any, world: World, shape: tuple[int, int, int, int], package: Row, dataset: Row
) -> Any:
    """The header of a cube: its axes, units, and what it was made of; levels follow when they are known."""
    from astropy.io import fits

    out = fits.Header()
    out["SIMPLE"], out["BITPIX"], out["NAXIS"] = True, -32, len(shape)
    for n, size in enumerate(reversed(shape), start=1):
        out[f"NAXIS{n}"] = (size, AXES[-n])
    out["EXTEND"] = True
    out["BUNIT"] = (str(header.get("BUNIT") or "ct"), "as in the level-1 frames")
    out["CONTLEV"] = (0.0, "[BUNIT] median continuum intensity")
    for stokes in STOKES:
        out[f"NOISE_{stokes}"] = (0.0, f"noise of Stokes {stokes} / continuum; -1: unknown")
    _write_world(out, world)
    out["WCSNAME"] = "Helioprojective-cartesian"
    for key in _KEPT:
        if header.get(key) is not None:
            out[key] = header[key]
    out["OBSPR_ID"], out["PROP_ID"] = package["op_id"], package["proposal_id"]
    out["IP_ID"], out["DSETID"] = package["instrument_program_id"], dataset["dataset_id"]
    out["L2ARM"] = (str(dataset["arm"] or ""), "arm, by its first line")
    for n, line in enumerate(dataset["spectral_lines"], start=1):
        out[f"SPECLN{n:02d}"] = line
    return out


def _write_world(out: Any, world: World) -> None:
    """Linear over all steps of the first raster; each step's own place is in the extension STEPS."""
    kinds = ("HPLN-TAN", "HPLT-TAN", "AWAV" if world.is_air else "WAVE", "STOKES")
    units = ("arcsec", "arcsec", "nm", "")
    for n, (kind, unit) in enumerate(zip(kinds, units, strict=True), start=1):
        spatial = n < 4
        out[f"CTYPE{n}"], out[f"CUNIT{n}"] = kind, unit
        out[f"CRPIX{n}"] = world.pixel[n - 1] if spatial else 1.0
        out[f"CRVAL{n}"] = world.value[n - 1] if spatial else 1.0
        out[f"CDELT{n}"] = world.delta[n - 1] if spatial else 1.0
    for i in range(3):
        for j in range(3):
            out[f"PC{i + 1}_{j + 1}"] = float(world.turn[i, j])


def append_parts(
    target: Path, unit: str, wavelengths_nm: Array, continuum: Array, steps: Sequence[Row]
) -> None:
    """Append wavelengths, the map of the continuum, and time and place of each step.

    Parameters
    ----------
    steps
        With ``map, step, begins_at``, and the middle of the slit, ``x`` and ``y`` in arcsec.
    """
    from astropy.io import fits

    axis = fits.ImageHDU(wavelengths_nm, name="WAVELENGTH")
    axis.header["BUNIT"] = "nm"
    light = fits.ImageHDU(continuum, name="CONTINUUM")
    light.header["BUNIT"] = unit
    columns = [
        fits.Column("MAP", "J", array=[row["map"] for row in steps]),
        fits.Column("STEP", "J", array=[row["step"] for row in steps]),
        fits.Column("DATE_BEG", "26A", array=[str(row["begins_at"]) for row in steps]),
        fits.Column("X", "D", unit="arcsec", array=[row["x"] for row in steps]),
        fits.Column("Y", "D", unit="arcsec", array=[row["y"] for row in steps]),
    ]
    with fits.open(target, mode="append", memmap=True) as hdus:
        hdus.extend([axis, light, fits.BinTableHDU.from_columns(columns, name="STEPS")])


def fill_levels(target: Path, level: float, noise: Mapping[str, float | None]) -> None:
    """Put the levels into the cards that were left for them; nothing else of the file is written."""
    from astropy.io import fits

    with fits.open(target, mode="update", memmap=True) as hdus:
        header = hdus[0].header
        header["CONTLEV"] = level
        for stokes, value in noise.items():
            header[f"NOISE_{stokes}"] = -1.0 if value is None else value
