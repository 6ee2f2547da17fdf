"""Many workers on one job: leases, deaths, zombies, and one file in the end whoever did what."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
import sqlalchemy as sa

from dagster_l2.batch import (
    Attempts,
    JobRequest,
    Phase,
    Role,
    Status,
    Stopped,
    Task,
    batch_tasks,
    latest_attempts,
    unit_id,
)
from dagster_l2.batch.attempts import jobs_without_result
from dagster_l2.batch.jobs.holders import is_surely_dead, new_holder
from dagster_l2.batch.jobs.runner import without_password
from dagster_l2.batch.jobs.tasks import AlreadyJoined, TaskStore

from .job_kit import (
    PRELOAD,
    REPOSITORY,
    Place,
    Server,
    days,
    definition,
    expected_rows,
    make_tables,
    run_eight_days,
)


@pytest.fixture(params=["sqlite", "postgresql"])
def any_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    if request.param == "sqlite":
        made = Place(tmp_path)
        make_tables(made.url)
    else:
        url = request.getfixturevalue("postgres_url")
        schema = f"jobs_{os.getpid()}_{abs(hash(tmp_path)) % 10**8}"
        make_tables(url, schema)
        made = Place(tmp_path, url, schema)
    yield made
    made.engine.dispose()


def tasks_of(job_id: str, count: int) -> list[Task]:
    return [
        Task(f"{job_id}-{n}", job_id, Role.WORKER, Phase.INITIAL, "initial_batch", n, f"batch-{n}")
        for n in range(count)
    ]


def test_each_task_is_claimed_once_by_eight_at_a_time(any_place: Place) -> None:
    store = TaskStore(any_place.engine)
    store.start_job("j", "tiny", "same", tasks_of("j", 40))

    def drain(_n: int) -> list[str]:
        mine, holder = [], new_holder()
        while task := store.claim("j", holder, lease_s=60):
            mine.append(task.task_id)
        return mine

    with ThreadPoolExecutor(8) as pool:
        found = [task_id for mine in pool.map(drain, range(8)) for task_id in mine]
    assert len(found) == 40
    assert set(Counter(found).values()) == {1}


def test_a_claim_and_a_look_at_a_window_cost_the_same_after_thousands(tmp_path: Path) -> None:
    """Both are asked once for each task: cost that grows with what is done makes a job's time quadratic."""
    make_tables(url := f"sqlite:///{tmp_path / 'state.sqlite'}")
    engine, steps = sa.create_engine(url), Counter[str]()

    @sa.event.listens_for(engine, "connect")
    def count_steps(connection: sqlite3.Connection, _record: object) -> None:
        connection.set_progress_handler(lambda: steps.update(["all"]), 10)

    def cost(call: Callable[[], object]) -> int:
        steps.clear()
        assert call()
        return steps["all"]

    store, attempts, window = TaskStore(engine), Attempts(engine), days(1)[0]
    store.start_job("j", "tiny", "same", tasks_of("j", 3000))
    asked = unit_id("tiny", {}, window)
    attempts.start("a", "tiny", [window])
    calls = (
        lambda: store.claim("j", new_holder(), lease_s=60),
        lambda: store.has_claimable("j"),
        lambda: jobs_without_result(engine, asked),
        lambda: latest_attempts(engine, [asked]),
    )
    first = [cost(call) for call in calls]
    with engine.begin() as connection:
        done = sa.update(batch_tasks).values(status="SUCCESS", lease_holder=None, lease_until=None)
        connection.execute(done.where(batch_tasks.c.seq < 2900))
    attempts.start("b", "tiny", days(2000, first=1))
    assert [cost(call) for call in calls] == pytest.approx(first, rel=0.5, abs=20)
    engine.dispose()


def test_a_job_is_joined_not_started_twice_and_moved_by_one_only(any_place: Place) -> None:
    store = TaskStore(any_place.engine)
    store.start_job("one", "tiny", "same", tasks_of("one", 1))
    with pytest.raises(AlreadyJoined) as joined:
        store.start_job("two", "tiny", "same", tasks_of("two", 1))
    assert joined.value.job_id == "one"
    assert store.tasks("two") == []
    seen = store.job("one")
    with ThreadPoolExecutor(4) as pool:
        moved = list(pool.map(lambda _n: store.move(seen, phase=Phase.AGGREGATION), range(4)))
    assert moved.count(True) == 1
    assert store.move(store.job("one"), status=Status.SUCCESS)
    store.start_job("two", "tiny", "same", tasks_of("two", 1))
    assert store.running("same") == "two"


def test_a_lease_that_ended_frees_the_task_and_its_old_holder_cannot_end_it(any_place: Place) -> None:
    store = TaskStore(any_place.engine)
    store.start_job("j", "tiny", "same", tasks_of("j", 1))
    assert store.claim("j", "elsewhere/1/a", lease_s=0.15)
    assert store.claim("j", "elsewhere/2/b", lease_s=60) is None
    assert store.keep("j-0", "elsewhere/1/a", lease_s=0.15)
    threading.Event().wait(0.2)
    again = store.claim("j", "elsewhere/2/b", lease_s=60)
    assert again is not None
    assert again.claims == 2
    assert not store.keep("j-0", "elsewhere/1/a", lease_s=60)
    assert not store.finish("j-0", "elsewhere/1/a", Status.SUCCESS)
    assert store.tasks("j")[0].status == "RUNNING"
    assert store.finish("j-0", "elsewhere/2/b", Status.SUCCESS)


