"""Jobs without a merge: chunks that are not kept, what a source notes, and batches without a row."""

from __future__ import annotations

import errno
from pathlib import Path

import polars as pl
import pytest

from dagster_l2.base.files import watch_steps
from dagster_l2.batch import Chunk, FetchedChunk, read_notes
from dagster_l2.batch.merge import write_rows

from .job_kit import DAY, FIRST, Place, TinySource, days, definition, expected_rows


class NotingSource(TinySource):
    """Gives only the rows of the first two days, and notes how many it left out."""

    def fetch(self, chunk: Chunk) -> FetchedChunk:
        found = super().fetch(chunk)
        kept = found.frame if chunk.start < FIRST + 2 * DAY else found.frame.clear()
        return FetchedChunk(kept, found.received, notes={"left_out": len(found.frame) - len(kept)})


def make_noting() -> TinySource:
    return NotingSource()


def test_rows_notes_and_batches_without_a_row(place: Place) -> None:
    steps: list[str] = []
    watch_steps(steps.append)
    chosen = definition(
        handler="tests.batch.test_job_results:make_noting",
        phases=["initial", "retry"],
        keep_chunks=False,
        batch_size=2,
    )
    try:
        summary = place.run(days(4), definition=chosen)
    finally:
        watch_steps(None)
    assert (summary.downloaded, summary.failed) == (4, 0)
    folders = place.jobs().folders(str(summary.job_id))
    first, second = (task.task_id for task in place.jobs().store.tasks(folders.job_id) if task.batch_id)
    assert pl.read_parquet(folders.results(first)).equals(expected_rows(days(2)))
    assert not folders.results(second).exists()
    left_out = [[notes["left_out"] for _, notes in read_notes(folders.notes(t))] for t in (first, second)]
    assert left_out[0] == [0] * 8
    assert min(left_out[1]) == 24
    assert [window for window, _ in read_notes(folders.notes(second))[::4]] == days(2, 2)
    assert not (place.folder / "scratch").exists()
    # A transaction begins and one ends the attempts of a whole batch.
    assert sum(step.startswith("database: attempt") for step in steps) == 4


def test_chunks_that_are_not_kept_give_the_same_rows(place: Place, tmp_path: Path) -> None:
    kept = place.run(days(3), definition=definition())
    other = Place(tmp_path / "other", place.url)
    fresh = other.run(days(3), definition=definition(keep_chunks=False, name="unkept"), sweep_id="again")
    other.close()
    assert kept.output is not None
    assert fresh.output is not None
    assert kept.output.read_bytes() == fresh.output.read_bytes()


def test_a_full_disk_is_the_disks_fault_and_not_that_of_the_rows() -> None:
    frame = pl.DataFrame({"n": range(100_000)})
    with pytest.raises(OSError, match="No space left") as refused:
        write_rows(lambda: iter([frame]), Path("/dev/full"), frame.schema)
    assert refused.value.errno == errno.ENOSPC
