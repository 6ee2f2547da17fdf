"""Small level-1 frames with what the check and the cubes read of them, made without the simulator."""

from __future__ import annotations

import io
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

import numpy as np
from astropy.io import fits

SLIT, WAVELENGTHS = 12, 20
RANGE_NM = (629.9, 630.5)
CONTINUUM = 1000.0


def header(
    *, op_id: str, dataset_id: str, stokes: str, step: int, begins_at: datetime, steps: int = 10
) -> dict[str, Any]:
    """A header as the observatory's, as far as it is read."""
    low, high = RANGE_NM
    return {
        "EXTNAME": "OBSERVATION",
        "BUNIT": "ct",
        "DSETID": dataset_id,
        "OBSPR_ID": op_id,
        "IP_ID": "id.1.1",
        "PROP_ID": "pid_1_1",
        "STOKES": stokes,
        "VSPARMID": 1,
        "VSPMAP": 1,
        "VSPSTP": step,
        "VSPNSTP": steps,
        "DATE-BEG": begins_at.isoformat(timespec="microseconds"),
        "WAVEMIN": low,
        "WAVEMAX": high,
        "WAVEUNIT": -9,
        "SOLARRAD": 959.63,
        **_axis(1, "HPLT-TAN", "arcsec", 0.5, (SLIT + 1) / 2, 40.0),
        **_axis(2, "AWAV", "nm", (high - low) / (WAVELENGTHS - 1), (WAVELENGTHS + 1) / 2, (low + high) / 2),
        **_axis(3, "HPLN-TAN", "arcsec", 0.2, (steps + 1) / 2 - (step - 1), -300.0),
    }


def _axis(n: int, kind: str, unit: str, delta: float, pixel: float, value: float) -> dict[str, Any]:
    return {f"CTYPE{n}": kind, f"CUNIT{n}": unit, f"CDELT{n}": delta, f"CRPIX{n}": pixel, f"CRVAL{n}": value}


def pixels(stokes: str, step: int) -> Any:
    """Counts ``[1, wavelength, slit]``: a line in I and V, a little noise."""
    wave = np.linspace(-1, 1, WAVELENGTHS)[:, None]
    along = np.arange(SLIT)[None, :]
    noise = np.random.default_rng([ord(stokes), step]).normal(0, 2.0, (WAVELENGTHS, SLIT))
    light = {"I": 1 - 0.7 * np.exp(-((wave / 0.3) ** 2)), "V": 0.1 * wave * np.exp(-((wave / 0.3) ** 2))}
    plane = CONTINUUM * light.get(stokes, 0 * wave) + 0.01 * (step + along) + noise
    return plane[None].astype(np.float32)


def frame_bytes(said: Mapping[str, Any], data: Any = None) -> bytes:
    """The file of a frame."""
    return _frame_bytes(tuple(said.items())) if data is None else _file(said, data)


@cache
def _frame_bytes(said: tuple[tuple[str, Any], ...]) -> bytes:
    content = dict(said)
    return _file(content, pixels(content["STOKES"], content["VSPSTP"] or 0))


def _file(said: Mapping[str, Any], data: Any) -> bytes:
    hdu = fits.ImageHDU(data)
    hdu.header.update({name: value for name, value in said.items() if value is not None})
    hdu.add_datasum(when="made by a test")
    buffer = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(buffer)
    return buffer.getvalue()