def test_a_running_task_without_a_lease_is_refused_by_the_database(any_place: Place) -> None:
    store = TaskStore(any_place.engine)
    store.start_job("j", "tiny", "same", tasks_of("j", 1))
    with pytest.raises(sa.exc.IntegrityError), any_place.engine.begin() as connection:
        connection.execute(sa.update(batch_tasks).values(status="RUNNING"))


def test_a_holder_is_dead_only_where_that_can_be_known() -> None:
    mine = new_holder()
    child = subprocess.run(
        [sys.executable, "-c", "from dagster_l2.batch.jobs.holders import new_holder; print(new_holder())"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert not is_surely_dead(mine)
    assert is_surely_dead(child)
    assert not is_surely_dead("elsewhere" + child)
    assert not is_surely_dead("nonsense")


def test_four_processes_on_one_job_do_each_batch_once_and_make_one_file(
    any_place: Place, tmp_path: Path
) -> None:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    log = tmp_path / "asked"
    arguments = (str(any_place.folder), any_place.url, any_place.schema, str(log))
    workers = [context.Process(target=run_eight_days, args=arguments) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    asked = log.read_text().split()
    assert len(asked) == 32
    assert len(set(asked)) == 32
    (job,) = any_place.jobs().store.jobs()
    assert job.status == "SUCCESS"
    tasks = any_place.jobs().store.tasks(job.job_id)
    assert [task.claims for task in tasks if task.role is not Role.COORDINATOR] == [1] * 9
    (output,) = (any_place.folder / "out").glob("*.parquet")
    assert pl.read_parquet(output).equals(expected_rows(days(8)))
    assert [path.name for path in (any_place.folder / "jobs").iterdir()] == [job.job_id]


def test_a_worker_process_that_dies_is_replaced_and_its_batch_done_again(place: Place) -> None:
    fatal = place.folder / "fatal"
    fatal.write_text("20250103T060000")
    chosen = definition(
        handler="tests.batch.job_kit:make_deadly",
        batch_size=1,
        executor={"kind": "processes", "workers": 2, "in_flight": 1},
    )
    summary = place.run(days(4), definition=chosen, source_params={"fatal": str(fatal)})
    assert not fatal.exists()
    assert (summary.downloaded, summary.exit_code) == (4, 0)
    assert summary.output is not None
    assert pl.read_parquet(summary.output).equals(expected_rows(days(4)))
    claims = [task.claims for task in place.jobs().store.tasks(str(summary.job_id))]
    assert max(claims) == 2


def test_a_batch_that_kills_every_worker_is_given_up(place: Place) -> None:
    request = JobRequest(definition(retries={"max_claims": 2}, batch_size=1), days(2))
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        place.jobs(stop=stop).run(request)
    with place.engine.begin() as connection:
        poisonous = batch_tasks.c.batch_id == "batch-00000"
        connection.execute(sa.update(batch_tasks).where(poisonous).values(claims=2))
    summary = place.jobs().run(request)
    assert (summary.downloaded, summary.failed) == (1, 1)
    error = next(task["error"] for task in place.task_manifests(summary) if task["status"] == "FAILED")
    assert "ended without a word 2 times" in error


def test_a_worker_needs_nothing_but_its_batch_file_and_the_last_one_merges(place: Place) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        place.jobs(stop=stop).run(JobRequest(definition(), days(4)))
    files = sorted(place.folder.glob("jobs/*/batches/*.json"))
    assert len(files) == 2
    running = [
        subprocess.Popen(
            [sys.executable, "-m", "dagster_l2.batch.worker", str(path)],
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
        )
        for path in files
    ]
    ended = [(worker.communicate()[1], worker.returncode) for worker in running]
    assert ended == [("", 0), ("", 0)]
    (output,) = (place.folder / "out").glob("*.parquet")
    assert pl.read_parquet(output).equals(expected_rows(days(4)))
    (job,) = place.jobs().store.jobs()
    assert job.status == "SUCCESS"


def test_an_interrupted_worker_process_ends_at_once_and_gives_its_batch_back(
    place: Place, server: Server, url: str
) -> None:
    server.slow_s = 4.0
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped):
        place.jobs(stop=stop).run(JobRequest(definition(), days(1), {"url": url}))
    (path,) = place.folder.glob("jobs/*/batches/*.json")
    command = [sys.executable, "-m", "dagster_l2.batch.worker", str(path)]
    worker = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True)
    while not server.asked:
        assert worker.poll() is None
        threading.Event().wait(0.02)
    begun = time.monotonic()
    worker.send_signal(signal.SIGINT)
    said = worker.communicate()[1]
    assert time.monotonic() - begun < 2.5
    assert (worker.returncode, said.count("\n")) == (130, 1)
    store = place.jobs().store
    (job,) = store.jobs()
    assert [(task.status, task.claims) for task in store.tasks(job.job_id)[1:]] == [("PENDING", 0)]


def test_no_password_lies_in_a_file(place: Place) -> None:
    url = "postgresql+psycopg://me:geheim@host/db"
    assert without_password(url) == "postgresql+psycopg://me@host/db"
    assert without_password(f"{url}?password=geheim&connect_timeout=3").endswith("/db?connect_timeout=3")
    jobs = place.jobs()
    jobs._url = url
    jobs.run(JobRequest(definition(), days(1)))
    texts = [path.read_text() for path in place.folder.rglob("*.json")]
    assert texts
    assert not any("geheim" in text for text in texts)
