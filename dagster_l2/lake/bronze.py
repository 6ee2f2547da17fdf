"""Bronze tables: folders of immutable parquet files, and version logs that hold each change once.

Knows columns, keys and hashes; does not know where the records come from or what they decide.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import polars as pl

from dagster_l2.lake.commit import (
    Claim,
    ResultManifest,
    commit_link,
    commit_parquet,
    committed_files,
    done_path,
)
from dagster_l2.lake.known import Known, standing_for

_FILES_AT_ONCE = 32
"""Whose hashes and paths, as texts, are in memory together."""

SCAN_COLUMNS: dict[str, pl.DataType] = {
    "scanned_at": pl.Datetime("us"),
    "job_id": pl.String(),
    "content_hash": pl.String(),
}

SCHEMA_FILE = "0-schema-"
"""How the names of files begin that have no rows and only carry a schema."""


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
        path = self.folder / f"{SCHEMA_FILE}{hashlib.sha256(text.encode()).hexdigest()[:12]}.parquet"
        if path not in committed_files(self.folder):
            commit_parquet(path, pl.DataFrame(schema=self.schema), job_id="schema", batch_id=self.name)

    def append(
        self, frame: pl.DataFrame, *, job_id: str, part: str, claim: Claim | None = None
    ) -> ResultManifest | None:
        """Commit rows as a new file; no rows and no claim, no file."""
        if frame.is_empty() and claim is None:
            return None
        path = self.folder / f"{job_id}-{part}.parquet"
        rows = frame.select([pl.col(name).cast(dtype) for name, dtype in self.schema.items()])
        return commit_parquet(path, rows, job_id=job_id, batch_id=part, claim=claim)

    def adopt(self, path: Path, *, job_id: str, part: str) -> ResultManifest:
        """Commit a file that is committed elsewhere, in this schema, as one of the table's own."""
        return commit_link(self.folder / f"{job_id}-{part}.parquet", path, job_id=job_id, batch_id=part)

    def scan(self) -> pl.LazyFrame:
        """The rows of all committed files, lazily; a column that a file does not have yet is null."""
        return self.scan_files(committed_files(self.folder))

    def scan_files(self, files: Sequence[Path], *, file_column: str | None = None) -> pl.LazyFrame:
        """The rows of some of its files, as `scan` gives them, and if wanted the path of each row's file."""
        if not files:
            more = {file_column: pl.String()} if file_column else {}
            return pl.LazyFrame(schema={**self.schema, **more})
        return pl.scan_parquet(
            list(files),
            schema=dict(self.schema),
            missing_columns="insert",
            extra_columns="ignore",
            glob=False,
            include_file_paths=file_column,
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
    """A bronze table with one row each time a record was new or had changed; written by one thread.

    Parameters
    ----------
    table
        Where the rows go; its schema ends in `SCAN_COLUMNS`.
    key
        The column that identifies a record.
    home
        A column in which two records that share a key differ (for instance where they were created, so
        that a sweep meets them in different windows). When given, a record that differs from its newest
        version there too is not written before `settle`, which knows all of the sweep.
    newest_by
        The column by which `settle` decides between them.
    """

    def __init__(
        self, table: BronzeTable, key: str, *, home: str | None = None, newest_by: str = "update_date"
    ) -> None:
        self.table = table
        self.key = key
        self._home = home
        self._newest_by = newest_by
        self._held: list[pl.DataFrame] = []
        table.ensure()
        self._files = committed_files(table.folder)
        self._known = self._read_known()

    def _read_known(self) -> Known:
        parts = [
            self._versions(i, self._files[i : i + _FILES_AT_ONCE])
            for i in range(0, max(1, len(self._files)), _FILES_AT_ONCE)
        ]
        rows = pl.concat(parts).sort(self.key, "scanned_at")
        # What `unique` would build of a million keys is larger than all else that a scan holds.
        is_last = pl.col(self.key).ne(pl.col(self.key).shift(-1)).fill_null(True)
        newest = rows.filter(is_last)
        return Known(newest[self.key], newest["content_hash"], newest["file"])

    def _versions(self, first: int, files: Sequence[Path]) -> pl.DataFrame:
        """Of each row the key, the moment, what stands for its hash, and the number of its file."""
        rows = self.table.scan_files(files, file_column="file")
        paths = pl.Enum([str(path) for path in files])
        number = pl.col("file").cast(paths).to_physical().cast(pl.UInt32) + first
        return rows.select(self.key, "scanned_at", standing_for(pl.col("content_hash")), number).collect()

    @property
    def known_keys(self) -> pl.Series:
        """The keys of all records ever seen."""
        return self._known.keys()

    @property
    def unseen_keys(self) -> pl.Series:
        """The keys of records that were known before and that this log was neither asked nor told of."""
        return self._known.unseen()

    def differs(self, keys: pl.Series, hashes: pl.Series) -> pl.Series:
        """Which of these records are new or differ from their newest version; all of them count as seen.

        It writes nothing, and threads may ask at once. `write_changes` is asked with those that differ.
        """
        return ~self._known.look_up(keys, hashes)[1]

    def saw(self, keys: pl.Series) -> None:
        """Note records as seen whose newest version is known to be what the store holds."""
        self._known.mark_same(keys)

    def write_changes(
        self, frame: pl.DataFrame, hashes: pl.Series, *, scanned_at: datetime, job_id: str, part: str
    ) -> Changes:
        """Write the records of ``frame`` that are new or differ from their newest version.

        Parameters
        ----------
        frame
            Records, one row per key; with ``home`` several may share one, and the others wait for `settle`.
        hashes
            Their content hashes, in the same order.
        scanned_at
            The moment of the scan, UTC without zone.
        job_id, part
            Name the file.

        Returns
        -------
        Changes
            Of all but the records that are held back; those count in what `settle` gives.
        """
        if self._home is not None and not (is_first := frame[self.key].is_first_distinct()).all():
            self._held.append(frame.with_columns(hashes.alias("content_hash")).filter(~is_first))
            frame, hashes = frame.filter(is_first), hashes.filter(is_first)
        files, is_same = self._known.look_up(frame[self.key], hashes)
        is_new = files.is_null()
        is_changed = ~is_new & ~is_same
        new, changed = int(is_new.sum()), int(is_changed.sum())
        unchanged = len(frame) - new - changed
        if not new and not changed:
            return Changes(unchanged=unchanged)
        stamped = frame.with_columns(hashes.alias("content_hash"))
        by_field: dict[str, int] = {}
        if changed:
            now = stamped.filter(is_changed)
            old = self._newest(now[self.key], files.filter(is_changed))
            if self._home is not None:
                is_elsewhere = now[self._home].ne_missing(old[self._home])
                self._held.append(now.filter(is_elsewhere))
                old, now = old.filter(~is_elsewhere), now.filter(~is_elsewhere)
                changed = len(now)
            by_field = self._changed_fields(old, now)
            stamped = stamped.filter(is_new | frame[self.key].is_in(now[self.key].implode()))
        elif unchanged:
            stamped = stamped.filter(is_new)
        manifest = self._append(stamped, scanned_at=scanned_at, job_id=job_id, part=part)
        return Changes(new, changed, unchanged, by_field, manifest)

    def write_file(self, path: Path, *, scanned_at: datetime, job_id: str, part: str) -> Changes:
        """Take the rows of a committed file in the table's own schema, stamped; see `write_changes`.

        Where all of them are new, which is most of a first scan, the file itself becomes one of the table.
        """
        is_ours = pl.read_parquet_schema(path) == pl.Schema(self.table.schema)
        if is_ours:
            rows = pl.read_parquet(path, columns=[self.key, *SCAN_COLUMNS])
            files, _is_same = self._known.look_up(rows[self.key], rows["content_hash"])
            stamped = (rows["scanned_at"] == scanned_at).all() and (rows["job_id"] == job_id).all()
            if stamped and files.null_count() == len(rows) and rows[self.key].is_unique().all():
                manifest = self.table.adopt(path, job_id=job_id, part=part)
                self._note(rows, manifest)
                return Changes(new=len(rows), manifest=manifest)
        whole = pl.read_parquet(path)
        frame, hashes = whole.drop(SCAN_COLUMNS, strict=False), whole["content_hash"]
        return self.write_changes(frame, hashes, scanned_at=scanned_at, job_id=job_id, part=part)

    def settle(self, *, scanned_at: datetime, job_id: str, part: str = "settled") -> Changes:
        """Decide, at the end of a sweep, between records that share a key; the newest is written.

        It is the one with the greatest ``newest_by``, and of those the one with the greatest content hash,
        so that the same records give the same version however a sweep meets them, and a sweep over the same
        records writes nothing. The row is a microsecond younger than the sweep, whose other row of that key
        it replaces.
        """
        if not self._held:
            return Changes()
        held, self._held = pl.concat(self._held), []
        keys = held[self.key].unique()
        old = self._newest(keys, self._known.files(keys))
        still_there = old.filter(old[self.key].is_in(self._known.current(keys).implode()))
        one_each = (
            pl.concat([held, still_there.select(held.columns)])
            .sort(self._newest_by, "content_hash", nulls_last=False)
            .unique(self.key, keep="last")
        )
        fresh = one_each.join(old.select(self.key, "content_hash"), on=[self.key, "content_hash"], how="anti")
        before = fresh.select(self.key).join(old, on=self.key, how="left", maintain_order="left")
        by_field = self._changed_fields(before, fresh)
        moment, number = scanned_at + timedelta(microseconds=1), 1
        while done_path(self.table.folder / f"{job_id}-{part}-{number}.parquet").exists():
            number += 1  # of a sweep that was killed and goes on: what it settled before must stay
        manifest = self._append(fresh, scanned_at=moment, job_id=job_id, part=f"{part}-{number}")
        return Changes(0, len(fresh), len(held) - len(fresh), by_field, manifest)

    def _append(
        self, rows: pl.DataFrame, *, scanned_at: datetime, job_id: str, part: str
    ) -> ResultManifest | None:
        """Write rows that have their hash, and know them from now on."""
        rows = rows.with_columns(pl.lit(scanned_at).alias("scanned_at"), pl.lit(job_id).alias("job_id"))
        manifest = self.table.append(rows, job_id=job_id, part=part)
        if manifest is not None:
            self._note(rows, manifest)
        return manifest

    def _note(self, rows: pl.DataFrame, manifest: ResultManifest) -> None:
        self._files.append(self.table.folder / manifest.file)
        self._known.add(rows[self.key], rows["content_hash"], len(self._files) - 1)

    def _newest(self, keys: pl.Series, files: pl.Series) -> pl.DataFrame:
        """The newest version of each key, in their order; ``files`` has the number of its file."""
        some = self.table.scan_files([self._files[number] for number in files.unique()])
        wanted = pl.LazyFrame([keys.alias(self.key)])
        old = some.join(wanted, on=self.key, how="semi").collect().sort("scanned_at")
        old = old.unique(self.key, keep="last")
        return wanted.collect().join(old, on=self.key, how="left", maintain_order="left")

    def _changed_fields(self, old: pl.DataFrame, now: pl.DataFrame) -> dict[str, int]:
        out = {}
        for name in self.table.schema:
            if name in SCAN_COLUMNS or name == self.key:
                continue
            count = int(now[name].ne_missing(old[name]).sum())
            if count:
                out[name] = count
        return out
