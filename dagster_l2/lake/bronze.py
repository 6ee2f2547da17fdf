"""Bronze tables: folders of immutable parquet files, and version logs that hold each change once.

Knows columns, keys and hashes; does not know where the records come from or what they decide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from dagster_l2.lake.commit import ResultManifest, commit_parquet, committed_files

SCAN_COLUMNS: dict[str, pl.DataType] = {
    "scanned_at": pl.Datetime("us"),
    "job_id": pl.String(),
    "content_hash": pl.String(),
}


@dataclass(frozen=True)
class BronzeTable:
    """A table of bronze: a folder of committed parquet files under one schema."""

    root: Path
    name: str
    schema: Mapping[str, pl.DataType]

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self.root / "bronze" / self.name

    def ensure(self) -> None:
        """Commit a file without rows that carries the schema, once for each schema the table has had.

        So a reader finds every column, typed, before the first record and after a column was added.
        """
        text = repr({name: str(dtype) for name, dtype in self.schema.items()})
        path = self.folder / f"0-schema-{hashlib.sha256(text.encode()).hexdigest()[:12]}.parquet"
        if path not in committed_files(self.folder):
            commit_parquet(path, pl.DataFrame(schema=self.schema), job_id="schema", batch_id=self.name)

    def append(self, frame: pl.DataFrame, *, job_id: str, part: str) -> ResultManifest | None:
        """Commit rows as a new file; no rows, no file."""
        if frame.is_empty():
            return None
        path = self.folder / f"{job_id}-{part}.parquet"
        rows = frame.select([pl.col(name).cast(dtype) for name, dtype in self.schema.items()])
        return commit_parquet(path, rows, job_id=job_id, batch_id=part)

    def scan(self) -> pl.LazyFrame:
        """The rows of all committed files, lazily; a column that a file does not have yet is null."""
        files = committed_files(self.folder)
        if not files:
            return pl.LazyFrame(schema=self.schema)
        return pl.scan_parquet(
            files, schema=dict(self.schema), missing_columns="insert", extra_columns="ignore", glob=False
        )


@dataclass(frozen=True, slots=True)
class Changes:
    """What a write found: counts of records, and how often each field had changed."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    by_field: Mapping[str, int] = field(default_factory=dict)
    manifest: ResultManifest | None = None

    def __add__(self, other: Changes) -> Changes:
        fields = dict(self.by_field)
        for name, count in other.by_field.items():
            fields[name] = fields.get(name, 0) + count
        return Changes(
            self.new + other.new, self.changed + other.changed, self.unchanged + other.unchanged, fields
        )


class VersionLog:
    """A bronze table with one row each time a record was new or had changed.

    Parameters
    ----------
    table
        Where the rows go; its schema ends in `SCAN_COLUMNS`.
    key
        The column that identifies a record.
    """

    def __init__(self, table: BronzeTable, key: str) -> None:
        self.table = table
        self.key = key
        table.ensure()
        self._known: dict[str, str] = self._read_known()

    def _read_known(self) -> dict[str, str]:
        rows = self.table.scan().select(self.key, "scanned_at", "content_hash").collect().sort("scanned_at")
        newest = rows.unique(self.key, keep="last", maintain_order=True)
        return dict(zip(newest[self.key], newest["content_hash"], strict=True))

    @property
    def known_keys(self) -> set[str]:
        """The keys of all records ever seen."""
        return set(self._known)

    def write_changes(
        self, frame: pl.DataFrame, hashes: pl.Series, *, scanned_at: datetime, job_id: str, part: str
    ) -> Changes:
        """Write the records of ``frame`` that are new or differ from their newest version.

        Parameters
        ----------
        frame
            Records, one row per key.
        hashes
            Their content hashes, in the same order.
        scanned_at
            The moment of the scan, UTC without zone.
        job_id, part
            Name the file.
        """
        before = [self._known.get(key) for key in frame[self.key]]
        status = [
            "new" if old is None else "unchanged" if old == now else "changed"
            for old, now in zip(before, hashes, strict=True)
        ]
        stamped = frame.with_columns(
            pl.lit(scanned_at).alias("scanned_at"),
            pl.lit(job_id).alias("job_id"),
            hashes.alias("content_hash"),
        )
        mask = pl.Series([text != "unchanged" for text in status], dtype=pl.Boolean)
        fresh = stamped.filter(mask)
        changed = stamped.filter(pl.Series([text == "changed" for text in status], dtype=pl.Boolean))
        by_field = self._changed_fields(changed)
        manifest = self.table.append(fresh, job_id=job_id, part=part)
        self._known.update(zip(fresh[self.key], fresh["content_hash"], strict=True))
        return Changes(
            status.count("new"), status.count("changed"), status.count("unchanged"), by_field, manifest
        )

    def _changed_fields(self, changed: pl.DataFrame) -> dict[str, int]:
        if changed.is_empty():
            return {}
        keys = changed.select(self.key)
        old = self.table.scan().join(keys.lazy(), on=self.key, how="semi").collect().sort("scanned_at")
        old = keys.join(old.unique(self.key, keep="last"), on=self.key, how="left", maintain_order="left")
        out = {}
        for name in self.table.schema:
            if name in SCAN_COLUMNS or name == self.key:
                continue
            count = int(changed[name].ne_missing(old[name]).sum())
            if count:
                out[name] = count
        return out
