"""Small made-up products of the right layout, to play the scientist's part and to test the hand-over.

A pore in granulation, physically plausible and plainly marked: ``SYNTHET = T`` in every header. Not an
inversion, and nothing here reads real data.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dagster_l2.base.files import write_durably
from dagster_l2.products.layout import (
    FITTED_FILE,
    INVERSION_KEYWORD,
    MODEL_FILE,
    OBSERVED_FILE,
    OP_KEYWORD,
    QUANTITIES,
    SYNTHETIC_KEYWORD,
    header_text,
)

if TYPE_CHECKING:
    from astropy.io import fits

Array = np.ndarray[Any, np.dtype[Any]]

_NOISE = 1e-3  # of the continuum, as a ViSP map of moderate integration has it
_LIGHT_SPEED_CM_S = 2.998e10
_GAS_CONSTANT = 8.314e7  # erg / (mol K)
_MEAN_MOLAR_MASS = 1.3  # g / mol, neutral photosphere
_SURFACE_GRAVITY = 2.74e4  # cm / s2
_WAVELENGTH_IN_NAME = re.compile(r"\(([0-9.]+) nm\)")
_DEFAULT_WAVELENGTH_NM = 630.25


@dataclass(frozen=True, slots=True)
class SyntheticShape:
    """Lengths of the axes; ``wavelengths`` counts over all lines together, ``y`` the steps of the slit."""

    depth: int = 31
    wavelengths: int = 80
    y: int = 48
    x: int = 64


def write_products(
    folder: Path,
    *,
    op_id: str,
    inversion_id: str,
    lines: Sequence[str],
    seed: int,
    shape: SyntheticShape | None = None,
) -> Path:
    """Write the three product files into ``folder`` and return it.

    Parameters
    ----------
    lines
        Names such as ``Fe I (630.15 nm)``; each takes an equal part of the wavelength axis, and its place in
        this list, from 1, is its line id. The list stands in the headers as ``LINE1``, ``LINE2``, ….
    seed
        The same seed and arguments give the same data.

    Raises
    ------
    ValueError
        Without a line, or with more lines than wavelengths.
    """
    from astropy.io import fits  # half a second, which only those who write should pay

    shape = shape or SyntheticShape()
    if not lines or len(lines) > shape.wavelengths:
        raise ValueError(f"Synthetic products need 1 to {shape.wavelengths} lines, not {len(lines)}.")
    random = np.random.default_rng(seed)
    model = _atmosphere(shape, random)
    offsets, line_ids = _wavelength_axis(shape.wavelengths, len(lines))
    fitted = _profiles(model, offsets, [_wavelength_nm(lines[number - 1]) for number in line_ids])
    observed = fitted + random.normal(0.0, _NOISE, fitted.shape)

    header = fits.Header()
    header[SYNTHETIC_KEYWORD] = (True, "made up, not inverted from data")
    header[OP_KEYWORD] = header_text(op_id)
    header[INVERSION_KEYWORD] = header_text(inversion_id)
    for number, line in enumerate(lines, 1):
        header[f"LINE{number}"] = header_text(line)
    model_header = header.copy()
    for number, quantity in enumerate(QUANTITIES, 1):
        model_header[f"QTY{number}"] = (
            f"{quantity.name} [{quantity.unit}]" if quantity.unit else quantity.name
        )

    _write(folder / MODEL_FILE, model, model_header)
    for name, profiles in ((FITTED_FILE, fitted), (OBSERVED_FILE, observed)):
        _write(folder / name, profiles, header, offsets, line_ids)
    return folder


def _atmosphere(shape: SyntheticShape, random: np.random.Generator) -> Array:
    """The 11 quantities ``[quantity, depth, y, x]``, deepest layer first as SIR writes them."""
    rows, columns = np.mgrid[0 : shape.y, 0 : shape.x].astype(float)
    radius = 0.22 * min(shape.y, shape.x)
    distance = np.hypot(rows - 0.52 * shape.y, columns - 0.45 * shape.x)
    pore = 0.5 - 0.5 * np.tanh((distance - radius) / (0.36 * radius + 1.0))
    granules = _granulation(shape, random) * (1.0 - pore)

    log_tau = np.linspace(1.0, -3.0, shape.depth)[:, None, None]
    # The HSRA's run of temperature to about 2 %, cooler in the pore, granules fading with height.
    quiet = 6400.0 + 1250.0 * log_tau + 160.0 * log_tau**2 + 60.0 * np.maximum(log_tau, 0.0) ** 3
    fading = np.exp(-np.maximum(-log_tau, 0.0) / 1.2)
    temperature = np.maximum(quiet * (1.0 - 0.28 * pore) + 280.0 * granules * fading, 2800.0)

    height_km = (
        -160.0 * log_tau / 1.6 - 380.0 * pore
    )  # optical depth 1 lies deeper in the pore (Wilson depression)
    scale_height_km = _GAS_CONSTANT * temperature / (_MEAN_MOLAR_MASS * _SURFACE_GRAVITY) / 1e5
    gas_pressure = 1.2e5 * np.exp(-(-100.0 * log_tau) / scale_height_km)
    density = gas_pressure * _MEAN_MOLAR_MASS / (_GAS_CONSTANT * temperature)
    # Electrons come from metals at 1e-4 of the gas and, where it is hot, from hydrogen.
    electron_pressure = gas_pressure * (1e-4 + 2e-3 * np.exp((temperature - 7500.0) / 700.0))

    strength = np.maximum(60.0 + 2300.0 * pore + 25.0 * log_tau * (1.0 + 8.0 * pore), 1.0)
    velocity = -1.4e5 * granules * fading + 2e4 * pore
    tilt = np.clip(distance / (2.2 * radius), 0.0, 1.0)
    inclination = 12.0 + 70.0 * tilt
    azimuth = np.degrees(np.arctan2(rows - 0.52 * shape.y, columns - 0.45 * shape.x)) % 180.0
    microturbulence = 8e4 + 2e4 * np.maximum(log_tau, 0.0)
    parts = (
        log_tau, temperature, electron_pressure, microturbulence, strength, velocity, inclination, azimuth,
        height_km, gas_pressure, density,
    )  # fmt: skip
    size = (shape.depth, shape.y, shape.x)
    return np.stack([np.broadcast_to(part, size) for part in parts]).astype(np.float32)


def _granulation(shape: SyntheticShape, random: np.random.Generator) -> Array:
    """A field of mean 0 and deviation 1 whose power lies around eight pixels."""
    noise = np.fft.rfft2(random.normal(size=(shape.y, shape.x)))
    frequency = np.hypot(np.fft.fftfreq(shape.y)[:, None], np.fft.rfftfreq(shape.x)[None, :])
    field = np.fft.irfft2(noise * np.exp(-(((frequency - 0.12) / 0.05) ** 2)), s=(shape.y, shape.x))
    spread = field.std()
    centred: Array = field - field.mean()
    return centred / spread if spread > 0 else centred


def _wavelength_axis(wavelengths: int, line_count: int) -> tuple[Array, Array]:
    """Offsets in mÅ from each line's centre, and the id of the line each point belongs to."""
    parts = np.array_split(np.arange(wavelengths), line_count)
    offsets = np.concatenate([np.linspace(-400.0, 400.0, len(part)) for part in parts])
    line_ids = np.concatenate([np.full(len(part), number) for number, part in enumerate(parts, 1)])
    return offsets.astype(np.float32), line_ids.astype(np.int32)


