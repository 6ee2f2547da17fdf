"""Asset checks beside the dbt tests: is the scan complete, does an OP wait too long."""

import json

import dagster as dg
from dagster_duckdb import DuckDBResource

from dagster_l2.assets.tables import counts_table, rows_table
from dagster_l2.pipeline.queue import by_responsible, named
from dagster_l2.resources import L2, rows_of
from dagster_l2.sources import ScanTables

_SHOWN = 50


@dg.asset_check(
    asset=dg.AssetKey(["bronze", "rejected"]),
    name="no_rejected_records",
    description="Warns while records of the store cannot be parsed.",
)
def no_rejected_records(l2: dg.ResourceParam[L2]) -> dg.AssetCheckResult:
    """Pass when no record was ever rejected; show the last ones otherwise."""
    rows = ScanTables.under(l2.settings.lake).rejected.scan().sort("scanned_at").tail(20).collect()
    return dg.AssetCheckResult(
        passed=rows.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={"last": json.dumps(rows.select("record_id", "reason").to_dicts(), indent=1)},
    )


@dg.asset_check(
    asset=dg.AssetKey(["marts", "scan_coverage"]),
    name="windows_complete",
    description="Every window of the last scan holds as many records as the store counts.",
    pool="warehouse",
)
def windows_complete(warehouse: DuckDBResource) -> dg.AssetCheckResult:
    """Pass when no window failed or is short of records."""
    bad = rows_of(
        warehouse,
        "select window_start, window_end, status, records, expected_records from scan_coverage"
        " where source = 'metadata_store' and status not in ('DOWNLOADED', 'SKIPPED_NO_DATA') limit 20",
    )
    return dg.AssetCheckResult(passed=not bad, metadata={"windows": json.dumps(bad, default=str, indent=1)})


@dg.asset_check(
    asset=dg.AssetKey(["marts", "work_queue"]),
    name="nothing_overdue",
    description="Warns when an OP stays longer in a state than its limit, and names who is responsible.",
    pool="warehouse",
)
def nothing_overdue(warehouse: DuckDBResource) -> dg.AssetCheckResult:
    """Pass when no OP is overdue; else say for how many of them each one is responsible."""
    late = rows_of(
        warehouse,
        "select rank, op_id, state, responsible, reason, days_in_state, limit_days, is_overdue"
        " from work_queue where is_overdue order by rank",
    )
    counts = by_responsible(late)
    verb = "OP is" if len(late) == 1 else "OPs are"
    return dg.AssetCheckResult(
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(late)} {verb} overdue: {named(counts)}" if late else "No OP is overdue",
        metadata={
            "overdue": len(late),
            "by responsible": counts_table("responsible", counts),
            "first": rows_table(late[:_SHOWN], ("op_id", "state", "responsible", "reason", "days_in_state")),
        },
    )


ALL_CHECKS = [no_rejected_records, windows_complete, nothing_overdue]
