"""One ViSP level-1 file: what its header says, where it lies on the sun and in the spectrum, its pixels.

A file that can't be read is a fact to be told of, not an error here. Whether what it says is right is judged
in ``checks``.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

Array = np.ndarray[Any, np.dtype[Any]]

HEADER_SCHEMA: dict[str, pl.DataType] = {
    "damage": pl.String(),
    "said_dataset_id": pl.String(),
    "said_op_id": pl.String(),
    "said_program_id": pl.String(),
    "stokes": pl.String(),
    "arm_id": pl.Int64(),
    "map": pl.Int64(),
    "step": pl.Int64(),
    "begins_at": pl.Datetime("us"),
    "wavelength_min_nm": pl.Float64(),
    "wavelength_max_nm": pl.Float64(),
    "shape": pl.String(),
    "has_wcs": pl.Boolean(),
}
"""What `read_header` gives; null where the header does not say it."""

_NANOMETRE = -9  # WAVEUNIT is the power of ten of the unit
_KEYS = {
    "said_dataset_id": "DSETID",
    "said_op_id": "OBSPR_ID",
    "said_program_id": "IP_ID",
    "stokes": "STOKES",
}
_NUMBERS = {"arm_id": "VSPARMID", "map": "VSPMAP", "step": "VSPSTP"}


class NoWorld(ValueError):
    """A header without usable world coordinates."""


@dataclass(frozen=True)
class World:
    """Where the pixels of a frame lie; linear, which a field of view of arc minutes allows.

    Parameters
    ----------
    axes
        FITS axis number of longitude (across the slit), latitude (along it) and wavelength.
    sizes
        Pixels of these three.
    pixel, value, delta
        Reference pixels (from 1), their world coordinates and the steps, in arcsec, arcsec, nm.
    turn
        The PC matrix among them.
    """

    axes: tuple[int, int, int]
    sizes: tuple[int, int, int]
    pixel: tuple[float, float, float]
    value: tuple[float, float, float]
    delta: tuple[float, float, float]
    turn: Array
    is_air: bool

    @classmethod
    def of(cls, header: Mapping[str, Any]) -> World:
        """Read the world coordinates of a header.

        Raises
        ------
        NoWorld
            When an axis is missing, or one of its numbers is.
        """
        kinds = {_kind(str(header.get(f"CTYPE{n}", ""))): n for n in (1, 2, 3)}
        try:
            axes = (kinds["HPLN"], kinds["HPLT"], kinds["WAVE"])
            scale = [
                _factor(str(header[f"CUNIT{n}"]).strip(), unit)
                for n, unit in zip(axes, ("arcsec", "arcsec", "nm"), strict=True)
            ]
            world = cls(
                axes=axes,
                sizes=_three(int(header.get(f"ZNAXIS{n}") or header[f"NAXIS{n}"]) for n in axes),
                pixel=_three(float(header[f"CRPIX{n}"]) for n in axes),
                value=_three(float(header[f"CRVAL{n}"]) * by for n, by in zip(axes, scale, strict=True)),
                delta=_three(float(header[f"CDELT{n}"]) * by for n, by in zip(axes, scale, strict=True)),
                turn=np.array([[float(header.get(f"PC{i}_{j}", i == j)) for j in axes] for i in axes]),
                is_air=str(header[f"CTYPE{axes[2]}"]).startswith("AWAV"),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise NoWorld(str(error)) from None
        numbers = [*world.pixel, *world.value, *world.delta, *world.turn.ravel()]
        if not all(map(math.isfinite, numbers)) or 0.0 in world.delta:
            raise NoWorld("a number is missing")
        return world

    def wavelengths_nm(self) -> Array:
        """Of the pixels along the spectrum."""
        _, _, count = self.sizes
        away = np.arange(1, count + 1) - self.pixel[2]
        return np.asarray(self.value[2] + away * self.delta[2] * self.turn[2, 2])

    def along_slit(self) -> tuple[Array, Array]:
        """Longitude and latitude of the slit's pixels, in arcsec from the sun's centre."""
        off = np.arange(1, self.sizes[1] + 1) - self.pixel[1]
        step = 1.0 - self.pixel[0]
        x, y = (
            self.value[k] + self.delta[k] * (self.turn[k, 0] * step + self.turn[k, 1] * off) for k in (0, 1)
        )
        return x, y


@functools.cache
def _factor(unit: str, wanted: str) -> float:
    """From one unit to another.

    Raises
    ------
    ValueError
        When it is no such unit.
    """
    from astropy import units

    return float(units.Unit(unit).to(wanted))


def _kind(ctype: str) -> str:
    return "WAVE" if ctype[:4] in ("AWAV", "WAVE") else ctype[:4]


def _three(values: Any) -> tuple[Any, Any, Any]:
    first, second, third = values
    return first, second, third


def read_header(path: Path) -> dict[str, Any]:
    """What the header of a frame says, with the keys of `HEADER_SCHEMA`.

    ``damage`` says why it can't be used; the sums that a FITS file keeps of itself are compared, too.

    Raises
    ------
    OSError
        When the disk refuses.
    """
    out: dict[str, Any] = dict.fromkeys(HEADER_SCHEMA)
    try:
        header = _checked_header(path, out)
    except OSError as error:
        if error.errno is not None:
            raise
        return out | {"damage": f"it is no FITS file ({_short(error)})"}
    except Exception as error:  # noqa: BLE001 - whatever a damaged file does to the reader
        return out | {"damage": f"it can't be read ({_short(error)})"}
    if header is None:
        return out
    out |= {name: _text(header.get(key)) for name, key in _KEYS.items()}
    out |= {name: _whole(header.get(key)) for name, key in _NUMBERS.items()}
    out["begins_at"] = _moment(header.get("DATE-BEG"))
    factor = 10.0 ** (_whole(header.get("WAVEUNIT"), _NANOMETRE) - _NANOMETRE)
    for name, key in (("wavelength_min_nm", "WAVEMIN"), ("wavelength_max_nm", "WAVEMAX")):
        number = _number(header.get(key))
        out[name] = None if number is None else number * factor
    try:
        world = World.of(header)
        out["shape"], out["has_wcs"] = "×".join(map(str, world.sizes[1:])), True
    except NoWorld:
        out["has_wcs"] = False
    return out


def _checked_header(path: Path, out: dict[str, Any]) -> Any:
    from astropy.io import fits

    with fits.open(path, disable_image_compression=True, memmap=False) as hdus:
        hdu = _image(hdus)
        if hdu is None:
            out["damage"] = "it holds no image"
            return None
        if hdu.verify_datasum() == 0:
            out["damage"] = "its pixels are not those that its DATASUM is of"
            return None
        return hdu.header


def read_image(path: Path) -> tuple[Any, Array]:
    """Header and pixels ``[wavelength, slit]`` of a frame that was checked.

    Raises
    ------
    OSError, NoWorld
        When it was changed since.
    """
    from astropy.io import fits

    with fits.open(path, memmap=False) as hdus:
        hdu = _image(hdus)
        if hdu is None:
            raise NoWorld("there is no image")
        header, data = hdu.header, hdu.data
    lon, lat, wave = (data.ndim - n for n in World.of(header).axes)
    plane: Array = np.moveaxis(data, (lon, wave, lat), (0, 1, 2))[0]
    return header, plane.astype(np.float32, copy=False)


def _image(hdus: Any) -> Any:
    """The first part with pixels, compressed or not."""
    for hdu in hdus:
        if hdu.header.get("ZNAXIS", hdu.header.get("NAXIS", 0)) >= 2:
            return hdu
    return None


def _text(value: Any) -> str | None:
    return str(value).strip() or None if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def _whole(value: Any, otherwise: Any = None) -> Any:
    number = _number(value)
    return otherwise if number is None else int(number)


def _moment(value: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(value)).replace(tzinfo=None)
    except ValueError:
        return None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
