"""A quick look at staged frames: continuum intensity, V/I, and where on the sun the slit was.

Here: the drawing, as PNG bytes. When it is made and where it is shown is for others to say.
"""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dagster_l2.inputs.level1 import Array, World, read_image

PICTURE_FILE = "quicklook.png"

# Its polarization tells most of the magnetic field.
_BEST_LINE = "Fe I (630"
_MOST_STEPS = 160
_LOOKED_AT = 5
_CONTINUUM = 0.97
_MEAN_RADIUS_ARCSEC = 959.6
_INK, _SHADE, _ACCENT = "#222222", "#9aa5b1", "#c62828"


@dataclass(frozen=True)
class _Look:
    """What is drawn of one dataset."""

    continuum: Array
    polarization: Array | None
    wavelength_nm: float
    worlds: list[World]
    radius_arcsec: float
    unit: str


def continuum_of(spectrum: Array) -> Array:
    """Which wavelengths of a mean intensity spectrum are continuum: those near its brightest ones."""
    mask: Array = spectrum >= _CONTINUUM * np.nanpercentile(spectrum, 95)
    return mask


def quicklook(folder: Path, package: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bytes:
    """A PNG of the dataset that shows most: its first raster, at most 160 positions of the slit.

    Parameters
    ----------
    rows
        Staged frames: ``dataset_id, path, stokes, map, step, begins_at``.

    Raises
    ------
    OSError, NoWorld
        When a frame was changed since it was checked.
    """
    dataset, mine = _most_telling(package, rows)
    steps = _first_raster(mine)
    look = _look(folder, steps)
    lines = ", ".join(dataset["spectral_lines"]) or "no line named"
    first, last = (str(steps[i]["I"]["begins_at"])[:19].replace("T", " ") for i in (0, -1))
    title = f"{package['op_id']}\n{dataset['dataset_id']} · {lines} · {first} to {last[11:]} UTC"
    return _draw(look, title)


def read_picture(folder: Path) -> bytes | None:
    """The picture in an input package; None where there is none."""
    path = folder / PICTURE_FILE
    return path.read_bytes() if path.is_file() else None


def _most_telling(
    package: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> tuple[Mapping[str, Any], list[Mapping[str, Any]]]:
    by_dataset: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        by_dataset[row["dataset_id"]].append(row)
    datasets = [
        one for group in package["groups"] for one in group["datasets"] if by_dataset[one["dataset_id"]]
    ]

    def merit(dataset: Mapping[str, Any]) -> tuple[bool, bool]:
        has_v = any(row["stokes"] == "V" for row in by_dataset[dataset["dataset_id"]])
        return has_v, any(line.startswith(_BEST_LINE) for line in dataset["spectral_lines"])

    best = max(datasets, key=merit)
    return best, by_dataset[best["dataset_id"]]


def _first_raster(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Mapping[str, Any]]]:
    """The frames of each slit position by Stokes parameter; of a long raster every so many."""
    first = min(row["map"] for row in rows)
    steps: dict[int, dict[str, Mapping[str, Any]]] = defaultdict(dict)
    for row in rows:
        if row["map"] == first:
            steps[row["step"]][row["stokes"]] = row
    whole = [steps[number] for number in sorted(steps) if "I" in steps[number]]
    return whole[:: -(-len(whole) // _MOST_STEPS)]


def _look(folder: Path, steps: Sequence[Mapping[str, Mapping[str, Any]]]) -> _Look:
    looked = [steps[round(i)] for i in np.linspace(0, len(steps) - 1, min(_LOOKED_AT, len(steps)))]
    intensities = [read_image(folder / step["I"]["path"])[1] for step in looked]
    mask = continuum_of(np.mean([plane.mean(axis=1) for plane in intensities], axis=0))
    shares = [
        np.abs(read_image(folder / step["V"]["path"])[1] / plane).mean(axis=1)
        for step, plane in zip(looked, intensities, strict=True)
        if "V" in step
    ]
    strongest = int(np.argmax(np.mean(shares, axis=0))) if shares else 0
    continuum, polarization, worlds = [], [], []
    for step in steps:
        header, plane = read_image(folder / step["I"]["path"])
        worlds.append(World.of(header))
        continuum.append(plane[mask].mean(axis=0))
        if shares:
            v = read_image(folder / step["V"]["path"])[1][strongest] if "V" in step else np.nan
            polarization.append(v / plane[strongest])
    radius = header.get("SOLARRAD")
    return _Look(
        continuum=np.array(continuum).T,
        polarization=np.array(polarization).T if shares else None,
        wavelength_nm=float(worlds[0].wavelengths_nm()[strongest]),
        worlds=worlds,
        radius_arcsec=float(radius) if isinstance(radius, int | float) and radius else _MEAN_RADIUS_ARCSEC,
        unit=str(header.get("BUNIT") or "counts"),
    )


def _draw(look: _Look, title: str) -> bytes:
    # Loaded when there is something to draw, which few processes have.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.9), dpi=90)
    FigureCanvasAgg(figure)
    # Ids come from outside: a dollar sign in one must not be read as a formula.
    figure.suptitle(title, fontsize=9, color=_INK, parse_math=False)
    # Set by hand: laying it out would cost as much as drawing it.
    figure.subplots_adjust(left=0.055, right=0.985, bottom=0.13, top=0.80, wspace=0.3)
    left, middle, right = figure.subplots(1, 3)
    _map(figure, left, look, look.continuum, "Continuum intensity", look.unit, "gray", None)
    if look.polarization is None:
        middle.text(0.5, 0.5, "V was not observed", ha="center", va="center", color=_INK, fontsize=9)
        middle.set_axis_off()
    else:
        limit = float(np.nanpercentile(np.abs(look.polarization), 99)) or 1e-3
        name = f"V/I at {look.wavelength_nm:.3f} nm"
        _map(figure, middle, look, 100 * look.polarization, name, "percent", "RdBu_r", 100 * limit)
    _disk(right, look)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _map(
    figure: Any,
    axes: Any,
    look: _Look,
    plane: Array,
    name: str,
    unit: str,
    colours: str,
    around: float | None,
) -> None:
    width, height = _extent(look.worlds)
    low, high = (-around, around) if around else np.nanpercentile(plane, (1, 99))
    image = axes.imshow(
        plane,
        origin="lower",
        cmap=colours,
        vmin=low,
        vmax=high,
        extent=(0, width, 0, height),
        aspect="equal" if 0.25 < width / height < 4 else "auto",
        interpolation="nearest",
    )
    axes.set_title(name, fontsize=9, color=_INK)
    axes.set_xlabel("across the slit, arcsec", fontsize=8)
    axes.set_ylabel("along the slit, arcsec", fontsize=8)
    axes.tick_params(labelsize=7)
    bar = figure.colorbar(image, ax=axes, shrink=0.85)
    bar.set_label(unit, fontsize=8)
    bar.ax.tick_params(labelsize=7)


def _extent(worlds: Sequence[World]) -> tuple[float, float]:
    """Width over all slit positions and length of the slit, in arcsec, edges of pixels included."""
    (x, y), (far_x, far_y) = worlds[0].along_slit(), worlds[-1].along_slit()
    slit = len(x)
    height = float(np.hypot(x[-1] - x[0], y[-1] - y[0])) * slit / max(1, slit - 1)
    across = float(np.hypot(far_x[0] - x[0], far_y[0] - y[0]))
    steps = len(worlds)
    width = across * steps / (steps - 1) if across else abs(worlds[0].delta[0])
    return width, height


def _disk(axes: Any, look: _Look) -> None:
    from matplotlib.patches import Circle

    axes.add_patch(Circle((0, 0), look.radius_arcsec, facecolor="#fff6dc", edgecolor="#d9a400", linewidth=1))
    slits = [look.worlds[i].along_slit() for i in (0, -1)]
    (x, y), (far_x, far_y) = slits
    corners = [(x[0], y[0]), (x[-1], y[-1]), (far_x[-1], far_y[-1]), (far_x[0], far_y[0]), (x[0], y[0])]
    axes.plot(*zip(*corners, strict=True), color=_ACCENT, linewidth=1.2)
    axes.plot(x[[0, -1]], y[[0, -1]], color=_INK, linewidth=1.6)
    centre = (x.mean() + far_x.mean()) / 2, (y.mean() + far_y.mean()) / 2
    around = 1.15 * look.radius_arcsec
    most = max(around, 1.05 * max(map(abs, centre)))
    axes.set(xlim=(-most, most), ylim=(-most, most), aspect="equal")
    where = f"at ({centre[0]:.0f}, {centre[1]:.0f}) arcsec"
    axes.set_title(f"Field of view {where}\nblack: the first position of the slit", fontsize=8, color=_INK)
    axes.set_xlabel("longitude, arcsec (helioprojective)", fontsize=8)
    axes.set_ylabel("latitude, arcsec", fontsize=8)
    axes.tick_params(labelsize=7)
    axes.axhline(0, color=_SHADE, linewidth=0.4, zorder=0)
