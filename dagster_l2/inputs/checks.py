"""Whether staged frames are those of the OP: what their headers say against the package and the store's list.

Judged from rows that say what each header says; no file is opened here. What follows is decided in
``staging``.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from dagster_l2.base.errors import L2Error
from dagster_l2.inputs.frames import Frame

CHECKS = 1
"""Counts the rules: a package that was checked by fewer is checked anew."""

# The store's time of a frame may be that of its begin or its middle, and exposures take seconds.
_APART = timedelta(seconds=10)
# Frames of one dataset differ by some pixels from the range that its record states.
_WAVELENGTH_SHARE = 0.1
_WAVELENGTH_LEAST_NM = 0.01

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong.

    Parameters
    ----------
    kind
        ``damaged``, ``header``, ``wavelength``, ``wcs``, ``time``, ``twice`` or ``missing``.
    object_key
        The frame; None when it is about the whole dataset.
    """

    kind: str
    dataset_id: str
    object_key: str | None
    message: str

    def as_dict(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


class FramesWrong(L2Error):
    """Frames arrived that are not those of the OP, or the list of them is too short.

    Parameters
    ----------
    of
        How many frames were looked at.
    list_file
        Where the findings are written.
    """

    def __init__(self, findings: Sequence[Finding], of: int, list_file: Path) -> None:
        first = findings[0]
        wrong = [one for one in findings if one.object_key is not None]
        text = f"{first.object_key or f'Dataset {first.dataset_id}'}: {first.message}"
        if wrong:
            text = f"{len(wrong)} of {of} frames are not those of the OP ({text})"
        super().__init__(f"{text}; all findings are listed in {list_file}.")
        self.keys = [one.object_key for one in wrong if one.object_key is not None]
        # What was damaged on its way may come whole another time.
        self.transient = all(one.kind == "damaged" for one in findings)


def check_frames(package: Row, frames: Iterable[Frame], arrived: Iterable[Row]) -> list[Finding]:
    """What is wrong with the staged frames of an OP.

    Parameters
    ----------
    package
        The input package.
    frames
        As the store lists them.
    arrived
        A row of the staging job for each frame: ``object_key, dataset_id`` and what the header says.

    Returns
    -------
    list of Finding
        At most one for a frame; empty when all is well.
    """
    of_store = list(frames)
    listed = {frame.object_key: frame for frame in of_store if frame.is_available}
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in arrived:
        rows[row["dataset_id"]].append(row)
    found = list(_too_few(package, of_store))
    for group in package["groups"]:
        for dataset in group["datasets"]:
            mine = rows[dataset["dataset_id"]]
            found += _of_dataset(package, dataset, mine, listed)
    return found


def not_listed(package: Row, frames: Iterable[Frame]) -> list[str]:
    """The datasets of a package of which the store lists no frame; they are referred to and not staged."""
    there = {frame.dataset_id for frame in frames}
    return sorted(
        dataset["dataset_id"]
        for group in package["groups"]
        for dataset in group["datasets"]
        if dataset["dataset_id"] not in there
    )


def _too_few(package: Row, listed: Iterable[Frame]) -> Iterator[Finding]:
    """A LOST or REMOVED frame is listed, too; the package names it, and nobody can bring it back."""
    counts = Counter(frame.dataset_id for frame in listed)
    for group in package["groups"]:
        for dataset in group["datasets"]:
            name, wanted = dataset["dataset_id"], dataset["frame_count"]
            if 0 < counts[name] < wanted:
                text = f"the store counts {wanted} frames and lists {counts[name]}"
                yield Finding("missing", name, None, text)


def _of_dataset(package: Row, dataset: Row, rows: list[Row], listed: Mapping[str, Frame]) -> list[Finding]:
    name = dataset["dataset_id"]
    found: dict[str, Finding] = {}

    def say(row: Row, kind: str, message: str) -> None:
        found.setdefault(row["object_key"], Finding(kind, name, row["object_key"], message))

    for row in rows:
        for kind, message in _of_frame(package, dataset, row, listed.get(row["object_key"])):
            say(row, kind, message)
    good = [row for row in rows if row["object_key"] not in found]
    for what, column in (("VSPARMID", "arm_id"), ("the size of the image", "shape")):
        usual = Counter(row[column] for row in good).most_common(1)
        for row in good:
            if row[column] != usual[0][0]:
                say(row, "header", f"{what} is {row[column]}, not {usual[0][0]} as in most of its dataset")
    for row, message in (*_twice(good), *_out_of_order(good)):
        say(row, "twice" if message.startswith("its place") else "time", message)
    return list(found.values())


def _of_frame(package: Row, dataset: Row, row: Row, listed: Frame | None) -> Iterator[tuple[str, str]]:
    if row["damage"] is not None:
        yield "damaged", row["damage"]
        return
    wanted = (
        ("DSETID", row["said_dataset_id"], dataset["dataset_id"]),
        ("OBSPR_ID", row["said_op_id"], package["op_id"]),
        ("IP_ID", row["said_program_id"], package["instrument_program_id"]),
    )
    for key, said, right in wanted:
        if said != right:
            yield "header", f"{key} is {said!r}, not {right!r}"
    stokes = dataset.get("stokes")
    if row["stokes"] is None or (stokes and row["stokes"] not in stokes):
        yield "header", f"STOKES is {row['stokes']!r}, not one of {stokes or 'IQUV'}"
    if row["map"] is None or row["step"] is None:
        yield "header", "VSPMAP or VSPSTP is missing, so its place in the raster is not known"
    if not row["has_wcs"]:
        yield "wcs", "it has no usable world coordinates (longitude, latitude, wavelength)"
    yield from _spectral(dataset, row)
    begins = row["begins_at"]
    if begins is None:
        yield "time", "DATE-BEG is missing or no time"
    elif listed is not None and abs(begins - listed.observed_at) > _APART:
        yield (
            "time",
            f"DATE-BEG is {begins.isoformat()}, not {listed.observed_at.isoformat()} as listed",
        )


def _spectral(dataset: Row, row: Row) -> Iterator[tuple[str, str]]:
    low, high = row["wavelength_min_nm"], row["wavelength_max_nm"]
    if low is None or high is None or not low < high:
        yield "wavelength", "WAVEMIN and WAVEMAX are no range"
        return
    first, last = dataset["wavelength_min_nm"], dataset["wavelength_max_nm"]
    if first is None or last is None:
        return
    slack = max(_WAVELENGTH_LEAST_NM, _WAVELENGTH_SHARE * (last - first))
    if low < first - slack or high > last + slack:
        yield "wavelength", f"it covers {low:.2f}–{high:.2f} nm, and its dataset {first:.2f}–{last:.2f} nm"


def _twice(rows: Sequence[Row]) -> Iterator[tuple[Row, str]]:
    seen: dict[tuple[Any, ...], str] = {}
    for row in sorted(rows, key=lambda row: row["object_key"]):
        place = (row["map"], row["step"], row["stokes"])
        if place in seen:
            yield row, f"its place (map, step, Stokes) {place} is that of {seen[place]}, too"
        seen.setdefault(place, row["object_key"])


def _out_of_order(rows: Sequence[Row]) -> Iterator[tuple[Row, str]]:
    """Of each Stokes parameter by itself: those of one step may follow each other or be taken at once."""
    last: dict[str, Row] = {}
    for row in sorted(rows, key=lambda row: (row["map"], row["step"])):
        before = last.get(row["stokes"])
        if before is not None and row["begins_at"] < before["begins_at"]:
            yield row, f"it begins before step {before['step']} of map {before['map']} does"
        else:
            last[row["stokes"]] = row
