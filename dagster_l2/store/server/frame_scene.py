"""What the slit sees on a made-up sun: a pore in granulation, and the Stokes profiles of some lines.

Plausible enough to be looked at, never to be inverted for science. The frames around it are made in
``frame_maker``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

CONTINUUM_COUNTS = 20_000.0
NOISE = 1e-3  # of the continuum
STOKES = "IQUV"

# Rest wavelengths in air (nm) and effective Landé factors of the lines that the ViSP channels hold.
_LINES = (
    (517.268, 1.75),
    (588.995, 1.33),
    (589.592, 1.33),
    (630.150, 1.67),
    (630.250, 2.5),
    (854.209, 1.1),
)
_DEPTH = 0.7
_DOPPLER_NM = 0.004
_LIGHT_SPEED_KM_S = 299_792.458


@dataclass(frozen=True)
class Scene:
    """One field of view, the same for all arms of an OP.

    Parameters
    ----------
    seed
        The same seed gives the same scene.
    width, height
        Its size in arcsec; granules are some 6 arcsec wide, coarser than real ones, as the pixels are.
    """

    seed: int
    width: float
    height: float

    def profiles(self, stokes: str, column: float, wavelengths_nm: Array, slit: int) -> Array:
        """Counts ``[wavelength, slit]`` of one Stokes parameter at one slit position.

        Parameters
        ----------
        column
            Where the slit is, 0 at the first step to 1 at the last.
        """
        rows = np.linspace(0.0, 1.0, slit)
        light, velocity_km_s, field_gauss, cosine, twist = self._at(column, rows)
        intensity, slope, bend = _lines(wavelengths_nm, velocity_km_s, field_gauss)
        # Weak-field limit (Landi Degl'Innocenti & Landolfi 2004, §9.6): V goes with the slope of I, Q and U
        # with its bend.
        transverse = 1.0 - cosine**2
        relative = {
            "I": intensity,
            "V": -cosine * slope,
            "Q": -0.25 * transverse * np.cos(2 * twist) * bend,
            "U": -0.25 * transverse * np.sin(2 * twist) * bend,
        }[stokes]
        rng = np.random.default_rng([self.seed, STOKES.index(stokes), round(column * 1e6)])
        noisy = relative * light + rng.normal(0.0, NOISE, relative.shape)
        counts: Array = (CONTINUUM_COUNTS * noisy).astype(np.float32)
        return counts

    def _at(self, column: float, rows: Array) -> tuple[Array, Array, Array, Array, Array]:
        """Continuum (1 in the quiet sun), velocity, field, its cosine and azimuth along the slit."""
        x, y = column * self.width, rows * self.height
        granules = self._granules(x, y)
        away_x, away_y = x - 0.45 * self.width, y - 0.52 * self.height
        distance = np.hypot(away_x, away_y) / (0.16 * min(self.width, self.height))
        pore = np.exp(-(distance**4))
        light = 1.0 - 0.6 * pore + 0.05 * granules * (1.0 - pore)
        field = 50.0 + 2200.0 * np.exp(-(distance**2) / 2)
        cosine = np.clip(1.0 - 0.4 * distance, -0.2, 1.0)
        return light, -0.8 * granules * (1.0 - pore), field, cosine, np.arctan2(away_y, away_x)

    def _granules(self, x: float, y: Array) -> Array:
        """A field of mean 0 and deviation near 1: waves of all directions, 4 to 9 arcsec long."""
        rng = np.random.default_rng(self.seed)
        angles, phases = rng.uniform(0, 2 * np.pi, (2, 24))
        lengths = rng.uniform(4.0, 9.0, 24)
        along = x * np.cos(angles)[:, None] + y[None, :] * np.sin(angles)[:, None]
        waves: Array = np.cos(2 * np.pi * along / lengths[:, None] + phases[:, None])
        return np.asarray(waves.sum(axis=0) / np.sqrt(12.0))


def _lines(wavelengths: Array, velocity: Array, field: Array) -> tuple[Array, Array, Array]:
    """Intensity over the continuum, and its slope and bend times one and two Zeeman splittings."""
    shape = (len(wavelengths), len(velocity))
    intensity, slope, bend = np.ones(shape), np.zeros(shape), np.zeros(shape)
    pixel = float(wavelengths[1] - wavelengths[0])
    for rest, lande in _within(wavelengths):
        # Never narrower than the pixels can show.
        width = np.hypot(_DOPPLER_NM * rest / 630.0, 1.2 * pixel)
        # 4.67e-13 g λ² B gives Å for λ in Å and B in G; capped, as the limit holds for weak fields only.
        splitting = np.minimum(4.67e-12 * lande * rest**2 * field, 0.6 * width)
        off = (wavelengths[:, None] - rest * (1.0 + velocity / _LIGHT_SPEED_KM_S)[None, :]) / width
        line = _DEPTH * np.exp(-(off**2))
        intensity -= line
        slope += splitting / width * 2 * off * line
        bend += (splitting / width) ** 2 * (2 - 4 * off**2) * line
    return intensity, slope, bend


def _within(wavelengths: Array) -> Sequence[tuple[float, float]]:
    return [line for line in _LINES if wavelengths[0] - 0.1 <= line[0] <= wavelengths[-1] + 0.1]
