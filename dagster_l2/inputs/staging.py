"""Frames brought into the input package of an OP, as a source of the batch engine.

A window is a day of observation, a chunk some of its frames; the rows say what arrived and its SHA-256. When
an OP is staged, and what follows when it can't be, is decided outside.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from dagster_l2.batch import DAY, Chunk, FailureClass, FetchedChunk, Window
from dagster_l2.errors import L2Error, one_sentence_of
from dagster_l2.files import sha256, write_json
from dagster_l2.inputs.frames import FRAMES_FOLDER, Frame, digest
from dagster_l2.inputs.objects import FrameNotFetched, Objects
from dagster_l2.inputs.package import read_package, write_package

SOURCE = "frames"
STAGED_FILE = "frames.json"
_MOST_IN_CHUNK = 64
_SCHEMA: dict[str, pl.DataType] = {
    "object_key": pl.String(),
    "dataset_id": pl.String(),
    "path": pl.String(),
    "bytes": pl.Int64(),
    "sha256": pl.String(),
    "observed_at": pl.Datetime("us"),
}


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
    """

    name = SOURCE
    schema_version = 1
    schema: Mapping[str, pl.DataType] = _SCHEMA
    key: tuple[str, ...] = ("observed_at", "object_key")
    newest_by = "bytes"  # a frame never changes: either of two rows of one will do
    sort_by: tuple[str, ...] = ("observed_at", "object_key")

    def __init__(self, op_id: str, frames: Sequence[Frame], folder: Path, objects: Objects) -> None:
        self._frames = sorted(
            (frame for frame in frames if frame.is_available), key=lambda frame: frame.observed_at
        )
        self._folder, self._objects = folder / FRAMES_FOLDER, objects
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
            if since >= _MOST_IN_CHUNK and begins > second:
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
        for frame in self._between(chunk.start, chunk.end):
            target = self._folder / frame.path
            try:
                if not (target.is_file() and frame.size in (None, target.stat().st_size)):
                    self._objects.fetch(frame, target)
            except FrameNotFetched as error:
                failed.append((frame, error))
                continue
            except OSError as error:
                raise StagingStopped(one_sentence_of(error)) from error
            rows.append(
                (
                    frame.object_key,
                    frame.dataset_id,
                    str(Path(FRAMES_FOLDER) / frame.path),
                    target.stat().st_size,
                    sha256(target),
                    frame.observed_at,
                )
            )
        if failed:
            raise FramesNotStaged(
                one_sentence_of(failed[0][1]),
                [frame.object_key for frame, _ in failed],
                is_passing=any(error.transient for _, error in failed),
            )
        frame_rows = pl.DataFrame(rows, schema=_SCHEMA, orient="row")
        total = int(frame_rows["bytes"].sum())
        return FetchedChunk(frame_rows, received=len(rows), expected=len(rows), bytes=total)

    def _between(self, start: datetime, end: datetime) -> list[Frame]:
        low, high = start.replace(tzinfo=None), end.replace(tzinfo=None)
        return [frame for frame in self._frames if low <= frame.observed_at < high]


def absent(folder: Path, frames: Sequence[Frame]) -> list[str]:
    """The keys of the available frames that are not staged whole."""
    out = []
    for frame in frames:
        target = folder / FRAMES_FOLDER / frame.path
        if frame.is_available and not (target.is_file() and frame.size in (None, target.stat().st_size)):
            out.append(frame.object_key)
    return out


def bytes_of(frames: Sequence[Frame]) -> int:
    """What the available frames take, as far as the store says."""
    return sum(frame.size or 0 for frame in frames if frame.is_available)


def staged_bytes(folder: Path) -> int:
    """What the frames in an input package take."""
    root = folder / FRAMES_FOLDER
    return sum(path.stat().st_size for path in root.rglob("*") if path.is_file()) if root.is_dir() else 0


def is_staged(folder: Path, frames: Sequence[Frame]) -> bool:
    """Whether a package says that just these frames are staged, and they are there."""
    said = read_package(folder).get("frames") or {}
    return said.get("listed") == digest(frames) and not absent(folder, frames)


def mark_staged(folder: Path, frames: Sequence[Frame], arrived: pl.DataFrame) -> dict[str, Any]:
    """Write down what was staged: each frame in ``frames.json``, the sums in the package.

    Returns
    -------
    dict
        What the package says of its frames.
    """
    rows = arrived.sort("observed_at", "object_key").drop("observed_at").to_dicts()
    write_json(folder / STAGED_FILE, rows, indent=None)
    said = {
        "folder": FRAMES_FOLDER,
        "files": len(rows),
        "bytes": int(arrived["bytes"].sum()),
        "listed": digest(frames),
        "list": STAGED_FILE,
        "sha256": sha256(folder / STAGED_FILE),
        "lost": [frame.object_key for frame in frames if frame.status == "LOST"],
        "removed": [frame.object_key for frame in frames if frame.status == "REMOVED"],
    }
    write_package(folder, {**read_package(folder), "staged": True, "frames": said})
    return said


def evict(folder: Path) -> int:
    """Remove the staged frames of an OP; how many bytes that made free. The list of them stays."""
    freed = staged_bytes(folder)
    if (folder / FRAMES_FOLDER).is_dir():
        package = read_package(folder)
        if package.get("staged"):
            write_package(folder, {**package, "staged": False})
        shutil.rmtree(folder / FRAMES_FOLDER)
    return freed
