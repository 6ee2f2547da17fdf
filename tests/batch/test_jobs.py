"""Jobs over a real server: what comes out, what is kept, what is asked again and what never."""

from __future__ import annotations

import json
import shutil
import threading
import time
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from dagster_l2.base.files import watch_steps
from dagster_l2.batch import (
    FailureClass,
    JobError,
    JobRequest,
    Stopped,
    Wishes,
    batch_attempts,
    coverage,
    new_job_id,
    read_attempts,
)

from .job_kit import Place, Server, days, definition, expected_rows

NO_RETRY = {"budget_s": 0}


def test_a_job_leaves_one_file_of_everything_and_all_its_manifests(
    place: Place, server: Server, url: str
) -> None:
    server.spoil = {"01-02T06"}
    summary = place.run(days(5), source_params={"url": url}, run_id="run-1", git_commit="abc")
    assert (summary.planned, summary.downloaded, summary.exit_code) == (5, 5, 0)
    assert summary.output is not None
    whole = expected_rows(days(5))
    spoiled = whole.filter((pl.col("sensor") == "REACH-101") & (pl.col("time") == pl.datetime(2025, 1, 2, 6)))
    assert pl.read_parquet(summary.output).equals(whole.join(spoiled, on=["sensor", "time"], how="anti"))

    job = place.read(summary, "manifest.json")
    assert (job["status"], job["job_type"], job["git_commit"], job["batch_size"]) == (
        "SUCCESS",
        "tiny",
        "abc",
        2,
    )
    assert job["phases"] == ["initial", "retry", "aggregation"]
    tasks = place.task_manifests(summary)
    assert [task["group"] for task in tasks] == ["coordinator", *["initial_batch"] * 3, "final_aggregation"]
    assert {task["status"] for task in tasks} == {"SUCCESS"}
    assert all(task["start_time"] <= task["end_time"] for task in tasks)
    first = tasks[1]["metrics"]
    assert (first["windows"], first["items"], first["api_requests"], first["records"]) == (2, 8, 8, 193)
    assert (first["rows"], first["rejected"], first["duplicates_removed"]) == (191, 1, 1)
    rejected = pl.read_parquet(place.root(summary) / "tasks" / tasks[1]["task_id"] / "rejected.parquet")
    assert rejected["reason"].to_list() == ["no value"]
    assert '"much"' in rejected["raw_json"][0]

    done = place.read(summary, "aggregation/manifest.json")
    assert done["row_counts_by_batch"] == {"batch-00000": 191, "batch-00001": 193, "batch-00002": 97}
    assert (done["total_rows"], done["duplicates_removed"]) == (479, 2)
    result = json.loads((place.root(summary) / "tasks" / tasks[1]["task_id"] / "results.done").read_text())
    assert (result["batch_id"], result["row_count"], result["status"]) == ("batch-00000", 191, "DONE")
    assert json.loads(summary.output.with_suffix(".done").read_text())["sha256"] == done["output_hash"]
    assert place.read(summary, "summary.json")["totals"]["records"] == 484
    batch = place.root(summary) / "batches" / "batch-00000.json"
    assert batch.stat().st_mode & 0o222 == 0
    assert not (place.folder / "scratch" / f"job_{summary.job_id}").exists()


def test_the_scratch_of_a_running_job_stays_between_its_tasks(place: Place) -> None:
    """Another worker may be about to make its folder in it, or to look for chunks there."""
    seen: list[bool] = []
    watch_steps(lambda _step: seen.append(any((place.folder / "scratch").glob("job_*"))))
    try:
        place.run(days(4), definition=definition(batch_size=1))
    finally:
        watch_steps(None)
    assert [stays for stays, _ in groupby(seen)] == [False, True, False]


def test_a_second_run_asks_nothing_and_another_query_asks_for_its_own(
    place: Place, server: Server, url: str
) -> None:
    place.run(days(2), source_params={"url": url})
    asked = len(server.asked)
    again = place.run(days(2), source_params={"url": url})
    assert (again.planned, again.skipped_existing, again.attempted) == (2, 2, 0)
    assert (len(server.asked), again.job_id, again.output) == (asked, None, None)
    for changed in ({"source_params": {"url": url, "descriptor": "B"}}, {"format": "csv"}, {"sweep_id": "2"}):
        other = place.run(days(2), **{"source_params": {"url": url}, **changed})
        assert other.downloaded == 2
    assert len(server.asked) == 4 * asked


@pytest.mark.parametrize("damage", ["empty", "cut", "gone", "unmarked"])
def test_an_output_that_is_damaged_is_fetched_again(
    place: Place, server: Server, url: str, damage: str
) -> None:
    first = place.run(days(2), source_params={"url": url})
    assert first.output is not None
    content = first.output.read_bytes()
    if damage == "gone":
        first.output.unlink()
    elif damage == "unmarked":
        first.output.with_suffix(".done").unlink()
    else:
        first.output.write_bytes(b"" if damage == "empty" else content[:-8] + b"\0" * 8)
    again = place.run(days(2), source_params={"url": url})
    assert again.downloaded == 2
    assert again.output is not None
    assert again.output.read_bytes() == content


