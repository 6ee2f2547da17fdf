"""``l2 download reach`` and ``l2 scan`` with other workers: the same rows, whoever works and whoever dies."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.crews import (
    DAYS,
    check_counts,
    check_lines,
    claims,
    download,
    manifests,
    on,
    output,
    scan,
    scanned,
)
from tests.end_to_end.kit import PATIENCE_S, Pipeline, Store, generated
from tests.end_to_end.reach_world import A_DAY, ReachWorld, all_of, reach_world

pytestmark = pytest.mark.xdist_group("executors")


@pytest.fixture
def world(l2: Pipeline, tmp_path: Path) -> Iterator[ReachWorld]:
    with reach_world(l2, tmp_path) as made:
        yield made


def test_a_download_is_the_same_on_processes_and_on_dask_with_a_worker_killed(world: ReachWorld) -> None:
    expected = output(download(world, "threads", on("threads")))
    assert len(world.rows()) == DAYS * A_DAY

    world.asked()
    done = download(world, "processes", on("processes"))
    check_counts(world.l2, len(world.udl.asked))
    assert world.asked() == all_of(*range(1, DAYS + 1)) | {"01T12": 2}
    assert output(done) == expected
    check_lines(done, world.l2, "reach")

    done = download(world, "dask", on("dask"), kill_day=2)
    assert output(done) == expected
    asked = world.asked()
    # The killed one had waited for a chunk; the others of its day may have been under way.
    assert {name for name, times in asked.items() if times > 1} - {"01T12"} <= {
        "02T12",
        "02T18",
        "02T00",
        "02T06",
    }
    assert asked["02T12"] == 2
    check_lines(done, world.l2, "reach")
    check_counts(world.l2, None)
    assert {task["status"] for task in manifests(world.l2)} == {"SUCCESS"}


def test_a_scan_is_the_same_on_processes_and_on_dask_with_a_worker_killed(
    l2: Pipeline, tmp_path: Path
) -> None:
    store = Store(tmp_path, generated(60, seed=3))
    counts = scan(l2, store, "threads", on("threads")).json
    assert counts["new"] == len(store.records.datasets)
    expected = scanned(l2, "threads")
    for kind in ("processes", "dask"):
        done = scan(l2, store, kind, on(kind), is_killed=kind == "dask")
        assert done.json == counts
        assert scanned(l2, kind).equals(expected)
        mine = Pipeline(l2.home.parent / kind)
        check_lines(done, mine, "store")
        check_counts(mine, None)
        # All but what the killed one held was done once.
        assert claims(mine)[-2:] == ([1, 2] if kind == "dask" else [1, 1])


def test_four_downloads_at_once_do_each_day_once_and_make_one_file(world: ReachWorld) -> None:
    world.udl.faults.add("slow", seconds=0.3)
    running = [world.l2.start(*world.arguments(1, 6)) for _ in range(4)]
    ended = [(process.communicate(timeout=PATIENCE_S), process.returncode) for process in running]
    assert [code for _said, code in ended] == [0] * 4, ended
    assert world.asked() == all_of(*range(1, 7))
    found = [json.loads(out) for (out, _err), _code in ended]
    # Whoever came when it was over found the days there.
    assert {one["downloaded"] + one["skipped_existing"] for one in found} == {6}
    (job,) = world.l2.here("jobs", "--json").json
    assert job["status"] == "SUCCESS"
    assert [task["status"] for task in manifests(world.l2) if task["role"] == "worker"] == ["SUCCESS"] * 6
    assert len(world.rows()) == 6 * A_DAY
    files = (world.l2.data / "lake" / "bronze" / "reach").glob("*.parquet")
    assert [path.name for path in files if job["job_id"] in path.name] == [f"{job['job_id']}.parquet"]
