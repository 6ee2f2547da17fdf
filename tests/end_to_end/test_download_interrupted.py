"""A download that is interrupted or killed: it ends at once, keeps what it has, and goes on from there."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.kit import PATIENCE_S, Pipeline, wait_until
from tests.end_to_end.reach_world import A_DAY, ReachWorld, all_of, reach_world


@pytest.fixture
def world(l2: Pipeline, tmp_path: Path) -> Iterator[ReachWorld]:
    with reach_world(l2, tmp_path) as made:
        yield made


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_what_is_finished_stays_and_only_the_rest_is_fetched(
    world: ReachWorld, number: signal.Signals
) -> None:
    world.udl.faults.add("slow", match="obTime=2025-05-02T18", seconds=600)
    world.udl.faults.add("slow", match="obTime=2025-05-03", seconds=600)
    process = world.l2.start(*world.arguments(1, 3))
    kept = lambda: len(list((world.l2.data / "scratch").rglob("*.json")))  # noqa: E731
    wait_until(lambda: _is_done(world, 1) and kept() == 3, process, "one day and three chunks are there")
    process.send_signal(number)
    # It waits for none of the answers, which would take ten minutes.
    _out, err = process.communicate(timeout=PATIENCE_S)
    if number == signal.SIGINT:
        assert process.returncode == 130
        (job,) = world.l2.here("jobs", "--json").json
        assert err.splitlines()[-1] == (
            "Error: Interrupted; what is finished is kept, and comes to bronze when the job has ended:"
            f" run the command again, or l2 jobs resume {job['job_id']}."
        )
    world.udl.faults.clear()
    world.asked()
    done = world.download(1, 3)
    assert world.counts(done) == (3, 3, 3, 0, 0, 0)
    assert "  3 chunks of unfinished days were there already." in done.err
    assert world.asked() == {"02T18": 1, **all_of(3)}
    assert len(world.rows()) == 3 * A_DAY
    assert not list((world.l2.data / "scratch").rglob("*.parquet"))


def test_an_interrupted_job_is_resumed_by_its_id(world: ReachWorld) -> None:
    world.udl.faults.add("slow", match="obTime=2025-05-02", seconds=600)
    process = world.l2.start(*world.arguments(1, 2))
    wait_until(lambda: _is_done(world, 1), process, "one day is there")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    world.udl.faults.clear()
    (job,) = world.l2.here("jobs", "--json").json
    assert f"! Job {job['job_id']} has not ended: " in world.download(4, 4).err
    assert (job["status"], job["tasks_done"], job["tasks"]) == ("RUNNING", 1, 2)
    world.asked()
    assert world.l2.here("jobs", "resume", job["job_id"], "--json").json["status"] == "SUCCESS"
    assert world.asked() == all_of(2)
    assert len(world.rows()) == 3 * A_DAY


def _is_done(world: ReachWorld, days: int) -> bool:
    return len(list((world.l2.data / "jobs").glob("*/tasks/*/results.done"))) == days
