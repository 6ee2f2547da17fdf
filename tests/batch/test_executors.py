"""The same job on threads, processes and Dask: equal bytes, each batch done once, whoever dies on the way."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from dagster_l2.base.errors import WrongUse
from dagster_l2.batch import JobError, JobRequest, Stopped
from dagster_l2.batch.jobs.executors import check_crew
from dagster_l2.cli import main
from dagster_l2.pipeline.downloads import reach_request
from dagster_l2.settings import load_settings

from .job_kit import Place, Server, crew, days, definition, make_tables, output, plain, shared_place

pytestmark = pytest.mark.xdist_group("executors")


@pytest.fixture(name="shared_place")
def _shared_place(postgres_url: str, tmp_path: Path) -> Iterator[Place]:
    with shared_place(tmp_path, postgres_url) as made:
        yield made


@pytest.fixture
def quiet_dask() -> Iterator[None]:
    """Dask tells of every worker that dies; that is what these tests are about."""
    logger = logging.getLogger("distributed")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    yield
    logger.setLevel(level)


def test_a_killed_dask_worker_is_replaced_and_each_batch_is_done_once_as_on_threads_and_processes(
    shared_place: Place, tmp_path: Path, quiet_dask: None
) -> None:
    expected = plain(tmp_path, 6)
    for kind in ("threads", "processes"):
        folder = tmp_path / kind
        folder.mkdir()
        local = Place(folder)
        make_tables(local.url)
        chosen = definition(batch_size=1, executor=crew(kind))
        assert output(local.run(days(6), definition=chosen)) == expected
        local.close()
    fatal, log = tmp_path / "fatal", tmp_path / "asked"
    fatal.write_text("20250103T060000")
    summary = shared_place.run(
        days(6),
        definition=definition(handler="tests.batch.job_kit:make_deadly", batch_size=1, executor=crew("dask")),
        source_params={"fatal": str(fatal), "log": str(log)},
    )
    assert not fatal.exists()
    assert output(summary) == expected
    tasks = shared_place.jobs().store.tasks(str(summary.job_id))[1:]
    assert sorted(task.claims for task in tasks) == [1] * 6 + [2]
    asked = log.read_text().split()
    again = {name for name in asked if asked.count(name) > 1}
    assert set(asked) >= {name for name in asked if name.startswith("20250103")}
    assert all(name.startswith("20250103") for name in again)
    statuses = {manifest["status"] for manifest in shared_place.task_manifests(summary)}
    assert statuses == {"SUCCESS"}


def test_a_dask_scheduler_at_an_address_does_a_job_on_sqlite_when_it_is_on_this_machine(
    place: Place, tmp_path: Path, quiet_dask: None
) -> None:
    import distributed

    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, dashboard_address=None, local_directory=str(tmp_path)
    ) as cluster:
        jobs = {"executor": {"kind": "dask", "address": cluster.scheduler_address}}
        summary = place.run(days(3), jobs=jobs, definition=definition(batch_size=1))
    assert output(summary) == plain(tmp_path, 3)


def test_an_interrupt_ends_a_job_on_dask_at_once_and_the_next_run_goes_on(
    place: Place, server: Server, url: str, quiet_dask: None
) -> None:
    server.slow_s = 0.5
    stop = threading.Event()
    chosen = definition(batch_size=1, executor=crew("dask", in_flight=1))
    request = JobRequest(chosen, days(4), {"url": url})
    ended: list[float] = []

    def run() -> None:
        with pytest.raises(Stopped):
            place.jobs(stop=stop).run(request)
        ended.append(time.monotonic())

    thread = threading.Thread(target=run)
    thread.start()
    while len(server.asked) < 4:
        assert thread.is_alive()
        time.sleep(0.02)
    told = time.monotonic()
    stop.set()
    thread.join()
    assert ended[0] - told < 2
    for closing in threading.enumerate():
        if closing.name == "close-dask":
            closing.join()
    store = place.jobs().store
    (job,) = store.jobs()
    store.free_the_dead(job.job_id)
    assert {task.claims for task in store.tasks(job.job_id)[1:] if task.status == "PENDING"} <= {0, 1}
    assert "RUNNING" not in {task.status for task in store.tasks(job.job_id)}
    server.slow_s = 0
    asked = len(server.asked)
    assert place.run(days(4), definition=definition(batch_size=1), source_params={"url": url}).exit_code == 0
    assert len(server.asked) - asked < 16


def test_workers_that_die_before_they_begin_end_the_job_with_a_word(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dagster_l2.batch.jobs.executors.run_batch_file", die_at_once)
    chosen = definition(executor=crew("processes", workers=1))
    with pytest.raises(JobError, match="die before they begin") as raised:
        place.run(days(2), definition=chosen)
    assert str(raised.value).count("\n") == 0
    monkeypatch.undo()
    assert place.run(days(2)).exit_code == 0


def die_at_once(*_arguments: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("rules", [
    {"kind": "slurm"},
    {"kind": "dask", "address": "tcp://cluster.example:8786"},
    {"kind": "dask", "address": "10.0.0.7:8786"},
])  # fmt: skip
def test_workers_on_other_machines_are_refused_a_sqlite_file(place: Place, rules: dict[str, str]) -> None:
    with pytest.raises(WrongUse, match="set L2_DATABASE_URL to a PostgreSQL one") as raised:
        place.run(days(1), jobs={"executor": rules})
    assert raised.value.exit_code == 2
    assert not list(place.folder.glob("jobs/*"))
    assert place.jobs().store.jobs() == []


@pytest.mark.parametrize("address", [None, "tcp://127.0.0.1:8786", "localhost:8786", "tcp://[::1]:8786"])
def test_dask_on_this_machine_may_use_a_sqlite_file(address: str | None) -> None:
    rules = definition(executor=crew("dask", address=address)).executor
    check_crew(rules, "sqlite:///x.sqlite")


def test_the_settings_choose_who_works_on_a_download(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("L2_EXECUTOR", "Slurm")
    monkeypatch.setenv("L2_EXECUTOR_WORKERS", "7")
    day, settings = date(2025, 1, 1), load_settings()
    rules = reach_request(settings, day, day).definition.executor
    assert (rules.kind, rules.workers) == ("slurm", 7)
    few = reach_request(settings, day, day, max_concurrent_requests=2).definition.executor
    assert few.workers * few.in_flight == 2
    alone = reach_request(settings, day, day, max_concurrent_requests=8).definition.executor
    assert (alone.workers, alone.in_flight) == (1, 8)
    command = ["download", "reach", "--start", "2025-01-01", "--end", "2025-01-01"]
    for options in ([], ["--dry-run"]):
        with pytest.raises(SystemExit) as ended:
            main([*command, *options])
        assert ended.value.code == 2
        assert "can't share a SQLite state database; set L2_DATABASE_URL" in capsys.readouterr().err


def test_a_scheduler_that_does_not_answer_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch, quiet_dask: None
) -> None:
    monkeypatch.setattr("dagster_l2.batch.jobs.executors_dask._ANSWER_S", 0.3)
    jobs = {"executor": {"kind": "dask", "address": "tcp://127.0.0.1:9"}}
    with pytest.raises(
        JobError, match=r"No Dask scheduler answers at tcp://127\.0\.0\.1:9; .*L2_DASK_ADDRESS"
    ):
        place.run(days(1), jobs=jobs)
    assert place.run(days(1)).exit_code == 0


@pytest.mark.parametrize(("kind", "package"), [("dask", "distributed"), ("slurm", "submitit")])
def test_a_missing_extra_is_named(kind: str, package: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from dagster_l2.batch.jobs.definition import ExecutorRules\n"
        "from dagster_l2.batch.jobs.executors import open_crew\n"
        f"open_crew(ExecutorRules(kind={kind!r}), None, 'postgresql://host/db')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert f"install dagster_l2[{kind}]" in done.stderr.splitlines()[-1]


def test_the_engine_imports_neither_dask_nor_submitit() -> None:
    code = "import sys, dagster_l2.batch; print({'dask', 'distributed', 'submitit'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_no_password_shows_where_dask_shows_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    from dagster_l2.batch.jobs.executors_dask import DaskCrew

    handed: list[object] = []

    class Pool:
        def submit(self, *arguments: object) -> object:
            handed.append(arguments)
            return object()

    class Client:
        status = "running"

        def get_executor(self, **_options: object) -> Pool:
            return Pool()

    dask = DaskCrew(definition().executor, "postgresql://me:geheim@host/db")
    dask._client = Client()
    dask.begin([Path("batch.json")])
    assert "batch.json" in repr(handed)
    assert "geheim" not in repr(handed) + repr(vars(dask))
