"""One scan of the whole metadata store into bronze, and what is no longer there.

A record that cannot be parsed goes to ``rejected``; a record that a complete sweep no longer saw is
marked in ``missing`` and kept. Deciding anything from the records is the dbt project's work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
from sqlalchemy import Engine

from dagster_l2.batch import Attempts, Stored, Summary, Window, WindowRun, new_job_id, read_attempts
from dagster_l2.errors import L2Error
from dagster_l2.lake import BronzeTable, Changes, VersionLog
from dagster_l2.sources.bronze import MISSING_SCHEMA, REJECTED_SCHEMA, ScanTables
from dagster_l2.sources.metadata_store import SOURCE, Batch, MetadataStore, parse_batch
from dagster_l2.store import (
    DATASETS,
    EXPERIMENTS,
    PROCESSING_CANDIDATES,
    Record,
    RecordType,
    Rejected,
    StoreClient,
    StoreError,
)

MAX_MISSING_SHARE = 0.1


class ScanFailed(L2Error):
    """The sweep is not complete. What was read is kept; nothing was marked missing."""


@dataclass
class ScanReport:
    """What a scan found, by table; ``missing`` counts the datasets that are marked so now."""

    job_id: str
    scanned_at: datetime
    datasets: Changes = field(default_factory=Changes)
    experiments: Changes = field(default_factory=Changes)
    processing_candidates: Changes = field(default_factory=Changes)
    rejected: int = 0
    missing: int = 0
    windows: Summary = field(default_factory=Summary)
    total: int = 0

    def counts(self) -> dict[str, int]:
        """The five numbers of a scan's summary; the first three are of datasets."""
        return {
            "new": self.datasets.new,
            "changed": self.datasets.changed,
            "unchanged": self.datasets.unchanged,
            "rejected": self.rejected,
            "missing": self.missing,
        }


