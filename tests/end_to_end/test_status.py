"""``l2 status`` over gold that lists records which cannot be used."""

from __future__ import annotations

import duckdb
import pytest

from tests.end_to_end.kit import Pipeline


@pytest.mark.parametrize(("rejected", "orphans"), [(0, 0), (3, 2)])
def test_status_counts_the_records_that_cannot_be_used(l2: Pipeline, rejected: int, orphans: int) -> None:
    l2.data.mkdir(parents=True, exist_ok=True)
    with duckdb.connect(str(l2.data / "l2.duckdb")) as gold:
        gold.execute(
            "create table warehouse_info as select timestamp '2026-01-01' as built_at,"
            " built_at as last_scan_at,"
            f" {rejected} as rejected_record_count, {orphans} as orphan_dataset_count"
        )
    told = l2.here("status", "--json").json
    assert (told["rejected_records"], told["orphan_datasets"]) == (rejected, orphans)
    shown = l2.here("status").out
    assert ("3 of the store's records could not be read" in shown) is (rejected > 0)
    assert ("2 of the store's records name no observing program" in shown) is (orphans > 0)