def test_one_failing_chunk_keeps_the_others_and_only_it_is_asked_again(
    place: Place, server: Server, url: str
) -> None:
    server.faults = {"01-02T12": (503, None)}
    few = definition(retries=NO_RETRY, batch_size=3)
    first = place.run(days(3), source_params={"url": url}, definition=few)
    assert (first.downloaded, first.failed, first.exit_code) == (2, 1, 1)
    assert first.output is not None
    assert pl.read_parquet(first.output).equals(expected_rows([days(3)[0], days(3)[2]]))
    assert place.read(first, "manifest.json")["status"] == "FAILED"

    skipped = place.run(days(3), source_params={"url": url}, definition=few)
    assert (skipped.skipped_existing, skipped.failed, skipped.attempted) == (2, 1, 0)
    server.faults, asked = {}, len(server.asked)
    again = place.run(days(3), source_params={"url": url}, definition=few, wishes=Wishes(retry_failed=True))
    assert (again.downloaded, again.skipped_existing, again.failed) == (1, 2, 0)
    assert server.asked[asked:] == ["01-02T12"]
    assert again.output is not None
    alone = pl.read_parquet(again.output)
    assert alone.filter(pl.col("time") >= pl.datetime(2025, 1, 2)).equals(
        expected_rows(days(1, 1)).filter(pl.col("time") >= pl.datetime(2025, 1, 2))
    )


def test_a_passing_failure_is_tried_again_until_it_passes(place: Place, server: Server, url: str) -> None:
    server.faults = {"01-01T06": (503, 2), "01-04T00": (503, 1)}
    summary = place.run(days(4), source_params={"url": url})
    assert (summary.downloaded, summary.exit_code) == (4, 0)
    assert summary.output is not None
    assert pl.read_parquet(summary.output).equals(expected_rows(days(4)))
    asked = server.count()
    assert (asked.pop("01-01T06"), asked.pop("01-04T00")) == (3, 2)
    assert set(asked.values()) == {1}
    groups = [task["group"] for task in place.task_manifests(summary)]
    assert groups.count("retry_batch_1") == 2
    assert groups.count("retry_batch_2") == 1
    retry = place.read(summary, "retries/retry-1/manifest.json")
    assert (len(retry["failed_tasks"]), retry["error_types"]) == (2, {"ChunkFailed": 2})
    assert len(retry["retries_launched"]) == 2
    assert [item.status for item in place.jobs().items.of_job(str(summary.job_id))] == ["DONE", "DONE"]


def test_retries_end_with_the_budget_of_time(place: Place, server: Server, url: str) -> None:
    server.faults = {"01-01T06": (503, None)}
    short = definition(retries={"budget_s": 1.0, "first_wait_s": 0.1, "max_wait_s": 0.1})
    started = time.monotonic()
    summary = place.run(days(1), source_params={"url": url}, definition=short)
    assert (summary.failed, summary.output) == (1, None)
    assert 3 <= server.count()["01-01T06"] <= 11
    assert time.monotonic() - started < 8


def test_a_permanent_failure_is_kept_and_retried_only_on_a_persons_word(
    place: Place, server: Server, url: str
) -> None:
    server.faults = {"01-02T06": (400, None), "01-03T06": (503, 1)}
    first = place.run(days(4), source_params={"url": url})
    assert (first.downloaded, first.failed) == (3, 1)
    assert server.count()["01-02T06"] == 1
    jobs, job_id = place.jobs(), str(first.job_id)
    (item,) = [item for item in jobs.items.of_job(job_id) if item.status != "DONE"]
    assert (item.failure_class, item.attempts, item.error_type) == ("permanent", 1, "ChunkFailed")
    assert item.first_at <= item.last_at
    assert place.read(first, "summary.json")["failures_by_class"] == {"permanent": 1}
    with pytest.raises(JobError, match=r"Nothing in job .* failed as passing"):
        jobs.retry(job_id, {FailureClass.PASSING})

    server.faults, asked = {}, len(server.asked)
    assert jobs.retry(job_id, {FailureClass.PERMANENT}).status == "SUCCESS"
    assert server.asked[asked:] == ["01-02T06"]
    assert first.output is not None
    assert pl.read_parquet(first.output).equals(expected_rows(days(4)))
    assert place.run(days(4), source_params={"url": url}).skipped_existing == 4