class Sweep:
    """One scan of everything.

    Parameters
    ----------
    client
        The store.
    lake
        Folder of the lake.
    attempts
        Log of the windows.
    window_records, workers
        Size of a window in records, and windows in flight.
    accept_missing
        Mark the missing ones even when more than a tenth went at once.
    progress
        Told windows done, windows planned, records so far.
    """

    def __init__(
        self,
        client: StoreClient,
        lake: Path,
        attempts: Attempts,
        *,
        window_records: int = 1000,
        workers: int = 4,
        accept_missing: bool = False,
        progress: Callable[[int, int, int], None] | None = None,
    ) -> None:
        self._client = client
        self._tables = ScanTables.under(lake)
        self._attempts = attempts
        self._store = MetadataStore(client, window_records=window_records)
        self._workers = workers
        self._accept_missing = accept_missing
        self._progress = progress
        self._seen: set[str] = set()
        self._received = 0
        self._rejected: list[tuple[str, Rejected]] = []
        now = datetime.now(UTC)
        self.report = ScanReport(new_job_id("scan"), now.replace(tzinfo=None))

    def run(self) -> ScanReport:
        """Scan, and return what was found.

        Raises
        ------
        ScanFailed
            When a window failed, when the windows hold fewer records than the store counts, or when more
            than a tenth of the known datasets went missing at once.
        StoreError
            When the store cannot be asked at all.
        """
        for table in self._tables.all():
            table.ensure()
        report = self.report
        windows = self._store.plan(datetime.now(UTC))
        report.total = self._store.total
        datasets = VersionLog(self._tables.datasets, DATASETS.key_column)
        report.windows = self._run_windows(windows, datasets)
        try:
            self._check_windows(report)
            report.experiments = self._whole(
                EXPERIMENTS, self._tables.experiments, self._client.experiments()
            )
            report.processing_candidates = self._whole(
                PROCESSING_CANDIDATES,
                self._tables.processing_candidates,
                self._client.processing_candidates(),
            )
            self._mark_missing(datasets.known_keys)
        finally:
            report.rejected = self._write_rejected()
        return report

    def _run_windows(self, windows: list[Window], datasets: VersionLog) -> Summary:
        def store(window: Window, batch: Batch) -> Stored:
            changes = datasets.write_changes(
                batch.frame,
                batch.hashes,
                scanned_at=self.report.scanned_at,
                job_id=self.report.job_id,
                part=window.part,
            )
            self.report.datasets += changes
            self._received += batch.records
            self._seen.update(batch.frame[DATASETS.key_column])
            self._note(DATASETS.table, batch.rejected)
            manifest = changes.manifest
            return Stored(manifest.bytes, manifest.file) if manifest else Stored()

        run: WindowRun[Batch] = WindowRun(
            attempts=self._attempts,
            job_id=self.report.job_id,
            source=SOURCE,
            fetch=self._store.fetch,
            store=store,
            workers=self._workers,
            expected_errors=(StoreError,),
            progress=self._progress,
        )
        return run.run(windows)

    def _check_windows(self, report: ScanReport) -> None:
        failed = report.windows.failed
        if failed:
            window, reason = failed[0]
            raise ScanFailed(
                f"{len(failed)} of {report.windows.planned} windows could not be read,"
                f" first {window}: {reason} The others are kept; run the scan again."
            )
        if self._received < report.total:
            leftovers = self._store.leftovers()
            self._note(DATASETS.table, leftovers)
            self._received += len(leftovers)
        if self._received < report.total:
            raise ScanFailed(
                f"The store counts {report.total} datasets and its windows hold {self._received};"
                " nothing was marked missing, run the scan again."
            )

    def _whole(self, record_type: RecordType, table: BronzeTable, raw: list[Record]) -> Changes:
        batch = parse_batch(record_type, raw)
        self._note(record_type.table, batch.rejected)
        log = VersionLog(table, record_type.key_column)
        return log.write_changes(
            batch.frame,
            batch.hashes,
            scanned_at=self.report.scanned_at,
            job_id=self.report.job_id,
            part="all",
        )

    def _note(self, table: str, rejected: Iterable[Rejected]) -> None:
        known = {bad.content_hash for _, bad in self._rejected}
        self._rejected += [(table, bad) for bad in rejected if bad.content_hash not in known]

    def _mark_missing(self, known: set[str]) -> None:
        table = self._tables.missing
        flags = table.scan().collect().sort("scanned_at").unique("record_id", keep="last")
        marked = set(flags.filter(pl.col("missing_since").is_not_null())["record_id"])
        seen = self._seen | {bad.record_id for _, bad in self._rejected if bad.record_id is not None}
        gone, back = sorted(known - marked - seen), sorted(marked & seen)
        if len(gone) > MAX_MISSING_SHARE * len(known - marked) and not self._accept_missing:
            raise ScanFailed(
                f"{len(gone)} of {len(known - marked)} known datasets are missing from the store at once"
                " (an outage, or a token that sees less?); nothing was marked. If they are really gone,"
                " scan with --accept-missing."
            )
        now, job_id = self.report.scanned_at, self.report.job_id
        rows: list[tuple[object, ...]] = [(DATASETS.table, key, now, now, job_id) for key in gone]
        rows += [(DATASETS.table, key, None, now, job_id) for key in back]
        frame = pl.DataFrame(rows, schema=MISSING_SCHEMA, orient="row")
        table.append(frame, job_id=job_id, part="missing")
        self.report.missing = len(marked | set(gone)) - len(back)

    def _write_rejected(self) -> int:
        table = self._tables.rejected
        known = set(table.scan().select("content_hash").collect()["content_hash"])
        rows = [
            (
                name,
                bad.record_id,
                bad.reason,
                bad.raw_json,
                self.report.scanned_at,
                self.report.job_id,
                digest,
            )
            for name, bad in self._rejected
            if (digest := bad.content_hash) not in known
        ]
        frame = pl.DataFrame(rows, schema=REJECTED_SCHEMA, orient="row")
        table.append(frame, job_id=self.report.job_id, part="rejected")
        return len(self._rejected)


def export_attempts(lake: Path, engine: Engine, *, job_id: str) -> int:
    """Write the attempts that bronze does not hold yet; returns how many."""
    table = ScanTables.under(lake).attempts
    table.ensure()
    known = set(table.scan().select("attempt_id").collect()["attempt_id"])
    frame = read_attempts(engine, but=known)
    table.append(frame, job_id=job_id, part="attempts")
    return len(frame)
