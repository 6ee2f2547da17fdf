"""What a job leaves on the disk: its rows once, and nothing that nobody needs; what is done stays known."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from dagster_l2.batch import FailureClass, Wishes, finished_folders, old_scratch

from .job_kit import Place, Server, days, definition, expected_rows

NOW, LONG = timedelta(0), timedelta(days=30)


def results(place: Place) -> list[Path]:
    return list((place.folder / "jobs").glob("*/tasks/*/results.parquet"))


def clean(place: Place, older_than: timedelta = NOW) -> list[str]:
    store = place.jobs().store
    found = [
        *finished_folders(
            store,
            place.folder / "jobs",
            place.folder / "scratch",
            older_than=older_than,
            is_taken_over=lambda folders: (folders.root / "taken").exists(),
        ),
        *old_scratch(store, place.folder / "scratch", older_than=older_than),
    ]
    for leftover in found:
        leftover.remove()
        leftover.remove()
    return [leftover.what for leftover in found]


def test_merged_rows_lie_on_the_disk_once_and_are_not_fetched_again(place: Place) -> None:
    done = place.run(days(3))
    assert done.output is not None
    assert done.output.exists()
    assert results(place) == []
    assert place.run(days(3)).skipped_existing == 3


def test_a_job_with_failures_keeps_its_rows_until_it_is_retried(
    place: Place, server: Server, url: str
) -> None:
    server.faults = {"01-02T12": (503, None)}
    chosen = definition(retries={"budget_s": 0}, batch_size=1)
    first = place.run(days(3), source_params={"url": url}, definition=chosen)
    assert (first.downloaded, first.failed) == (2, 1)
    assert len(results(place)) == 2
    assert clean(place, LONG) == []
    assert clean(place) == ["scratch"]
    server.faults, asked = {}, len(server.asked)
    place.jobs().retry(str(first.job_id), {FailureClass.PASSING})
    assert len(server.asked) - asked == 4  # the scratch was taken away
    again = place.run(
        days(3), source_params={"url": url}, definition=chosen, wishes=Wishes(retry_failed=True)
    )
    assert (again.skipped_existing, again.failed) == (3, 0)
    assert results(place) == []


def test_a_clean_folder_still_says_what_is_done(place: Place) -> None:
    done = place.run(days(2))
    root = place.root(done)
    assert clean(place, LONG) == []
    assert clean(place) == ["folder"]
    assert clean(place) == []
    assert sorted(path.name for path in root.iterdir()) == ["aggregation", "manifest.json", "summary.json"]
    assert place.run(days(2)).skipped_existing == 2
    assert done.output is not None
    assert pl.read_parquet(done.output).equals(expected_rows(days(2)))


@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_nothing_goes_whose_rows_are_not_whole_elsewhere(place: Place, damage: str) -> None:
    done = place.run(days(2))
    assert done.output is not None
    if damage == "gone":
        done.output.unlink()
    else:
        done.output.write_bytes(done.output.read_bytes()[:-1])
    assert clean(place) == []


def test_rows_of_a_job_without_a_merge_stay_until_they_are_taken_over(place: Place) -> None:
    done = place.run(days(2), definition=definition(phases=["initial", "retry"]))
    assert len(results(place)) == 1
    assert clean(place) == []
    (place.root(done) / "taken").touch()
    assert clean(place) == ["folder"]


def test_what_is_clean_is_not_read_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for first in range(3):
        place.run(days(1, first))
    assert clean(place) == ["folder"] * 3
    read: list[Path] = []
    monkeypatch.setattr("dagster_l2.lake.commit.sha256", lambda path: read.append(path) or "")
    assert clean(place) == []
    assert read == []
