"""The verified products of one inversion as level-2 files need them: step by step, in level-2 units.

Here: which lines and axes they have, and blocks of steps cut out of the large files. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dagster_l2.products.layout import (
    FITTED_FILE,
    MODEL_FILE,
    OBSERVED_FILE,
    PRODUCT_FILES,
    QUANTITIES,
    QUANTITY_INDEX,
    SLIT_AXIS,
    STEP_AXIS,
    SYNTHETIC_KEYWORD,
)
from dagster_l2.products.level2.layout import LEVEL2_QUANTITIES, Level2Quantity, Level2Refused
from dagster_l2.products.lines import Line, UnknownLine, lines_of

if TYPE_CHECKING:
    from astropy.io import fits

Array = np.ndarray[Any, np.dtype[Any]]

_MOST_BYTES = 64 * 2**20  # of one block of one file; real profiles are gigabytes
_EVEN = 1e-3  # of a step: how far from even an axis may be and still be told by its start and step


@dataclass(frozen=True, slots=True)
class Axis:
    """The values along one axis, and whether start and step tell them."""

    values: Array

    @property
    def delta(self) -> float:
        """The mean step; one for a single value."""
        values = self.values
        return float((values[-1] - values[0]) / (len(values) - 1)) if len(values) > 1 else 1.0

    @property
    def is_even(self) -> bool:
        """Whether the values are start and multiples of the step, as FITS headers can say."""
        even = self.values[0] + self.delta * np.arange(len(self.values))
        return bool(np.all(np.abs(self.values - even) <= _EVEN * abs(self.delta)))


@dataclass(frozen=True, slots=True)
class LineProfiles:
    """The part of the wavelength axis that one line has: where in the files, and in nm of air."""

    line: Line
    points: Array
    wavelengths: Axis


@dataclass(frozen=True, slots=True)
class StepArrays:
    """One step in level-2 units: quantities ``[x, depth]``, profiles ``[x, wavelength, stokes]``."""

    quantities: list[Array]
    observed: list[Array]
    fitted: list[Array]


class Contents:
    """The opened products of one inversion."""

    def __init__(self, model: Array, fitted: Array, observed: Array, lines: list[LineProfiles]) -> None:
        self._model, self._fitted, self._observed = model, fitted, observed
        self.lines = lines
        self.depths, self.steps, self.slit_pixels = (
            int(model.shape[axis]) for axis in (1, STEP_AXIS, SLIT_AXIS)
        )
        self.log_tau = self._depth_axis()
        self.is_synthetic = False

    def _depth_axis(self) -> Axis:
        """The logarithm of optical depth: the same everywhere, so the first finite point tells it."""
        taus = self._model[QUANTITY_INDEX["optical depth"]]
        for step in range(self.steps):
            here = np.asarray(taus[:, step, :], dtype=float)
            whole = np.flatnonzero(np.isfinite(here).all(axis=0))
            if whole.size:
                return Axis(here[:, whole[0]])
        raise Level2Refused(
            f"{MODEL_FILE} has no point with a finite optical depth throughout; hand it over again."
        )

    def each_step(self) -> Iterator[StepArrays]:
        """The steps in order; only a block of them is in memory at a time."""
        per_step = max(array[:, :, 0, :].size * 4 for array in (self._model, self._fitted))
        size = max(1, _MOST_BYTES // per_step)
        for first in range(0, self.steps, size):
            block = [
                np.array(array[:, :, first : first + size, :], dtype=np.float32)
                for array in (self._model, self._observed, self._fitted)
            ]
            for step in range(block[0].shape[2]):
                model, observed, fitted = (array[:, :, step, :] for array in block)
                yield StepArrays(
                    [
                        model[QUANTITY_INDEX[quantity.source]].T * unit_factor(quantity)
                        for quantity in LEVEL2_QUANTITIES
                    ],
                    *([whole[:, part.points, :].T for part in self.lines] for whole in (observed, fitted)),
                )


@contextmanager
def open_contents(folder: Path) -> Iterator[Contents]:
    """Open verified products at home.

    Raises
    ------
    Level2Refused
        A line id has no meaning.
    """
    from astropy.io import fits

    with ExitStack() as stack:
        # Mapped, unlike files from outside: these are ours, and a step is spread all over them.
        files = {name: stack.enter_context(fits.open(folder / name, memmap=True)) for name in PRODUCT_FILES}
        model, fitted, observed = (files[name][0].data for name in (MODEL_FILE, FITTED_FILE, OBSERVED_FILE))
        contents = Contents(model, fitted, observed, _lines(files[FITTED_FILE]))
        contents.is_synthetic = any(file[0].header.get(SYNTHETIC_KEYWORD) is True for file in files.values())
        yield contents


def unit_factor(quantity: Level2Quantity) -> np.float32:
    """What a value of the hand-over is multiplied with."""
    from astropy import units as u

    given = QUANTITIES[QUANTITY_INDEX[quantity.source]].unit
    return np.float32(u.Unit(given).to(quantity.unit) if given else 1.0)


def _lines(fitted: fits.HDUList) -> list[LineProfiles]:
    offsets_ma = np.asarray(fitted[1].data, dtype=float)
    line_ids = np.asarray(fitted[2].data).astype(int)
    try:
        lines = lines_of(line_ids, fitted[0].header)
    except UnknownLine as error:
        raise Level2Refused(f"{FITTED_FILE} {error}; hand it over again with LINE<n> headers.") from None
    out = []
    for line_id, line in lines.items():
        points = np.flatnonzero(line_ids == line_id)
        # 1 mÅ is 1e-4 nm.
        wavelengths = Axis(line.wavelength_nm + offsets_ma[points] * 1e-4)
        if not np.all(np.diff(wavelengths.values) > 0):
            raise Level2Refused(
                f"{FITTED_FILE} has wavelengths of {line.name} that do not grow; hand it over again."
            )
        out.append(LineProfiles(line, points, wavelengths))
    return out
