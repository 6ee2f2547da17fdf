"""The same job as on threads, on a real Slurm as one array: equal bytes, dead tasks done again.

Run by ``make test-slurm``; it has another name than the tests that always run.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dagster_l2.batch import JobDefinition, JobError, JobRequest, RunSummary, Stopped
from dagster_l2.store.server import LocalStoreServer
from tests.batch.job_kit import Place, Server, crew, days, definition, output, plain, shared_place
from tests.end_to_end.crews import check_counts, check_lines, download, on, scan, scanned
from tests.end_to_end.crews import output as home_file
from tests.end_to_end.kit import Pipeline, Store, generated
from tests.end_to_end.reach_world import reach_world

from .cluster import MAX_ARRAY_SIZE, SlurmCluster


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    with SlurmCluster() as running:
        yield running


@pytest.fixture(autouse=True)
def _on_slurm(slurm: SlurmCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in slurm.environment.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def place(postgres_url: str, tmp_path: Path) -> Iterator[Place]:
    with shared_place(tmp_path, postgres_url) as made:
        yield made


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def url(server: Server) -> Iterator[str]:
    with LocalStoreServer(server.app()) as running:
        yield running.url


def on_slurm(**changes: Any) -> JobDefinition:
    rules = crew("slurm", workers=3, in_flight=1, slurm={"minutes": 5, "partition": "main"})
    return definition(batch_size=1, executor=rules, **changes)


def claims(place: Place, summary: RunSummary) -> list[int]:
    return sorted(task.claims for task in place.jobs().store.tasks(str(summary.job_id))[1:])


def test_a_job_is_one_array_and_makes_the_same_bytes(
    place: Place, tmp_path: Path, slurm: SlurmCluster
) -> None:
    log = tmp_path / "asked"
    summary = place.run(days(4), definition=on_slurm(), source_params={"log": str(log)})
    assert output(summary) == plain(tmp_path, 4)
    assert claims(place, summary) == [1] * 5
    assert sorted(log.read_text().split()) == sorted(set(log.read_text().split()))
    manifest = place.read(summary, "manifest.json")
    assert (manifest["status"], manifest["task_count"]) == ("SUCCESS", 6)
    array = manifest["cluster_array_id"]
    assert array.isdigit()
    named = {path.name for path in place.root(summary).glob("cluster/*_submitted.pkl")}
    assert named == {f"{array}_{n}_submitted.pkl" for n in range(4)}
    again = place.run(days(4), definition=on_slurm(), source_params={"log": str(log)})
    assert (again.job_id, again.skipped_existing) == (None, 4)


def test_an_array_task_whose_process_is_killed_is_done_again(place: Place, tmp_path: Path) -> None:
    fatal = tmp_path / "fatal"
    fatal.write_text("20250102T060000")
    chosen = on_slurm(handler="tests.batch.job_kit:make_deadly")
    summary = place.run(days(3), definition=chosen, source_params={"fatal": str(fatal)})
    assert not fatal.exists()
    assert output(summary) == plain(tmp_path, 3)
    assert claims(place, summary) == [1, 1, 1, 2]
    assert place.read(summary, "manifest.json")["cluster_array_id"].count(",") == 1


@pytest.mark.parametrize("way", ["kill -9", "scancel"])
def test_an_array_task_that_is_ended_from_outside_is_done_again(
    place: Place, tmp_path: Path, server: Server, url: str, slurm: SlurmCluster, way: str
) -> None:
    server.slow_s = 1.0
    found: list[RunSummary] = []
    thread = threading.Thread(
        target=lambda: found.append(place.run(days(3), definition=on_slurm(), source_params={"url": url}))
    )
    thread.start()
    # Each is asked for while the one before waits and the one before that is written.
    while "01-02T18" not in server.asked:
        assert thread.is_alive()
        time.sleep(0.02)
    listed = slurm.ask("squeue", "--me", "-h", "-r", "-o", "%F_%K %A %T").splitlines()
    ((name, number),) = [line.split()[:2] for line in listed if "_1 " in line and "RUNNING" in line]
    if way == "scancel":
        slurm.ask("scancel", name)
    else:
        pids = slurm.ask("scontrol", "listpids", number, "node1").splitlines()[1:]
        for pid in {int(line.split()[0]) for line in pids} - {-1}:
            os.kill(pid, signal.SIGKILL)
    server.slow_s = 0.0
    thread.join()
    assert output(found[0]) == plain(tmp_path, 3)
    # Who is cancelled gives the batch back, who is killed can't.
    assert claims(place, found[0]) == [1, 1, 1, 1 if way == "scancel" else 2]
    assert place.read(found[0], "manifest.json")["cluster_array_id"].count(",") == 1
    # What the first had fetched of the day is not fetched again.
    assert server.count()["01-02T00"] == 1


def test_an_interrupt_cancels_the_array_at_once_and_the_next_run_goes_on(
    place: Place, server: Server, url: str, slurm: SlurmCluster
) -> None:
    server.slow_s = 1.0
    stop, ended = threading.Event(), []
    request = JobRequest(on_slurm(), days(4), {"url": url})

    def run() -> None:
        with pytest.raises(Stopped):
            place.jobs(stop=stop).run(request)
        ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    while len(server.asked) < 3:
        assert thread.is_alive()
        time.sleep(0.02)
    told = time.monotonic()
    stop.set()
    thread.join()
    assert ended[0] - told < 2
    until = time.monotonic() + 20
    while slurm.ask("squeue", "--me", "-h").strip() and time.monotonic() < until:
        time.sleep(0.1)
    assert not slurm.ask("squeue", "--me", "-h").strip()
    store = place.jobs().store
    (job,) = store.jobs()
    assert {task.status for task in store.tasks(job.job_id)[1:]} == {"PENDING"}
    server.slow_s = 0.0
    assert place.run(days(4), definition=on_slurm(), source_params={"url": url}).exit_code == 0


def test_more_batches_than_slurm_allows_in_one_array_are_two(place: Place, tmp_path: Path) -> None:
    count = MAX_ARRAY_SIZE + 2
    summary = place.run(days(count), definition=on_slurm())
    assert output(summary) == plain(tmp_path, count)
    assert claims(place, summary) == [1] * (count + 1)
    assert place.read(summary, "manifest.json")["cluster_array_id"].count(",") == 1


def test_what_slurm_refuses_is_said_and_the_job_can_go_on(place: Place) -> None:
    wrong = {"executor": {"kind": "slurm", "slurm": {"partition": "nowhere"}}}
    with pytest.raises(JobError, match=r"Slurm does not take the array .*invalid partition") as raised:
        place.run(days(2), jobs=wrong, definition=on_slurm())
    assert "\n" not in str(raised.value)
    assert place.run(days(2), definition=on_slurm()).exit_code == 0


def on_cluster(postgres_url: str, schema: str) -> dict[str, str]:
    return on("slurm", L2_DATABASE_URL=postgres_url, L2_DB_SCHEMA=schema)


def test_a_download_by_the_command_is_the_same_as_on_threads(postgres_url: str, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with reach_world(Pipeline(tmp_path / "home"), tmp_path) as world:
        expected = home_file(download(world, "threads", on("threads")))
        world.asked()
        done = download(world, "slurm", on_cluster(postgres_url, "slurm_reach"))
        assert home_file(done) == expected
        check_counts(world.l2, len(world.udl.asked))
        check_lines(done, world.l2, "reach")


def test_a_scan_by_the_command_with_a_worker_killed_is_the_same_as_on_threads(
    postgres_url: str, tmp_path: Path
) -> None:
    (tmp_path / "home").mkdir()
    l2, store = Pipeline(tmp_path / "home"), Store(tmp_path, generated(60, seed=3))
    counts = scan(l2, store, "threads", on("threads")).json
    done = scan(l2, store, "slurm", on_cluster(postgres_url, "slurm_scan"), is_killed=True)
    assert done.json == counts
    assert scanned(l2, "slurm").equals(scanned(l2, "threads"))
    mine = Pipeline(tmp_path / "slurm")
    check_lines(done, mine, "store")
    check_counts(mine, None)
