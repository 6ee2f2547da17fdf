"""Frames brought into the input package of an OP, as a source of the batch engine.

A window is a day of observation, a chunk some of its frames; the rows say what arrived, its SHA-256 and what
its header says. When an OP is staged, and what follows when it can't be, is decided outside.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from dagster_l2.base.errors import L2Error, one_sentence_of
from dagster_l2.base.files import sha256, write_json
from dagster_l2.batch import DAY, Chunk, FailureClass, FetchedChunk, Window
from dagster_l2.inputs.checks import CHECKS, not_listed
from dagster_l2.inputs.frames import (
    CUBES_FOLDER,
    FRAMES_FOLDER,
    LISTING_FILE,
    Frame,
    FrameListUnusable,
    digest,
    read_listing,
)
from dagster_l2.inputs.level1 import HEADER_SCHEMA, read_header
from dagster_l2.inputs.objects import FrameNotFetched, Objects
from dagster_l2.inputs.package import read_package, write_package
from dagster_l2.inputs.pictures import PICTURE_FILE

SOURCE = "frames"
STAGED_FILE = "frames.json"
MISSING_FILE = "frames_missing.json"
WRONG_FILE = "frames_wrong.json"
_SCHEMA: dict[str, pl.DataType] = {
    "object_key": pl.String(),
    "dataset_id": pl.String(),
    "path": pl.String(),
    "bytes": pl.Int64(),
    "sha256": pl.String(),
    "observed_at": pl.Datetime("us"),
    **HEADER_SCHEMA,
}
# What is kept of a header once it was checked: the frame's place in the raster.
_KEPT = ("object_key", "dataset_id", "path", "bytes", "sha256", "stokes", "map", "step", "begins_at")


class FramesNotStaged(L2Error):
    """Some of the frames that the store lists did not arrive; ``keys`` are theirs.

    Parameters
    ----------
    is_passing
        Whether they may arrive later.
    """

    def __init__(self, message: str, keys: Sequence[str] = (), *, is_passing: bool = False) -> None:
        super().__init__(message)
        self.keys = list(keys)
        self.failure_class = FailureClass.PASSING if is_passing else FailureClass.PERMANENT
        self.transient = is_passing


class StagingStopped(L2Error):
    """The disk refuses frames: none of them failed, and the job is gone on with."""

    transient = True
    stops_job = True


class FrameStaging:
    """The available frames of one OP, for the batch engine.

    Parameters
    ----------
    frames
        As the store lists them.
    folder
        Of the input package; the frames come below its ``frames``.
    objects
        Where they come from.
    progress
        Told how many frames are here, of how many, as they come; from several threads.
    """

    name = SOURCE
    schema_version = 2
    schema: Mapping[str, pl.DataType] = _SCHEMA
    key: tuple[str, ...] = ("observed_at", "object_key")
    newest_by = "bytes"  # a frame never changes: either of two rows of one will do
    sort_by: tuple[str, ...] = ("observed_at", "object_key")

    def __init__(
        self,
        op_id: str,
        frames: Sequence[Frame],
        folder: Path,
        objects: Objects,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self._frames = sorted(
            (frame for frame in frames if frame.is_available), key=lambda frame: frame.observed_at
        )
        self._folder, self._objects = folder / FRAMES_FOLDER, objects
        self._progress, self._here = progress, itertools.count(1)
        self.query: Mapping[str, Any] = {"op_id": op_id, "frames": digest(frames)}

    def windows(self) -> list[Window]:
        """The days on which they were taken."""
        days = sorted({frame.observed_at.date() for frame in self._frames})
        starts = [datetime(day.year, day.month, day.day, tzinfo=UTC) for day in days]
        return [Window(start, start + DAY) for start in starts]

    def can_change(self, window: Window, now: datetime) -> bool:  # noqa: ARG002 - the engine's contract
        """Never: another list of frames is another unit of work."""
        return False

    def chunks(self, window: Window) -> list[Chunk]:
        """Some frames each, cut at whole seconds."""
        cuts, since = [window.start], 0
        second = window.start
        for frame in self._between(window.start, window.end):
            begins = frame.observed_at.replace(microsecond=0, tzinfo=UTC)
            if since >= self._objects.most_at_once and begins > second:
                cuts.append(begins)
                since = 0
            since, second = since + 1, begins
        return [Chunk(start, end) for start, end in zip(cuts, [*cuts[1:], window.end], strict=True)]

    def expected_records(self, window: Window) -> int:
        """How many frames were taken on a day."""
        return len(self._between(window.start, window.end))

    def fetch(self, chunk: Chunk) -> FetchedChunk:
        """Bring the frames of a chunk here; what is here already is only looked at.

        Raises
        ------
        FramesNotStaged
            When some did not arrive; the others stay.
        """
        rows, failed = [], []
        wanted = [(frame, self._folder / frame.path) for frame in self._between(chunk.start, chunk.end)]
        missing = {target for frame, target in wanted if not _is_here(frame, target)}
        if missing:
            self._gather([one for one in wanted if one[1] in missing])
        for frame, target in wanted:
            try:
                if target in missing:
                    self._objects.fetch(frame, target)
                rows.append(self._row(frame, target))
                if self._progress is not None:
                    self._progress(next(self._here), len(self._frames))
            except FrameNotFetched as error:
                failed.append((frame, error))
            except OSError as error:
                raise StagingStopped(one_sentence_of(error)) from error
        if failed:
            raise FramesNotStaged(
                one_sentence_of(failed[0][1]),
                [frame.object_key for frame, _ in failed],
                is_passing=any(error.transient for _, error in failed),
            )
        frame_rows = pl.DataFrame(rows, schema=_SCHEMA)
        total = int(frame_rows["bytes"].sum())
        return FetchedChunk(frame_rows, received=len(rows), expected=len(rows), bytes=total)

    def _gather(self, wanted: Sequence[tuple[Frame, Path]]) -> None:
        try:
            self._objects.gather(wanted)
        except FrameNotFetched as error:
            keys = [frame.object_key for frame, _ in wanted]
            raise FramesNotStaged(str(error), keys, is_passing=error.transient) from None
        except OSError as error:
            raise StagingStopped(one_sentence_of(error)) from error

    @staticmethod
    def _row(frame: Frame, target: Path) -> dict[str, Any]:
        return {
            "object_key": frame.object_key,
            "dataset_id": frame.dataset_id,
            "path": str(Path(FRAMES_FOLDER) / frame.path),
            "bytes": target.stat().st_size,
            "sha256": sha256(target),
            "observed_at": frame.observed_at,
            **read_header(target),
        }

    def _between(self, start: datetime, end: datetime) -> list[Frame]:
        low, high = start.replace(tzinfo=None), end.replace(tzinfo=None)
        return [frame for frame in self._frames if low <= frame.observed_at < high]


def _is_here(frame: Frame, target: Path) -> bool:
    return target.is_file() and frame.size in (None, target.stat().st_size)


def absent(folder: Path, frames: Sequence[Frame]) -> list[str]:
    """The keys of the available frames that are not staged whole."""
    out = []
    for frame in frames:
        target = folder / FRAMES_FOLDER / frame.path
        if frame.is_available and not _is_here(frame, target):
            out.append(frame.object_key)
    return out


def remove_frames(folder: Path, frames: Sequence[Frame], keys: Iterable[str]) -> None:
    """Remove staged frames, so that they are fetched anew."""
    wanted = set(keys)
    for frame in frames:
        if frame.object_key in wanted:
            (folder / FRAMES_FOLDER / frame.path).unlink(missing_ok=True)


def bytes_of(frames: Sequence[Frame]) -> int:
    """What the available frames take, as far as the store says."""
    return sum(frame.size or 0 for frame in frames if frame.is_available)


def staged_bytes(folder: Path) -> int:
    """What the frames in an input package, and the cubes made of them, take."""
    total = 0
    for root in (folder / FRAMES_FOLDER, folder / CUBES_FOLDER):
        for where, _, names in os.walk(root):
            for name in names:
                with suppress(FileNotFoundError):  # somebody else gave it another name just now
                    total += (Path(where) / name).stat().st_size
    return total


def is_staged(folder: Path, frames: Sequence[Frame]) -> bool:
    """Whether a package says that just these frames are staged and were checked, and they are there."""
    package = read_package(folder)
    said = package.get("frames") or {}
    is_said = package["staged"] and said.get("listed") == digest(frames) and said.get("checks") == CHECKS
    return bool(is_said) and not absent(folder, frames)


def mark_staged(
    folder: Path, frames: Sequence[Frame], arrived: pl.DataFrame, provenance: Mapping[str, Any]
) -> dict[str, Any]:
    """Write down what was staged: each frame in ``frames.json``, the sums in the package.

    Parameters
    ----------
    provenance
        Where the frames came from, when, and by what.

    Returns
    -------
    dict
        What the package says of its frames.
    """
    rows = arrived.sort("observed_at", "object_key").select(_KEPT).to_dicts()
    for row in rows:
        row["begins_at"] = row["begins_at"].isoformat()
    write_json(folder / STAGED_FILE, rows, indent=None)
    package = read_package(folder)
    said = {
        "folder": FRAMES_FOLDER,
        "files": len(rows),
        "bytes": int(arrived["bytes"].sum()),
        "listed": digest(frames),
        "checks": CHECKS,
        "list": STAGED_FILE,
        "sha256": sha256(folder / STAGED_FILE),
        "lost": [frame.object_key for frame in frames if frame.status == "LOST"],
        "removed": [frame.object_key for frame in frames if frame.status == "REMOVED"],
        "datasets_not_listed": not_listed(package, frames),
        "provenance": dict(provenance),
    }
    package.pop("cubes", None)  # those of other frames
    write_package(folder, {**package, "staged": True, "frames": said})
    return said


def staged_frames(folder: Path) -> list[dict[str, Any]]:
    """The frames that were staged, as `mark_staged` listed them.

    Raises
    ------
    FramesNotStaged
        When the package has none, or their list is damaged.
    """
    try:
        said = read_package(folder)["frames"]
        if not read_package(folder)["staged"] or sha256(folder / STAGED_FILE) != said["sha256"]:
            raise KeyError
        rows: list[dict[str, Any]] = json.loads((folder / STAGED_FILE).read_text(encoding="utf-8"))
    except (OSError, KeyError, ValueError):
        raise FramesNotStaged(f"No frames are staged in {folder}; `l2 stage` brings them.") from None
    return rows


def evict(folder: Path) -> int:
    """Remove the staged frames of an OP and the cubes made of them; how many bytes that made free.

    The list of the frames, their hashes and the picture stay.
    """
    freed = staged_bytes(folder)
    roots = [folder / name for name in (FRAMES_FOLDER, CUBES_FOLDER) if (folder / name).is_dir()]
    if roots:
        package = read_package(folder)
        if package.pop("cubes", None) is not None or package["staged"]:
            write_package(folder, {**package, "staged": False})
    for root in roots:
        shutil.rmtree(root)
    return freed


def standing(folder: Path) -> dict[str, Any]:
    """How the staging of an OP stands, also while it goes on; None for what is not known.

    Returns
    -------
    dict
        ``staged``; ``frames`` here of ``frames_listed``, ``bytes`` of ``bytes_listed``; what did not arrive
        (``missing``) and what was wrong (``wrong``); ``picture`` and ``cubes``, paths in the folder.
    """
    package = read_package(folder)
    out: dict[str, Any] = {"staged": bool(package["staged"]), "frames": None, "frames_listed": None}
    out |= {"bytes": staged_bytes(folder), "bytes_listed": None}
    with suppress(FrameListUnusable):
        frames = [frame for frame in read_listing(folder / LISTING_FILE) if frame.is_available]
        out["frames"] = len(frames) - len(absent(folder, frames))
        out |= {"frames_listed": len(frames), "bytes_listed": bytes_of(frames)}
    out["missing"] = _read_list(folder / MISSING_FILE)
    out["wrong"] = _read_list(folder / WRONG_FILE)
    out["picture"] = PICTURE_FILE if (folder / PICTURE_FILE).is_file() else None
    out["cubes"] = [f"{CUBES_FOLDER}/{path.name}" for path in sorted((folder / CUBES_FOLDER).glob("*.fits"))]
    return out


def _read_list(path: Path) -> list[Any]:
    try:
        return list(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return []
