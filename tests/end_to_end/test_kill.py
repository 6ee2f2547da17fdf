"""``kill -9`` at the three worst moments: the next pass ends where an undisturbed one would, nothing twice.

One folder lives through all three, each followed by a whole pass.
"""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from dagster_l2.base.files import safe_name
from dagster_l2.products import write_products
from dagster_l2.sources import ScanTables
from dagster_l2.store.server import RecordSet
from tests.end_to_end.kit import (
    Pipeline,
    Store,
    expected_states,
    expected_steps,
    generated,
    inversions,
    wait_until,
)

pytestmark = pytest.mark.xdist_group("kill")

LONG_S = 600.0
SMALL_WINDOWS = {"L2_SCAN_WINDOW_RECORDS": "10", "L2_SCAN_WORKERS": "1"}


def test_the_pass_is_killed(l2: Pipeline, tmp_path: Path) -> None:
    everything = generated(12, seed=5)
    store = Store(tmp_path, _without_the_last_ops(everything, 3))
    states = _killed_in_the_scan(l2, store)
    store.records = everything
    states |= _killed_in_the_build(l2, store)
    op_id = min(op_id for op_id, state in states.items() if state == "Preprocessed")
    _killed_between_create_and_read_back(l2, store, op_id, tmp_path)
    assert store.creates == 1
    assert _runs(l2) == Counter(FAILURE=3, SUCCESS=3)
    assert l2.steps() == {
        **{other: expected_steps(state) for other, state in states.items()},
        op_id: [*expected_steps("Preprocessed"), "Working", "Inverted", "Published"],
    }


def _killed_in_the_scan(l2: Pipeline, store: Store) -> dict[str, str]:
    """After some windows were read; what was read then is not read again."""
    # Two questions for the first and last record, then the windows.
    store.faults.add("slow", match="datasetInventories(", skip=6, seconds=LONG_S)
    with store.served() as settings:
        l2.settings = {**settings, **SMALL_WINDOWS}
        _kill_when(l2, lambda: _has_struck(store), "the scan is in the middle")
        kept = _records_in_bronze(l2)
        total = len(store.records.datasets)
        assert 0 < len(kept) < total

        done = _next_pass(l2, store)
        assert (done["scan"]["new"], done["scan"]["unchanged"]) == (total - len(kept), len(kept))
    return _as_undisturbed(l2, store.records)


def _killed_in_the_build(l2: Pipeline, store: Store) -> dict[str, str]:
    """While dbt writes the warehouse; dbt itself lives on for a while, as it would in real life."""
    log = l2.data / "dbt" / "verdicts" / "dbt.log"
    size = log.stat().st_size
    with store.served() as settings:
        l2.settings = {**settings, **SMALL_WINDOWS}
        gold = (l2.data / "l2.duckdb").stat()
        _kill_when(l2, lambda: b"START sql table" in log.read_bytes()[size:], "dbt builds a table")
        assert (l2.data / "l2.duckdb").stat() == gold
        _next_pass(l2, store)
    return _as_undisturbed(l2, store.records)


def _killed_between_create_and_read_back(l2: Pipeline, store: Store, op_id: str, folder: Path) -> None:
    with store.served() as settings:
        l2.settings = {**settings, **SMALL_WINDOWS, "L2_PUBLISH_BUCKET": "level2"}
        inversion_id = l2.here("claim", op_id, "--as", "ann", "--json").json["inversion_id"]
        products = write_products(
            folder / "products", op_id=op_id, inversion_id=inversion_id, lines=["Fe I (630.15 nm)"], seed=1
        )
        l2.here("ready", op_id, "--products", str(products), "--commit", "0123456789", "--as", "ann")
        # The publisher looks, creates, and looks again: the second look never gets its answer.
        store.faults.add("slow", match="l2Inversions(", skip=1, seconds=LONG_S)
        _kill_when(l2, lambda: _has_struck(store), "the inversion is read back")
        store.faults.clear()
        assert [record["inversionId"] for record in inversions(settings)] == [inversion_id]
        assert l2.here("show", op_id, "--json").json["state"]["state"] == "Inverted"

        assert _next_pass(l2, store)["published"] == [inversion_id]
        assert [record["inversionId"] for record in inversions(settings)] == [inversion_id]
    assert [path.name for path in (l2.data / "products").iterdir()] == [safe_name(inversion_id)]


def _kill_when(l2: Pipeline, is_time: Callable[[], bool], what: str) -> None:
    process = l2.start("run", "--json")
    wait_until(is_time, process, what)
    process.kill()
    process.wait()
    assert process.returncode == -signal.SIGKILL
    for pipe in (process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _next_pass(l2: Pipeline, store: Store) -> dict[str, Any]:
    """The pass after a death: it runs through, and nothing of the dead one is left in Dagster."""
    store.faults.clear()
    done: dict[str, Any] = l2("run", "--json").json
    assert done["failed"] == []
    with _instance(l2) as instance:
        pool = instance.event_log_storage.get_concurrency_info("warehouse")
        assert pool.active_slot_count == 0
        assert pool.pending_step_count == 0
    assert set(_runs(l2)) == {"FAILURE", "SUCCESS"}
    assert not list((l2.data / "locks" / "runs").iterdir())
    return done


def _as_undisturbed(l2: Pipeline, records: RecordSet) -> dict[str, str]:
    states = expected_states(records)
    assert l2.states() == states
    assert l2.steps() == {op_id: expected_steps(state) for op_id, state in states.items()}
    versions = _records_in_bronze(l2)
    assert sorted(versions) == sorted(record["datasetId"] for record in records.datasets)
    return states


def _records_in_bronze(l2: Pipeline) -> list[str]:
    """The dataset ids of all committed rows of bronze."""
    return list(ScanTables.under(l2.data / "lake").datasets.scan().collect()["dataset_id"])


def _has_struck(store: Store) -> bool:
    return any(rule["fired"] for rule in store.faults.as_json())


def _instance(l2: Pipeline) -> dg.DagsterInstance:
    return dg.DagsterInstance.from_config(str(l2.data / "dagster"))


def _runs(l2: Pipeline) -> Counter[str]:
    with _instance(l2) as instance:
        return Counter(run.status.value for run in instance.get_runs())


def _without_the_last_ops(records: RecordSet, count: int) -> RecordSet:
    ops = list(dict.fromkeys(record["observingProgramExecutionId"] for record in records.datasets))
    gone = set(ops[-count:])
    lists = {
        name: [row for row in rows if row.get("observingProgramExecutionId") not in gone]
        for name, rows in records.lists.items()
    }
    return RecordSet(lists)