def test_what_is_gone_is_listed_never_asked_again_and_never_counted_as_done(
    place: Place, server: Server, url: str
) -> None:
    server.faults = {"01-01T06": (410, None), **{f"01-02T{hour:02d}": (410, None) for hour in (0, 6, 12, 18)}}
    first = place.run(days(2), source_params={"url": url}, definition=definition(batch_size=1))
    assert (first.downloaded, first.failed) == (1, 1)
    assert first.output is not None
    assert pl.read_parquet(first.output).equals(expected_rows(days(1), but={"01-01T06"}))
    metrics = place.task_manifests(first)[1]["metrics"]
    assert (metrics["items"], metrics["items_gone"]) == (3, 1)
    jobs = place.jobs()
    assert len(jobs.items.gone()) == 5
    with place.engine.connect() as connection:
        query = sa.select(batch_attempts.c.availability_pct).where(batch_attempts.c.status == "DOWNLOADED")
        assert connection.execute(query).scalar_one() == pytest.approx(75.0)
    with pytest.raises(JobError, match="Nothing in job"):
        jobs.retry(str(first.job_id), {FailureClass.GONE})
    again = place.run(days(2), source_params={"url": url}, wishes=Wishes(retry_failed=True))
    assert again.failed == 1
    assert set(server.count().values()) == {1}


def test_empty_is_an_answer_that_stands_until_somebody_asks_again(
    place: Place, server: Server, url: str
) -> None:
    server.empty = {"01-02"}
    first = place.run(days(3), source_params={"url": url}, definition=definition(batch_size=1))
    assert (first.downloaded, first.skipped_no_data, first.failed) == (2, 1, 0)
    assert place.read(first, "aggregation/manifest.json")["row_counts_by_batch"]["batch-00001"] == 0
    server.empty = set()
    assert place.run(days(3), source_params={"url": url}).skipped_no_data == 1
    again = place.run(days(3), source_params={"url": url}, wishes=Wishes(recheck_empty=True))
    assert (again.downloaded, again.skipped_existing) == (1, 2)


def test_a_window_that_could_still_change_is_no_last_word(place: Place, server: Server, url: str) -> None:
    place.run(days(1), source_params={"url": url})
    early = days(1)[0].end
    with place.engine.begin() as connection:
        connection.execute(sa.update(batch_attempts).values(started_at=early))
    assert place.run(days(1), source_params={"url": url}).downloaded == 1
    assert place.run(days(1), source_params={"url": url}).skipped_existing == 1


def test_a_low_availability_is_tried_again_when_a_floor_is_set(
    place: Place, server: Server, url: str
) -> None:
    server.faults = {"01-01T06": (410, None)}
    place.run(days(2), source_params={"url": url})
    for floor, attempted in ((70.0, 0), (80.0, 1)):
        wishes = Wishes(availability_floor=floor)
        assert place.run(days(2), source_params={"url": url}, wishes=wishes).attempted == attempted


def test_garbage_in_the_log_stops_no_run(place: Place, server: Server, url: str) -> None:
    place.run(days(3), source_params={"url": url})
    with place.engine.begin() as connection:
        connection.exec_driver_sql("PRAGMA ignore_check_constraints = 1")
        connection.exec_driver_sql(
            "UPDATE batch_attempts SET status = 'DOWNLO\x01', started_at = 'yester', availability_pct = 'x',"
            " finished_at = 'to', records = 'many', query = '{\"torn', window_start = '2025-01-0'"
            " WHERE attempt_id = (SELECT max(attempt_id) FROM batch_attempts)"
        )
        connection.exec_driver_sql("PRAGMA ignore_check_constraints = 0")
    again = place.run(days(3), source_params={"url": url})
    assert (again.downloaded, again.skipped_existing) == (1, 2)
    # Nor what is told of it afterwards: bronze, and the asset in the UI.
    torn = read_attempts(place.engine, but=set()).filter(pl.col("status") == "DOWNLO\x01")
    assert torn.select("query", "window_start", "started_at", "records").row(0) == ("null", None, None, None)
    spans = coverage(place.engine, "tiny", {}, start=datetime(2024, 1, 1, tzinfo=UTC), end=datetime.now(UTC))
    assert [day.status for day in spans] == ["DOWNLOADED"] * 3


def test_the_limit_is_not_spent_on_old_failures_and_a_plan_leaves_no_trace(
    place: Place, server: Server, url: str
) -> None:
    planned = place.jobs().plan(JobRequest(definition(), days(6), {"url": url}, Wishes(limit=2)))
    assert (len(planned.actions), len(planned.beyond_limit)) == (2, 4)
    assert (server.asked, place.statuses()) == ([], [])
    assert {path.name.partition("-")[0] for path in place.folder.iterdir()} == {"state.sqlite"}

    server.faults = {f"01-0{day}T00": (400, None) for day in (1, 2)}
    place.run(days(2), source_params={"url": url}, definition=definition(batch_size=1))
    some = place.run(days(6), source_params={"url": url}, wishes=Wishes(limit=2))
    assert (some.downloaded, some.failed, some.planned, some.beyond_limit) == (2, 2, 4, 2)


