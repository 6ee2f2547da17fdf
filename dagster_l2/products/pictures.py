"""A picture of what an inversion found: temperature, field strength and velocity at one depth.

Here: the drawing, as PNG bytes, and the name it is kept under in the home of the products.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dagster_l2.products.layout import (
    INVERSION_KEYWORD,
    MODEL_AXES,
    MODEL_FILE,
    OP_KEYWORD,
    QUANTITIES,
    QUANTITY_INDEX,
    SYNTHETIC_KEYWORD,
    ProductsRefused,
)
from dagster_l2.products.reading import OpenProduct, Unreadable, open_product

Array = np.ndarray[Any, np.dtype[Any]]

QUICKLOOK_FILE = "quicklook.png"

# Fe I 630 forms around here; deeper the lines know little, higher the noise leads.
_LOG_TAU = -1.0
_MOST_POINTS = 800  # per side: more than the picture has pixels for
_INK = "#222222"


@dataclass(frozen=True, slots=True)
class _Panel:
    """One map: the quantity, its title, the unit shown and the factor to it, and its colours."""

    quantity: str
    title: str
    unit: str
    factor: float
    colours: str
    around_zero: bool


_PANELS = (
    _Panel("temperature", "Temperature", "kK", 1e-3, "inferno", False),
    _Panel("magnetic strength", "Magnetic field strength", "kG", 1e-3, "viridis", False),
    _Panel("velocity", "Line-of-sight velocity, positive away", "km/s", 1e-5, "RdBu_r", True),
)


def quicklook(folder: Path) -> bytes:
    """A PNG with the maps of temperature, field strength and line-of-sight velocity nearest log tau = -1.

    Three planes of ``inv_res_mod.fits`` and one value per depth are read, whatever the size of the file.

    Raises
    ------
    ProductsRefused
        When the file is missing, unreadable or not of the layout.
    """
    try:
        with open_product(folder / MODEL_FILE, []) as product:
            shape = product.shape()
            if shape is None or len(shape) != len(MODEL_AXES) or shape[0] != len(QUANTITIES) or 0 in shape:
                raise Unreadable(f"is not [{', '.join(MODEL_AXES)}] with {len(QUANTITIES)} quantities")
            depth, log_tau = _depth_nearest(product, shape[1])
            maps = [product.plane(QUANTITY_INDEX[panel.quantity], depth) * panel.factor for panel in _PANELS]
            title = _title(product)
    except Unreadable as error:
        raise ProductsRefused([f"{MODEL_FILE} {error}"]) from error
    where = f"log τ(500 nm) = {log_tau:.1f}" if np.isfinite(log_tau) else f"depth {depth}"
    return _draw(maps, title, where)


def _depth_nearest(product: OpenProduct, depths: int) -> tuple[int, float]:
    """The depth whose median log optical depth is nearest the wanted one; the middle if none is known."""
    medians = [_median(product.plane(QUANTITY_INDEX["optical depth"], depth)) for depth in range(depths)]
    known = [depth for depth in range(depths) if np.isfinite(medians[depth])]
    if not known:
        return depths // 2, float("nan")
    best = min(known, key=lambda depth: abs(medians[depth] - _LOG_TAU))
    return best, medians[best]


def _median(plane: Array) -> float:
    finite = plane[np.isfinite(plane)]
    return float(np.median(finite)) if finite.size else float("nan")


def _title(product: OpenProduct) -> str:
    parts = [str(product.header(keyword) or "") for keyword in (INVERSION_KEYWORD, OP_KEYWORD)]
    if product.header(SYNTHETIC_KEYWORD) is True:
        parts.append("SYNTHETIC")
    return "  ·  ".join(part[:70] for part in parts if part.strip())


def _draw(maps: list[Array], title: str, where: str) -> bytes:
    # Loaded when there is something to draw, which few processes have.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, columns = maps[0].shape
    step = max(1, -(-max(rows, columns) // _MOST_POINTS))
    # Panels as wide or tall as the map, within reason: a raster of few steps is a tall strip.
    panel_height = 3.0
    panel_width = float(np.clip(panel_height * columns / rows, 1.9, 4.2))
    figure = Figure(
        figsize=(3 * (panel_width + 1.15) + 0.4, panel_height + 1.3), dpi=110, layout="constrained"
    )
    FigureCanvasAgg(figure)
    # Ids come from outside: a dollar sign in one must not be read as a formula.
    figure.suptitle(f"{title}\n{where}" if title else where, fontsize=10, color=_INK, parse_math=False)
    for axes, panel, plane in zip(figure.subplots(1, len(_PANELS), sharey=True), _PANELS, maps, strict=True):
        low, high = _limits(plane, around_zero=panel.around_zero)
        image = axes.imshow(
            plane[::step, ::step],
            origin="lower",
            cmap=panel.colours,
            vmin=low,
            vmax=high,
            extent=(-0.5, columns - 0.5, -0.5, rows - 0.5),
            aspect="equal" if 0.2 < columns / rows < 5 else "auto",
            interpolation="nearest",
        )
        axes.set_title(f"{panel.title} [{panel.unit}]", fontsize=10, color=_INK)
        axes.set_facecolor("#bbbbbb")
        axes.set_xlabel("x [pixel]", fontsize=9)
        axes.tick_params(labelsize=8)
        bar = figure.colorbar(image, ax=axes, shrink=0.9, pad=0.02)
        bar.ax.tick_params(labelsize=8)
    figure.axes[0].set_ylabel("y [pixel]", fontsize=9)
    out = io.BytesIO()
    figure.savefig(out, format="png")
    return out.getvalue()


def _limits(plane: Array, *, around_zero: bool) -> tuple[float, float]:
    """Colour limits that a few wild points do not set: the 1st and 99th percentile."""
    finite = plane[np.isfinite(plane)]
    if not finite.size:
        return (-1.0, 1.0) if around_zero else (0.0, 1.0)
    low, high = (float(value) for value in np.percentile(finite, (1, 99)))
    if around_zero:
        high = max(abs(low), abs(high)) or 1.0
        return -high, high
    return (low, high) if high > low else (low, low + 1.0)
