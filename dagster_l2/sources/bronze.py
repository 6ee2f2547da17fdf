"""The bronze tables that a scan fills, with their columns. How they are written is the lake's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl

from dagster_l2.batch import ATTEMPT_SCHEMA
from dagster_l2.lake import SCAN_COLUMNS, BronzeTable
from dagster_l2.store import DATASETS, EXPERIMENTS, PROCESSING_CANDIDATES, RecordType

MISSING_SCHEMA: dict[str, pl.DataType] = {
    "table_name": pl.String(),
    "record_id": pl.String(),
    "missing_since": pl.Datetime("us"),
    "scanned_at": pl.Datetime("us"),
    "job_id": pl.String(),
}

REJECTED_SCHEMA: dict[str, pl.DataType] = {
    "table_name": pl.String(),
    "record_id": pl.String(),
    "reason": pl.String(),
    "raw_json": pl.String(),
    **SCAN_COLUMNS,
}


@dataclass(frozen=True)
class ScanTables:
    """Everything a scan writes."""

    datasets: BronzeTable
    experiments: BronzeTable
    processing_candidates: BronzeTable
    missing: BronzeTable
    rejected: BronzeTable
    attempts: BronzeTable

    @classmethod
    def under(cls, lake: Path) -> ScanTables:
        """The tables in the lake at ``lake``."""

        def records(record_type: RecordType) -> BronzeTable:
            return BronzeTable(lake, record_type.table, {**record_type.schema, **SCAN_COLUMNS})

        return cls(
            datasets=records(DATASETS),
            experiments=records(EXPERIMENTS),
            processing_candidates=records(PROCESSING_CANDIDATES),
            missing=BronzeTable(lake, "missing", MISSING_SCHEMA),
            rejected=BronzeTable(lake, "rejected", REJECTED_SCHEMA),
            attempts=BronzeTable(lake, "attempts", ATTEMPT_SCHEMA),
        )

    def all(self) -> tuple[BronzeTable, ...]:
        """Every table, in the order of the fields."""
        return (
            self.datasets,
            self.experiments,
            self.processing_candidates,
            self.missing,
            self.rejected,
            self.attempts,
        )