def test_an_interrupt_ends_within_two_seconds_and_keeps_what_is_finished(
    place: Place, server: Server, url: str
) -> None:
    stop = threading.Event()
    server.slow_s = 0.3
    chosen = definition(executor={"in_flight": 2})
    threading.Timer(1.0, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(Stopped, match="goes on from there"):
        place.run(days(2), source_params={"url": url}, definition=chosen, jobs={"stop": stop})
    assert time.monotonic() - begun < 3.0
    asked = server.count()
    server.slow_s = 0
    kept = sum(1 for _ in place.folder.rglob("scratch/**/*.json"))
    assert kept >= 2
    done = place.run(days(2), source_params={"url": url}, definition=chosen)
    assert (done.downloaded, done.failed) == (2, 0)
    assert len(server.asked) - asked.total() == 8 - kept
    assert len(list((place.folder / "jobs").iterdir())) == 1


def test_a_request_that_hangs_does_not_hold_up_an_interrupt(place: Place, server: Server, url: str) -> None:
    stop = threading.Event()
    server.slow_s = 6.0
    threading.Timer(0.5, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(Stopped):
        place.run(days(1), source_params={"url": url}, jobs={"stop": stop})
    assert time.monotonic() - begun < 2.5


def test_a_job_whose_folder_was_removed_stands_in_nobodys_way(place: Place) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        place.run(days(2), jobs={"stop": stop})
    shutil.rmtree(place.folder / "jobs")
    assert place.run(days(2)).downloaded == 2
    assert [job.status for job in place.jobs().store.jobs()] == ["SUCCESS", "FAILED"]


def test_a_job_whose_batches_cannot_be_read_stands_in_nobodys_way(place: Place) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        place.run(days(4), jobs={"stop": stop})
    (torn,) = (place.folder / "jobs").glob("*/batches/batch-00001.json")
    torn.chmod(0o644)
    torn.write_text(torn.read_text()[:50])
    assert place.run(days(4)).downloaded == 4
    assert [job.status for job in place.jobs().store.jobs()] == ["SUCCESS", "FAILED"]


def test_results_that_are_damaged_before_the_merge_are_made_anew(place: Place) -> None:
    def damage(step: str) -> None:
        if step == "database: move to aggregation":
            for path in place.folder.rglob("results.parquet"):
                if path.parent.name.endswith("2"):
                    path.write_bytes(path.read_bytes()[:-1])

    hurt = threading.Event()

    def once(step: str) -> None:
        if not hurt.is_set() and step == "database: move to aggregation":
            hurt.set()
            damage(step)

    watch_steps(once)
    try:
        summary = place.run(days(4), definition=definition())
    finally:
        watch_steps(None)
    assert hurt.is_set()
    assert summary.exit_code == 0
    assert summary.output is not None
    assert pl.read_parquet(summary.output).equals(expected_rows(days(4)))
    groups = [(task["group"], task["status"]) for task in place.task_manifests(summary)]
    assert groups.count(("final_aggregation", "FAILED")) == 1
    assert groups.count(("final_aggregation", "SUCCESS")) == 1


def test_a_defect_of_the_source_fails_its_batch_for_good_and_no_other(place: Place) -> None:
    chosen = definition(handler="tests.batch.job_kit:make_defective", batch_size=1)
    summary = place.run(days(4), definition=chosen)
    assert (summary.downloaded, summary.failed) == (1, 3)
    assert summary.output is not None
    assert len(pl.read_parquet(summary.output)) == 97
    left = place.read(summary, "summary.json")["windows_left"]
    assert [window["failure_class"] for window in left] == ["permanent"] * 3
    assert "obTime" in left[0]["error"]
    assert "created" in left[1]["error"]
    assert "ZeroDivisionError" in left[2]["error"]


def test_ids_differ_however_many_start_in_one_second() -> None:
    assert len({new_job_id("reach") for _ in range(2000)}) == 2000


def test_a_handler_that_is_not_there_or_makes_another_source_is_named(place: Place) -> None:
    with pytest.raises(JobError, match=r"job_kit:FalteringSource cannot take up the job .*another version"):
        place.run(days(1), definition=definition(handler="tests.batch.job_kit:FalteringSource"))
    with pytest.raises(JobError, match=r"no handler tests\.batch\.job_kit:none"):
        place.run(days(1), definition=definition(handler="tests.batch.job_kit:none"))
    with pytest.raises(JobError, match="makes the source other, not tiny"):
        place.run(days(1), definition=definition(handler="tests.batch.job_kit:make_other"))
    assert not (Path(place.folder) / "jobs").exists()
