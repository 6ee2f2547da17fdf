"""Pictures for the metadata of assets: the solar disk, counts by state, the rate of a download, its days.

No Dagster here, and nothing is decided. Matplotlib is loaded when there is something to draw, which most
processes that load the assets have not.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NUMBERS = re.compile(r"\(([-\d.eE+]+),([-\d.eE+]+)\),\(([-\d.eE+]+),([-\d.eE+]+)\)")
_MEAN_RADIUS_ARCSEC = 959.6
_WEEKS_WITH_NUMBERS = 16

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
    figure = _figure((6, 6))
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
    figure = _figure((6, 2.8))
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


def rate_plot(over_time: Mapping[str, Any]) -> bytes:
    """Requests per second over the time of a job, and those that were turned down, as PNG.

    Parameters
    ----------
    over_time
        As in a job's summary: ``start_s``, ``step_s``, and counts of ``api_requests`` and ``turned_down``.
    """
    from matplotlib.dates import ConciseDateFormatter

    step = over_time["step_s"]
    figure = _figure((7, 2.6))
    axes = figure.add_subplot()
    for name, label, colour in (
        ("api_requests", "sent", "#2f6fde"),
        ("turned_down", "turned down (429)", "#c62828"),
    ):
        values = [number / step for number in over_time[name]]
        seconds = range(over_time["start_s"], over_time["start_s"] + step * (len(values) + 1), step)
        moments: Any = [datetime.fromtimestamp(second, UTC) for second in seconds]
        if any(values) or name == "api_requests":
            axes.stairs(values, moments, fill=True, color=colour, alpha=0.8, label=label)
    axes.set(ylabel="requests/s", xlabel="UTC", ylim=(0, None))
    formatter: Any = ConciseDateFormatter
    axes.xaxis.set_major_formatter(formatter(axes.xaxis.get_major_locator()))
    axes.legend(loc="upper right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return _png(figure)


def availability_calendar(days: Mapping[date, tuple[str, float | None]]) -> bytes:
    """The days of a download in weeks, each coloured by its availability, as PNG.

    Parameters
    ----------
    days
        By day: the status of its window (``FAILED`` is drawn as such) and its availability in percent.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Rectangle

    first, last = min(days), max(days)
    monday = first - timedelta(days=first.weekday())
    weeks = (last - monday).days // 7 + 1
    figure = _figure((2.2 + 0.32 * max(weeks, 6), 2.6))
    axes = figure.add_subplot()
    colours = colormaps["RdYlGn"]
    for day, (status, share) in days.items():
        week, weekday = divmod((day - monday).days, 7)
        is_failed = status == "FAILED"
        colour = "#000000" if is_failed else colours(share / 100) if share is not None else "#e3e6ea"
        axes.add_patch(Rectangle((week, weekday), 0.9, 0.9, facecolor=colour))
        number = f"{share:.0f}" if share is not None and weeks <= _WEEKS_WITH_NUMBERS else ""
        text = "×" if is_failed else number
        # The ends of the scale are dark.
        is_dark = is_failed or (share is not None and not 15 < share < 85)
        shade = "white" if is_dark else "black"
        axes.text(week + 0.45, weekday + 0.45, text, ha="center", va="center", fontsize=6, color=shade)
    starts = range(0, weeks, max(1, weeks // 8))
    axes.set(xlim=(-0.1, max(weeks, 6)), ylim=(7, -0.1), aspect="equal")
    axes.set_xticks([week + 0.45 for week in starts])
    axes.set_xticklabels(
        [f"{monday + timedelta(weeks=week):%Y-%m-%d}" for week in starts], rotation=30, ha="right", fontsize=7
    )
    axes.set_yticks([n + 0.45 for n in range(7)])
    axes.set_yticklabels(["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"], fontsize=7)
    axes.set_title("Records received of those expected, percent (× failed)", fontsize=8)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
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


def _figure(inches: tuple[float, float]) -> Figure:
    from matplotlib.figure import Figure

    return Figure(figsize=inches, layout="constrained")


def _circle() -> Any:
    from matplotlib.patches import Circle

    return Circle((0, 0), _MEAN_RADIUS_ARCSEC, facecolor="#fff6dc", edgecolor="#d9a400", linewidth=1)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()
