"""What the board draws, as numbers for its templates: the solar disk with fields, the box plot of R0.

Also how values and times are written: units beside them, times in UTC. No HTML here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from dagster_l2.service.backend import Row

SPREAD = ("min", "p25", "median", "p75", "max")
"""What a record carries of its Fried parameter, the smallest first."""

_AXIS, _AXIS_M = 320.0, 0.25
_TICK_M = 0.05
_ROW, _LABELS = 22, 120


@dataclass(frozen=True)
class Box:
    """The field of a dataset: corner, width and height in arcsec; y grows downwards, as in a drawing."""

    dataset_id: str
    instrument: str
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class Disk:
    """The Sun's disk: its radius and half the drawing's width in arcsec, the fields on it and those off."""

    radius: float
    half: float
    boxes: list[Box]
    off: list[str]


@dataclass(frozen=True)
class Spread:
    """How the Fried parameter of a dataset spreads: its row in the drawing, places along the axis, metres.

    What the record does not carry is None; ``beyond`` is the largest value where it is off the axis.
    """

    dataset_id: str
    instrument: str
    y: int
    low: float | None
    box: tuple[float, float] | None
    median: float | None
    high: float | None
    beyond: float | None
    metres: dict[str, float | None]


@dataclass(frozen=True)
class BoxPlot:
    """Fried parameters of datasets, one below the other on one axis in metres."""

    left: int
    width: int
    height: int
    spreads: list[Spread]
    ticks: list[tuple[float, str]]


def disk_of(datasets: Sequence[Row]) -> Disk | None:
    """The disk with the fields of these datasets; None when no field is known."""
    boxes = []
    for row in datasets:
        corners = [row.get(f"box_{name}_arcsec") for name in ("x1", "y1", "x2", "y2")]
        if any(value is None or not math.isfinite(value) for value in corners):
            continue
        x1, y1, x2, y2 = (float(value) for value in corners if value is not None)
        boxes.append(
            Box(
                row["dataset_id"],
                row["instrument"] or "",
                min(x1, x2),
                -max(y1, y2),
                abs(x2 - x1),
                abs(y2 - y1),
            )
        )
    if not boxes:
        return None
    radii = [row["solar_radius_arcsec"] for row in datasets if row.get("solar_radius_arcsec")]
    radius = float(max(radii)) if radii else 960.0
    half = 1.25 * radius
    inside = [
        box
        for box in boxes
        if -half <= box.x and box.x + box.width <= half and -half <= box.y and box.y + box.height <= half
    ]
    return Disk(radius, half, inside, [box.dataset_id for box in boxes if box not in inside])


def box_plot_of(datasets: Sequence[Row]) -> BoxPlot | None:
    """Smallest, quartiles, median and largest Fried parameter of these datasets; None when none is known."""
    spreads: list[Spread] = []
    for row in datasets:
        metres = {name: _finite(row.get(f"fried_parameter_{name}_m")) for name in SPREAD}
        if all(value is None for value in metres.values()):
            continue
        low, lower, median, upper, high = (metres[name] for name in SPREAD)
        spreads.append(
            Spread(
                row["dataset_id"],
                row["instrument"] or "",
                len(spreads) * _ROW,
                _along(low),
                None if lower is None or upper is None else (_x(lower), _x(max(lower, upper))),
                _along(median),
                _along(high),
                high if high is not None and high > _AXIS_M else None,
                metres,
            )
        )
    if not spreads:
        return None
    ticks = [(_x(step * _TICK_M), f"{step * _TICK_M:.2f}") for step in range(round(_AXIS_M / _TICK_M) + 1)]
    return BoxPlot(_LABELS, round(_AXIS), len(spreads) * _ROW, spreads, ticks)


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _along(metres: float | None) -> float | None:
    return None if metres is None else _x(metres)


def _x(metres: float) -> float:
    return round(min(max(metres, 0.0), _AXIS_M) / _AXIS_M * _AXIS, 1)


def when(moment: datetime | date | None) -> str:
    """A moment in UTC, to the minute."""
    if moment is None:
        return "–"
    if not isinstance(moment, datetime):
        return moment.isoformat()
    utc = moment if moment.tzinfo is None else moment.astimezone(UTC)
    return utc.strftime("%Y-%m-%d %H:%M")


def lasted(seconds: float) -> str:
    """A duration in its largest unit."""
    for unit, size in (("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} seconds"


def shown(value: Any) -> str:
    """A value as a person reads it."""
    if value is None or value == "":
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime | date):
        return when(value)
    if isinstance(value, list | tuple):
        return ", ".join(shown(item) for item in value) or "–"
    return str(value)
