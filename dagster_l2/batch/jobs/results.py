"""What a task hands over: the rows of its complete windows, what could not be read, and the source's notes.

When it does so is in ``worker``; how a file comes to count is in ``commit``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from dagster_l2.base.files import write_json
from dagster_l2.batch.commit import commit_rows
from dagster_l2.batch.jobs.chunks import StoredChunk, order_of
from dagster_l2.batch.jobs.folders import JobFolders
from dagster_l2.batch.jobs.model import Batch, Task, window_from_json, window_to_json
from dagster_l2.batch.jobs.work import WindowWork
from dagster_l2.batch.merge import merge_files, write_rows
from dagster_l2.batch.source import Source
from dagster_l2.batch.windows import Window

REJECTED_SCHEMA: dict[str, pl.DataType] = {
    "window_start": pl.Datetime("us"),
    "reason": pl.String(),
    "raw_json": pl.String(),
}


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What a task committed; ``has_rows`` False: there is no file of rows."""

    rows: int = 0
    duplicates_removed: int = 0
    bytes: int = 0
    has_rows: bool = False


def hand_over(
    folders: JobFolders,
    source: Source,
    task: Task,
    batch: Batch,
    works: Sequence[WindowWork],
    *,
    may_be_none: bool,
    check: Callable[[], None],
) -> HandedOver:
    """Commit the rows of the complete windows, and beside them what was rejected and noted.

    Parameters
    ----------
    may_be_none
        Whether a task without a row writes no file of rows.
    check
        Called now and then; what it raises ends the work.
    """
    found = [(work, work.stored[chunk]) for work in works for chunk in work.chunks if chunk in work.stored]
    stored = [chunk for _work, chunk in found]
    path = folders.results(task.task_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    rejected = [
        (work.window.start.replace(tzinfo=None), reason, raw)
        for work, chunk in found
        for reason, raw in chunk.rejected
    ]
    if rejected:
        frame = pl.DataFrame(rejected, schema=REJECTED_SCHEMA, orient="row")
        commit_rows(
            folders.rejected(task.task_id),
            lambda temporary: _write(frame, temporary),
            REJECTED_SCHEMA,
            job_id=task.job_id,
            batch_id=batch.batch_id,
        )
    notes = [
        {**window_to_json(work.window), "notes": chunk.notes}
        for work, chunk in found
        if chunk.notes is not None
    ]
    if notes:
        write_json(folders.notes(task.task_id), notes, indent=None)
    if may_be_none and not any(chunk.rows for chunk in stored):
        return HandedOver()
    removed = 0

    def fill(temporary: Path) -> int:
        nonlocal removed
        rows, removed = _fill(source, stored, temporary, path.parent, check)
        return rows

    manifest = commit_rows(path, fill, dict(source.schema), job_id=task.job_id, batch_id=batch.batch_id)
    removed += sum(chunk.duplicates for chunk in stored)
    return HandedOver(manifest.row_count, removed, manifest.bytes, has_rows=True)


def _fill(
    source: Source, stored: Sequence[StoredChunk], path: Path, scratch: Path, check: Callable[[], None]
) -> tuple[int, int]:
    """Write the rows of chunks as one file: rows, duplicates removed."""
    schema, order = dict(source.schema), order_of(source)
    frames = [chunk.frame for chunk in stored if chunk.frame is not None]
    if frames:
        whole = pl.concat(frames)
        once = order.once(whole)
        return write_rows(lambda: iter([once]), path, schema), len(whole) - len(once)
    files = [chunk.file for chunk in stored if chunk.file is not None]
    merged = merge_files(files, path, order=order, schema=schema, scratch=scratch, check=check)
    return merged.rows, merged.duplicates_removed


def read_notes(path: Path) -> list[tuple[Window, Mapping[str, Any]]]:
    """What a source noted of the chunks of a task, by window; nothing where there is no such file."""
    if not path.exists():
        return []
    return [(window_from_json(one), one["notes"]) for one in json.loads(path.read_text(encoding="utf-8"))]


def _write(frame: pl.DataFrame, path: Path) -> int:
    frame.write_parquet(path)
    return len(frame)
