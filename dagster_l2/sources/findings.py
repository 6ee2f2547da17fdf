"""What a sweep finds, into bronze: rows that differ, records that can't be parsed, records no longer seen.

How the store is read is in ``metadata_store`` and ``sweep``; deciding anything from the records is the dbt
project's work.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from dagster_l2.base.errors import L2Error
from dagster_l2.batch import Window
from dagster_l2.lake import BronzeTable, Changes, VersionLog, done_path
from dagster_l2.sources.bronze import MISSING_SCHEMA, REJECTED_SCHEMA, ScanTables
from dagster_l2.sources.metadata_store import Batch
from dagster_l2.store import DATASETS, RecordType, Rejected

MAX_MISSING_SHARE = 0.1


class ScanFailed(L2Error):
    """The sweep is not complete. What was read is kept; nothing was marked missing."""


class TooManyMissing(ScanFailed):
    """More than a tenth of what was known is gone at once; alerts know this error by its name."""


@dataclass
class ScanWindows:
    """What became of the windows of a scan."""

    planned: int = 0
    downloaded: int = 0
    skipped_no_data: int = 0
    failed: list[tuple[Window, str]] = field(default_factory=list)


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
    windows: ScanWindows = field(default_factory=ScanWindows)
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


class Findings:
    """Bronze during one scan; safe for threads.

    Parameters
    ----------
    lake
        Folder of the lake.
    report
        The report that the findings are counted in.
    """

    def __init__(self, lake: Path, report: ScanReport) -> None:
        self.tables = ScanTables.under(lake)
        for table in self.tables.all():
            table.ensure()
        self.report = report
        self._datasets = VersionLog(self.tables.datasets, DATASETS.key_column, home="create_date")
        self._rejected: list[tuple[str, Rejected]] = []
        self._lock = threading.Lock()

    def differs(self, keys: pl.Series, hashes: pl.Series) -> pl.Series:
        """Which datasets are new or changed; the others are seen."""
        with self._lock:
            return self._datasets.differs(keys, hashes)

    def saw(self, keys: Sequence[str]) -> None:
        """Datasets that another process saw unchanged."""
        with self._lock:
            self._datasets.saw(pl.Series(keys, dtype=pl.String))

    def unchanged(self, count: int) -> None:
        """Count datasets that are as they were."""
        with self._lock:
            self.report.datasets += Changes(unchanged=count)

    def take(self, frame: pl.DataFrame, hashes: pl.Series, *, part: str) -> None:
        """Write the datasets that are new or changed; of those that share an id one waits for `settle`."""
        with self._lock:
            self.report.datasets += self._datasets.write_changes(
                frame,
                hashes,
                scanned_at=self.report.scanned_at,
                job_id=self.report.job_id,
                part=self._free(part),
            )

    def take_file(self, path: Path, *, part: str) -> None:
        """Take a committed file of datasets that were found new or changed; see `take`."""
        with self._lock:
            self.report.datasets += self._datasets.write_file(
                path, scanned_at=self.report.scanned_at, job_id=self.report.job_id, part=self._free(part)
            )

    def _free(self, part: str) -> str:
        # A batch is written again where a scan was killed: what its file holds by then must stay. A file that
        # was not declared done holds nothing.
        folder, name, again = self.tables.datasets.folder, part, 1
        while done_path(folder / f"{self.report.job_id}-{name}.parquet").exists():
            again += 1
            name = f"{part}-{again}"
        return name

    def settle(self) -> None:
        """Decide between datasets that share an id, once all of them were seen."""
        self.report.datasets += self._datasets.settle(
            scanned_at=self.report.scanned_at, job_id=self.report.job_id
        )

    def whole(self, record_type: RecordType, table: BronzeTable, batch: Batch) -> Changes:
        """Write what differs of a table that was read at once."""
        self.note(record_type.table, batch.rejected)
        return VersionLog(table, record_type.key_column).write_changes(
            batch.frame,
            batch.hashes,
            scanned_at=self.report.scanned_at,
            job_id=self.report.job_id,
            part=record_type.table,
        )

    def note(self, table: str, rejected: Iterable[Rejected]) -> None:
        """Note records that can't be parsed."""
        with self._lock:
            self._rejected += [(table, bad) for bad in rejected]

    def mark_missing(self, *, accept: bool) -> None:
        """Mark the known datasets that a complete sweep did not see, and take the mark from those it did.

        Raises
        ------
        TooManyMissing
            When more than a tenth of them went at once, unless that is accepted.
        """
        table = self.tables.missing
        flags = table.scan().collect().sort("scanned_at").unique("record_id", keep="last")
        marked = set(flags.filter(pl.col("missing_since").is_not_null())["record_id"])
        unseen = set(self._datasets.unseen_keys) - {bad.record_id for _table, bad in self._rejected}
        gone, back = sorted(unseen - marked), sorted(marked - unseen)
        before = pl.Series(sorted(marked), dtype=pl.String)
        known = int((~self._datasets.known_keys.is_in(before.implode())).sum())
        if len(gone) > MAX_MISSING_SHARE * known and not accept:
            raise TooManyMissing(
                f"{len(gone)} of {known} known datasets are missing from the store at once"
                " (an outage, or a token that sees less?); nothing was marked. If they are really gone,"
                " scan with --accept-missing."
            )
        now, job_id = self.report.scanned_at, self.report.job_id
        rows: list[tuple[object, ...]] = [(DATASETS.table, key, now, now, job_id) for key in gone]
        rows += [(DATASETS.table, key, None, now, job_id) for key in back]
        frame = pl.DataFrame(rows, schema=MISSING_SCHEMA, orient="row")
        table.append(frame, job_id=job_id, part="missing")
        self.report.missing = len(marked | set(gone)) - len(back)

    def write_rejected(self) -> None:
        """Write the rejected records that bronze does not have yet."""
        table, report = self.tables.rejected, self.report
        known = set(table.scan().select("content_hash").collect()["content_hash"])
        rows = [
            (name, bad.record_id, bad.reason, bad.raw_json, report.scanned_at, report.job_id, digest)
            for name, bad in self._rejected
            if (digest := bad.content_hash) not in known
        ]
        frame = pl.DataFrame(rows, schema=REJECTED_SCHEMA, orient="row")
        table.append(frame, job_id=report.job_id, part="rejected")
        report.rejected = len(self._rejected)
