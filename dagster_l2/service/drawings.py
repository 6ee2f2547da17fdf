"""What the board draws, as numbers for its templates: the solar disk with boxes, Fried parameters in a row.

Also how values and times are written: units beside them, times in UTC. No HTML here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from dagster_l2.service.doors import Row

_STRIP_WIDTH = 320.0
_STRIP_MOST_M = 0.25


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
class Strip:
    """Median Fried parameters of datasets along one axis, in metres; places in the drawing's units."""

    width: float
    points: list[tuple[str, float, float]]
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


def strip_of(datasets: Sequence[Row]) -> Strip | None:
    """The median Fried parameters of these datasets; None when none is known."""
    points = [
        (row["dataset_id"], value, min(value / _STRIP_MOST_M, 1.0) * _STRIP_WIDTH)
        for row in datasets
        if (value := row.get("fried_parameter_median_m")) is not None and math.isfinite(value)
    ]
    if not points:
        return None
    ticks = [(step * 0.05 / _STRIP_MOST_M * _STRIP_WIDTH, f"{step * 0.05:.2f}") for step in range(6)]
    return Strip(_STRIP_WIDTH, points, ticks)


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