def _profiles(model: Array, offsets: Array, wavelengths_nm: Sequence[float]) -> Array:
    """Stokes I, Q, U, V ``[stokes, wavelength, y, x]`` in units of the mean quiet continuum.

    An optically thin Zeeman triplet (del Toro Iniesta 2003, §8.2) of Gaussians with a Landé factor of 2, near
    those of the lines used; the layer nearest log tau = -1 stands for the whole atmosphere.
    """
    layer = model[:, int(np.argmin(np.abs(model[0, :, 0, 0] + 1.0)))].astype(float)
    _, temperature, _, turbulence, strength, velocity, inclination, azimuth = layer[:8]
    deepest = model[1, int(np.argmin(np.abs(model[0, :, 0, 0])))].astype(float)
    continuum = (deepest / np.median(deepest)) ** 4
    depth = np.clip(0.75 * (6000.0 / temperature) ** 0.5, 0.3, 0.85) * continuum

    out = np.empty((4, len(offsets), *temperature.shape), dtype=np.float32)
    cosine, twist = np.cos(np.radians(inclination)), np.radians(2.0 * azimuth)
    transverse = 1.0 - cosine**2
    for index, (offset, wavelength_nm) in enumerate(zip(offsets, wavelengths_nm, strict=True)):
        centre_ma = wavelength_nm * 1e4
        shift = centre_ma * velocity / _LIGHT_SPEED_CM_S
        width = np.hypot(centre_ma * np.hypot(turbulence, 1.5e5) / _LIGHT_SPEED_CM_S, 20.0)
        # 4.67e-13 g λ² B gives Å for λ in Å and B in G.
        splitting = 4.67e-13 * 2.0 * (wavelength_nm * 10.0) ** 2 * strength * 1e3
        middle, blue, red = (
            depth * np.exp(-(((float(offset) - shift - move) / width) ** 2))
            for move in (0.0, -splitting, splitting)
        )
        wings = 0.5 * (blue + red)
        linear = 0.5 * transverse * (middle - wings)
        out[0, index] = continuum - 0.5 * (transverse * middle + (1.0 + cosine**2) * wings)
        out[1, index] = -linear * np.cos(twist)
        out[2, index] = -linear * np.sin(twist)
        out[3, index] = 0.5 * cosine * (blue - red)
    return out


def _wavelength_nm(line: str) -> float:
    found = _WAVELENGTH_IN_NAME.search(line)
    try:
        return float(found[1]) if found else _DEFAULT_WAVELENGTH_NM
    except ValueError:
        return _DEFAULT_WAVELENGTH_NM


def _write(
    path: Path, data: Array, header: fits.Header, offsets: Array | None = None, line_ids: Array | None = None
) -> None:
    from astropy.io import fits

    hdus = fits.HDUList([fits.PrimaryHDU(data.astype(np.float32), header)])
    if offsets is not None and line_ids is not None:
        hdus.append(fits.ImageHDU(offsets, name="WAVE_OFFSET"))
        hdus[-1].header["BUNIT"] = "mAngstrom"
        hdus.append(fits.ImageHDU(line_ids, name="LINE_ID"))
    write_durably(path, lambda temporary: hdus.writeto(temporary, overwrite=True))
