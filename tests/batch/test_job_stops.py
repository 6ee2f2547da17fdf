"""What ends a job before its time: a refusal that is about no item, an interrupt, a smaller plan."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from dagster_l2.base.errors import L2Error
from dagster_l2.batch import Attempts, Chunk, FetchedChunk, JobRequest, Status, Stopped, Task, Wishes
from dagster_l2.batch.jobs import aggregate
from dagster_l2.lake import is_intact

from .job_kit import Place, TinySource, days, definition, expected_rows, make


class Refused(L2Error):
    exit_code = 2
    stops_job = True


class LockedSource(TinySource):
    """Refuses to answer while a file is there."""

    def __init__(self, lock: str, log: str | None = None) -> None:
        super().__init__(log=log)
        self._lock = Path(lock)

    def fetch(self, chunk: Chunk) -> FetchedChunk:
        if self._lock.exists() and chunk.start >= days(1, 1)[0].start:
            raise Refused("The server refused the token.")
        return super().fetch(chunk)


def make_locked(**params: Any) -> LockedSource:
    return LockedSource(**params)


def test_a_refusal_fails_no_window_and_the_job_goes_on_later(place: Place) -> None:
    lock, log = place.folder / "lock", place.folder / "log"
    lock.touch()
    chosen = definition(handler="tests.batch.test_job_stops:make_locked", batch_size=1)
    params = {"lock": str(lock), "log": str(log)}
    with pytest.raises(Refused, match="refused the token"):
        place.run(days(3), definition=chosen, source_params=params)
    (job,) = place.jobs().store.jobs()
    assert job.status is Status.RUNNING
    assert [task.claims for task in place.jobs().store.tasks(job.job_id)] == [0, 1, 0, 0]
    assert place.jobs().items.of_job(job.job_id) == []
    assert "FAILED" not in place.statuses()
    lock.unlink()
    done = place.run(days(3), definition=chosen, source_params=params)
    assert (done.job_id, done.downloaded, done.failed) == (job.job_id, 3, 0)
    assert len(log.read_text().split()) == 3 * 4


def test_who_joins_a_smaller_job_gets_the_rest_too(place: Place) -> None:
    """A run with a limit is interrupted; the next one has no limit."""
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        place.run(days(4), wishes=Wishes(limit=2), jobs={"stop": stop})
    done = place.run(days(4))
    assert (done.planned, done.downloaded, done.beyond_limit) == (4, 4, 0)
    frames = [pl.read_parquet(path) for path in (place.folder / "out").glob("*.parquet")]
    assert len(frames) == 2
    assert pl.concat(frames).n_unique(("sensor", "time")) == len(expected_rows(days(4)))


def test_who_joins_with_the_same_limit_does_not_do_more(place: Place) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        place.run(days(4), wishes=Wishes(limit=2), jobs={"stop": stop})
    done = place.run(days(4), wishes=Wishes(limit=2))
    assert (done.planned, done.downloaded, done.beyond_limit) == (2, 2, 2)


def test_another_job_at_one_of_the_windows_is_no_failure_of_this_one(place: Place) -> None:
    """Two runs over spans that overlap: the other begins with a day that this one has just brought home."""

    def other_begins(_task: Task) -> None:
        inputs = {**source.query, "format": "parquet", "schema_version": source.schema_version}
        Attempts(place.engine, query=inputs).start("another", "tiny", days(1))

    source = make()
    request = JobRequest(definition(), days(2))
    done = place.jobs().over(source, on_end=other_begins).run(request)
    assert (done.downloaded, done.failed, done.exit_code) == (2, 0, 0)


def test_an_interrupt_ends_the_merge_and_the_next_run_merges(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop = threading.Event()
    merge = aggregate.merge_files

    def interrupted(*args: Any, **options: Any) -> Any:
        stop.set()
        return merge(*args, **options)

    monkeypatch.setattr(aggregate, "merge_files", interrupted)
    with pytest.raises(Stopped):
        place.run(days(3), jobs={"stop": stop})
    assert list((place.folder / "out").iterdir()) == []
    monkeypatch.undo()
    done = place.run(days(3))
    assert done.downloaded == 3
    assert done.output is not None
    assert pl.read_parquet(done.output).equals(expected_rows(days(3)))


def test_a_merged_file_is_read_once_however_many_windows_are_in_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.run(days(6))
    looked: list[Path] = []

    def counted(path: Path) -> bool:
        looked.append(path)
        return is_intact(path)

    monkeypatch.setattr(aggregate, "is_intact", counted)
    assert place.run(days(6)).skipped_existing == 6
    assert len(looked) == len(set(looked)) * 2  # planned, and counted for the summary
