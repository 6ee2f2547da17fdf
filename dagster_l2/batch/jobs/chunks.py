"""Chunks that are finished: kept in a task's scratch folder, found again by a rerun.

A chunk is a parquet file and, written after it, a marker with its size, hash and counts. What fetches the
chunks, and what becomes of them, is in ``worker``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from dagster_l2.base.files import sha256, write_json
from dagster_l2.batch.commit import write_validated
from dagster_l2.batch.merge import Order, write_rows
from dagster_l2.batch.source import Chunk, FetchedChunk, Source


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """A finished chunk; its rows, if it has any, are in ``file``, or in ``frame`` where it is not kept."""

    file: Path | None
    marker: Path
    rows: int
    received: int
    expected: int | None
    bytes: int
    rejected: tuple[tuple[str, str], ...]
    fetched_at: datetime
    duplicates: int = 0
    is_reused: bool = False
    notes: Mapping[str, Any] | None = None
    frame: pl.DataFrame | None = None


class ChunkStore:
    """The finished chunks of one task, and those of earlier tries at the same windows.

    Parameters
    ----------
    is_kept
        Whether they lie on the disk, so that another try finds them.
    """

    def __init__(self, folder: Path, source: Source, *, is_kept: bool = True) -> None:
        self.folder = folder
        self._is_kept = is_kept
        self._schema = pl.Schema(source.schema)
        self._order = order_of(source)

    def clean(self) -> None:
        """Remove what a task that died has left half written."""
        for leftover in self.folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)

    def put(self, unit_id: str, chunk: Chunk, fetched: FetchedChunk) -> StoredChunk:
        """Keep a chunk that was fetched: its rows sorted and each key once, then its marker."""
        if not self._is_kept:
            return self._hold(chunk, fetched)
        self.folder.mkdir(parents=True, exist_ok=True)
        marker = self.folder / f"{chunk.chunk_id}.json"
        file: Path | None = None
        duplicates = fetched.duplicates
        content: dict[str, object] = {"unit_id": unit_id, "rows": 0}
        if len(fetched.frame):
            file = marker.with_suffix(".parquet")
            frame = self._order.once(self._cast(fetched.frame))
            duplicates += len(fetched.frame) - len(frame)
            written = write_validated(
                file, lambda path: write_rows(lambda: iter([frame]), path, self._schema), self._schema
            )
            content |= {"rows": written.rows, "file_bytes": written.bytes, "sha256": written.sha256}
        rejected = [list(pair) for pair in fetched.rejected]
        content |= {"received": fetched.received, "expected": fetched.expected, "bytes": fetched.bytes}
        content |= {"duplicates": duplicates}
        content |= {"rejected": rejected, "fetched_at": datetime.now(UTC).isoformat(), "notes": fetched.notes}
        write_json(marker, content)
        found = self._read(marker, unit_id, is_reused=False)
        if found is None:
            raise OSError(f"The chunk {marker.name} was written and can't be read; is the disk sound?")
        return found

    def find(
        self, unit_id: str, chunk: Chunk, earlier: Sequence[Path], may_use: Callable[[datetime], bool]
    ) -> StoredChunk | None:
        """A chunk that was finished before, by this task or in one of the ``earlier`` folders.

        ``may_use`` says whether what was fetched at a moment by another job is still the last word.
        """
        if not self._is_kept:
            return None
        name = f"{chunk.chunk_id}.json"
        own = self._read(self.folder / name, unit_id, is_reused=True)
        if own is not None:
            return own
        for folder in earlier:
            found = self._read(folder / name, unit_id, is_reused=True)
            is_ours = folder.parent == self.folder.parent
            if found is not None and (is_ours or may_use(found.fetched_at)):
                return found
        return None

    def forget(self, chunks: Sequence[StoredChunk]) -> None:
        """Remove chunks whose rows are safe elsewhere."""
        if not self._is_kept:
            return
        folders = {chunk.marker.parent for chunk in chunks} | {self.folder}
        for chunk in chunks:
            chunk.marker.unlink(missing_ok=True)
            if chunk.file is not None:
                chunk.file.unlink(missing_ok=True)
        for folder in folders:
            with contextlib.suppress(OSError):
                folder.rmdir()
                # That of this job stays until the job ends: another worker may be about to use it.
                if folder.parent != self.folder.parent:
                    folder.parent.rmdir()

    def _hold(self, chunk: Chunk, fetched: FetchedChunk) -> StoredChunk:
        frame = self._cast(fetched.frame) if len(fetched.frame) else None
        return StoredChunk(
            file=None,
            marker=self.folder / f"{chunk.chunk_id}.json",
            rows=len(fetched.frame),
            received=fetched.received,
            expected=fetched.expected,
            bytes=fetched.bytes,
            rejected=tuple((str(reason), str(raw)) for reason, raw in fetched.rejected),
            fetched_at=datetime.now(UTC),
            duplicates=fetched.duplicates,
            notes=fetched.notes,
            frame=frame,
        )

    def _cast(self, frame: pl.DataFrame) -> pl.DataFrame:
        if frame.schema == self._schema:
            return frame
        return frame.select(pl.col(name).cast(dtype) for name, dtype in self._schema.items())

    def _read(self, marker: Path, unit_id: str, *, is_reused: bool) -> StoredChunk | None:
        try:
            content = json.loads(marker.read_text(encoding="utf-8"))
            file = marker.with_suffix(".parquet") if content["rows"] else None
            if content["unit_id"] != unit_id:
                return None
            if file and (file.stat().st_size, sha256(file)) != (content["file_bytes"], content["sha256"]):
                return None
            return StoredChunk(
                file=file,
                marker=marker,
                rows=content["rows"],
                received=content["received"],
                expected=content["expected"],
                bytes=content["bytes"],
                rejected=tuple((str(reason), str(raw)) for reason, raw in content["rejected"]),
                fetched_at=datetime.fromisoformat(content["fetched_at"]),
                duplicates=content.get("duplicates", 0),
                is_reused=is_reused,
                notes=content.get("notes"),
            )
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None


def order_of(source: Source) -> Order:
    """How the rows of a source are sorted and which of one key stays."""
    return Order(tuple(source.sort_by), tuple(source.key), source.newest_by)
