"""The scan: the metadata store into bronze parquet. The work is in ``sources``."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from dagster_l2.assets.tables import changes_table
from dagster_l2.base.telemetry import Speed
from dagster_l2.lake import Changes
from dagster_l2.pipeline.scans import one_scan, scan_all
from dagster_l2.resources import L2, one_sentence
from dagster_l2.sources import ScanReport

DESCRIPTIONS = {
    "datasets": "Every version of every dataset record that the metadata store has shown.",
    "experiments": "Experiment descriptions, each version once.",
    "processing_candidates": "What the data centre still plans for an observing program.",
    "missing": "Datasets that a complete sweep no longer saw, and their return.",
    "rejected": "Records that cannot be parsed, with the reason and the raw JSON.",
    "attempts": "Every attempt at a window of the scan, append only.",
}


@dg.multi_asset(
    name="scan",
    specs=[
        dg.AssetSpec(
            ["bronze", table],
            group_name="bronze",
            kinds={"parquet", "polars"},
            owners=["team:operators"],
            description=description,
        )
        for table, description in DESCRIPTIONS.items()
    ],
)
def scan(context: dg.AssetExecutionContext, l2: dg.ResourceParam[L2]) -> Iterator[dg.MaterializeResult]:
    """Scan the whole metadata store: only what is new or changed is written."""
    settings, speed = l2.settings, Speed()
    with one_sentence(), one_scan(settings), l2.store() as store, l2.ledger() as ledger:
        report = scan_all(
            settings,
            store,
            ledger,
            run_id=context.run.run_id,
            progress=lambda done, planned, records: context.log.info(
                f"scan: window {done} of {planned}, {records} records"
                + (f", {speed.of(done, planned, 'windows')}" if done < planned else "")
            ),
        )
    context.log.info("scan: " + ", ".join(f"{count} {name}" for name, count in report.counts().items()))
    yield from _results(report)


def _results(report: ScanReport) -> Iterator[dg.MaterializeResult]:
    windows = report.windows
    yield dg.MaterializeResult(
        asset_key=["bronze", "datasets"],
        metadata={
            **report.counts(),
            "windows": windows.planned,
            "records in the store": report.total,
            "changes by field": changes_table(report.datasets),
            "job_id": report.job_id,
        },
    )
    for table, changes in (
        ("experiments", report.experiments),
        ("processing_candidates", report.processing_candidates),
    ):
        yield dg.MaterializeResult(asset_key=["bronze", table], metadata=_counts(changes))
    yield dg.MaterializeResult(asset_key=["bronze", "missing"], metadata={"missing": report.missing})
    yield dg.MaterializeResult(asset_key=["bronze", "rejected"], metadata={"rejected": report.rejected})
    yield dg.MaterializeResult(
        asset_key=["bronze", "attempts"],
        metadata={
            "windows": windows.planned,
            "downloaded": windows.downloaded,
            "without data": windows.skipped_no_data,
            "failed": len(windows.failed),
        },
    )


def _counts(changes: Changes) -> dict[str, Any]:
    return {
        "new": changes.new,
        "changed": changes.changed,
        "unchanged": changes.unchanged,
        "changes by field": changes_table(changes),
    }
