"""Pictures for the metadata of assets: boxes on the solar disk, counts by state. No Dagster here."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.figure import Figure

_NUMBERS = re.compile(r"\(([-\d.eE+]+),([-\d.eE+]+)\),\(([-\d.eE+]+),([-\d.eE+]+)\)")
_MEAN_RADIUS_ARCSEC = 959.6

STATE_COLOURS = {
    "Discovered": "#9aa5b1",
    "Invertible": "#5b8def",
    "NotInvertible": "#c9ced6",
    "Preprocessed": "#2f6fde",
    "Working": "#f0a202",
    "Inverted": "#7bb662",
    "Published": "#2e7d32",
    "Error": "#c62828",
}


def disk_map(datasets: Iterable[Mapping[str, Any]], invertible: set[str]) -> bytes:
    """The bounding boxes of datasets on the solar disk, as PNG.

    Parameters
    ----------
    datasets
        With ``op_id`` and ``bounding_box``, text ``(x1,y1),(x2,y2)`` in arcsec from the sun's centre.
    invertible
        The OPs drawn in colour.
    """
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.add_patch(_circle())
    drawn = {True: 0, False: 0}
    for row in datasets:
        box = parse_box(row["bounding_box"])
        if box is None:
            continue
        (x1, y1, x2, y2), good = box, row["op_id"] in invertible
        drawn[good] += 1
        axes.plot(
            [x1, x2, x2, x1, x1],
            [y1, y1, y2, y2, y1],
            color="#2f6fde" if good else "#9aa5b1",
            linewidth=0.9 if good else 0.6,
            alpha=0.8 if good else 0.5,
            zorder=3 if good else 2,
        )
    axes.set(
        xlim=(-1250, 1250),
        ylim=(-1250, 1250),
        aspect="equal",
        xlabel="x, arcsec from the sun's centre",
        ylabel="y, arcsec",
        title=f"Datasets on the disk: {drawn[True]} of invertible OPs (blue), {drawn[False]} others",
    )
    return _png(figure)


def state_counts(counts: Mapping[str, int]) -> bytes:
    """How many observing programs are in each state, as a PNG of bars."""
    figure = Figure(figsize=(6, 2.8), layout="constrained")
    axes = figure.add_subplot()
    names = [name for name in STATE_COLOURS if name in counts]
    values = [counts[name] for name in names]
    bars = axes.barh(names, values, color=[STATE_COLOURS[name] for name in names])
    axes.bar_label(bars, padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="observing programs")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.12)
    return _png(figure)


def parse_box(text: str | None) -> tuple[float, float, float, float] | None:
    """The corners of a bounding box, or None when it is no box that could be drawn."""
    match = _NUMBERS.fullmatch(text.replace(" ", "")) if text else None
    if match is None:
        return None
    try:
        corners = [float(number) for number in match.groups()]
    except ValueError:
        return None
    if not all(abs(value) < 2000 for value in corners):
        return None
    return corners[0], corners[1], corners[2], corners[3]


def _circle() -> Any:
    from matplotlib.patches import Circle

    return Circle((0, 0), _MEAN_RADIUS_ARCSEC, facecolor="#fff6dc", edgecolor="#d9a400", linewidth=1)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
