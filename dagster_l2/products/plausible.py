"""What values a quantity can have and usually has, and the statistics of what it has.

Here: the ranges, each once, and one pass over planes that are read one at a time. What follows from a value
out of range is in ``verify``; the page docs/handovers.md lists the ranges.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Range:
    """What is possible at all, and what the sun usually shows; in the unit of the hand-over."""

    possible: tuple[float, float]
    usual: tuple[float, float]


# Possible: by definition (a pressure is not negative) or far beyond any solar atmosphere, so that a swapped
# axis or quantity falls out. Usual: quiet sun to umbra, log tau 1 to -6, with room.
RANGES: dict[str, Range] = {
    "optical depth": Range((-20.0, 10.0), (-8.0, 3.0)),
    "temperature": Range((100.0, 1e6), (1.5e3, 5e4)),
    "electron pressure": Range((0.0, 1e9), (1e-6, 1e6)),
    "microturbulence": Range((0.0, 1e8), (0.0, 3e6)),
    "magnetic strength": Range((0.0, 5e4), (0.0, 7e3)),
    "velocity": Range((-1e8, 1e8), (-3e6, 3e6)),
    "inclination": Range((-360.0, 360.0), (0.0, 180.0)),
    "azimuth": Range((-720.0, 720.0), (-180.0, 360.0)),
    "geometric height": Range((-1e5, 1e5), (-3e3, 1e4)),
    "gas pressure": Range((0.0, 1e10), (0.0, 1e7)),
    "density": Range((0.0, 1.0), (0.0, 1e-4)),
}

MOST_IMPOSSIBLE = 0.01
"""Share of the finite values of a quantity that may be impossible, as where an inversion failed; 0..1."""

MOST_UNUSUAL = 0.05
"""Share that may be unusual before a person is told."""

LEAST_FINITE = 0.5
"""Share of the values of a file that must be finite."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """One quantity of a file: shares are 0..1, the others in its unit, None without a finite value.

    ``impossible_share`` and ``unusual_share`` are of the finite values, 0 where there is no range.
    """

    file: str
    quantity: str
    unit: str
    finite_share: float
    minimum: float | None
    mean: float | None
    maximum: float | None
    deviation: float | None
    impossible_share: float
    unusual_share: float


def statistics(file: str, quantity: str, unit: str, planes: Iterable[Array], values: int) -> Statistics:
    """The statistics of one quantity.

    Parameters
    ----------
    planes
        Read one at a time; together they have ``values`` values.
    """
    found = RANGES.get(quantity)
    count, total, squares = 0, 0.0, 0.0
    lowest, highest = float("inf"), float("-inf")
    shift: float | None = None
    impossible = unusual = 0
    for plane in planes:
        finite = plane[np.isfinite(plane)].astype(np.float64)
        if not finite.size:
            continue
        if shift is None:
            shift = float(finite[0])  # the sum of squares of large, like values would lose the deviation
        count += int(finite.size)
        moved = finite - shift
        total, squares = total + float(moved.sum()), squares + float(np.square(moved).sum())
        lowest, highest = min(lowest, float(finite.min())), max(highest, float(finite.max()))
        if found is not None:
            impossible += _outside(finite, found.possible)
            unusual += _outside(finite, found.usual)
    if not count or shift is None:
        return Statistics(file, quantity, unit, 0.0, None, None, None, None, 0.0, 0.0)
    mean = total / count
    deviation = float(np.sqrt(max(squares / count - mean**2, 0.0)))
    return Statistics(
        file=file,
        quantity=quantity,
        unit=unit,
        finite_share=count / values,
        minimum=lowest,
        mean=shift + mean,
        maximum=highest,
        deviation=deviation if np.isfinite(deviation) else None,
        impossible_share=impossible / count,
        unusual_share=unusual / count,
    )


def _outside(values: Array, limits: tuple[float, float]) -> int:
    # Float32 rounds the limits as it rounds the values: a zero that came out as -1e-12 is a zero.
    slack = 1e-6 * max(abs(limits[0]), abs(limits[1]))
    return int(((values < limits[0] - slack) | (values > limits[1] + slack)).sum())


def value_problems(rows: Sequence[Statistics]) -> list[str]:
    """Why the values of a file cannot be taken; each goes on after the file's name."""
    share = sum(row.finite_share for row in rows) / len(rows)
    if share == 0:
        return ["holds no finite value"]
    problems = []
    if share < LEAST_FINITE:
        problems.append(f"has {share:.0%} finite values, expected {LEAST_FINITE:.0%} at least")
    for row in rows:
        if row.impossible_share > MOST_IMPOSSIBLE:
            low, high = RANGES[row.quantity].possible
            unit = f" {row.unit}" if row.unit else ""
            problems.append(
                f"has {row.impossible_share:.0%} of its {row.quantity} outside {low:g} to {high:g}{unit}"
                f" (found {row.minimum:g} to {row.maximum:g}): are quantities or axes in another order?"
            )
        if row.quantity == "Stokes I" and row.mean is not None and row.mean <= 0:
            problems.append(f"has a mean Stokes I of {row.mean:g}: are axes in another order?")
    return problems


def value_findings(rows: Sequence[Statistics]) -> list[str]:
    """What a person should know of the values of a file, one sentence each, without its name."""
    findings = []
    for row in rows:
        if row.finite_share == 0:
            findings.append(f"{row.quantity} has no finite value.")
        if row.unusual_share > MOST_UNUSUAL:
            low, high = RANGES[row.quantity].usual
            unit = f" {row.unit}" if row.unit else ""
            findings.append(
                f"{row.unusual_share:.0%} of the {row.quantity} lie outside the usual"
                f" {low:g} to {high:g}{unit}."
            )
    return findings
