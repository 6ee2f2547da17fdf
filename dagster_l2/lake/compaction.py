"""Many small files of a growing table become few large ones, sorted as they are read.

A pass adds a file, and SQL over the table opens each of them: after years that costs more than the rows. What
is merged counts from one manifest on, which takes its parts out at the same moment. They stay on the disk for
a while, for builds that have listed them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb

from dagster_l2.base.files import remove_leftovers, step, temporary_suffix
from dagster_l2.lake.bronze import SCHEMA_FILE, BronzeTable
from dagster_l2.lake.claims import claims_of
from dagster_l2.lake.commit import (
    Claim,
    LakeError,
    ResultManifest,
    commit_written,
    committed,
    done_path,
    is_intact,
)
from dagster_l2.lake.views import quoted

FULL_ROWS = 1_000_000
"""A file of so many rows is left alone: SQL opens it once and reads it in groups."""

OPEN_FILES = 64
"""So many files that are not full are merged. Each row is written again about once in 64 passes, until its
file is full."""

KEPT_FOR = timedelta(hours=1)
"""How long parts that no longer count stay; no build that has listed them takes so long."""

_MEMORY = "500MB"  # for sorting; what does not fit goes to the disk: a full file takes 4 s and 700 MB in all
_GROUP_ROWS = 122_880  # of DuckDB, which gives whole groups to its threads


@dataclass(frozen=True, slots=True)
class Compaction:
    """What was merged: files into files, and their rows."""

    files: int = 0
    into: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class _Part:
    path: Path
    claim: Claim
    manifest: ResultManifest


def compact(table: BronzeTable, order_by: Sequence[str], *, job_id: str) -> Compaction:
    """Merge the files that are not full, once there are `OPEN_FILES` of them; one writer at a time.

    What was replaced a while ago is removed, and so is what a writer that was killed has left.

    Only files take part whose claims (see `GrowingTable`) follow on each other, and that no other claim
    relies on: what they become claims all that they claimed. A file without a claim stays as it is.

    Parameters
    ----------
    order_by
        Columns to sort the rows of a file by.
    job_id
        Names the new files.

    Raises
    ------
    LakeError
        When the parts can't be read, or the disk holds something else than was written; the parts count as
        before.
    OSError
        When the disk refuses, for example because it is full; the parts count as before.
    """
    table.ensure()
    remove_leftovers(table.folder)
    _remove_undeclared(table.folder)
    files = committed(table.folder)
    _remove_replaced(files)
    parts = _open_parts(files)
    if len(parts) < OPEN_FILES:
        return Compaction()
    schemas = [path for path in files if path.name.startswith(SCHEMA_FILE)]
    done = Compaction()
    for number, group in enumerate(group for group in _groups(parts) if len(group) > 1):
        manifest = _merge(table, group, schemas, order_by, job_id=job_id, part=f"{number:05d}")
        done = Compaction(done.files + len(group), done.into + 1, done.rows + manifest.row_count)
    return done


def _open_parts(files: Mapping[Path, ResultManifest]) -> list[_Part]:
    """The files that may be merged, in the order of their claims."""
    claims = claims_of(files)
    relied_on = {name for claim in claims.values() for name in claim.beside}
    parts = [
        _Part(path, claim, files[path])
        for path, claim in claims.items()
        if not claim.beside and path.name not in relied_on and files[path].row_count < FULL_ROWS
    ]
    return sorted(parts, key=lambda part: part.claim.after)


def _groups(parts: Iterable[_Part]) -> Iterator[list[_Part]]:
    """Files that follow on each other, as many as fill one."""
    group: list[_Part] = []
    rows = 0
    for part in parts:
        is_next = bool(group) and part.claim.after == group[-1].claim.through
        if group and (not is_next or rows >= FULL_ROWS):
            yield group
            group, rows = [], 0
        group.append(part)
        rows += part.manifest.row_count
    if group:
        yield group


def _merge(
    table: BronzeTable,
    group: list[_Part],
    schemas: list[Path],
    order_by: Sequence[str],
    *,
    job_id: str,
    part: str,
) -> ResultManifest:
    for each in group:
        if not is_intact(each.path):  # what is merged gets a hash of its own, and nobody would ever know
            raise LakeError(
                f"{each.path} is not what its manifest says; remove it, and its rows are written again from"
                " where they came."
            )
    files = ", ".join(quoted(path) for path in (*schemas, *(each.path for each in group)))
    columns, order = _listed(table.schema), _listed(order_by)
    query = f"select {columns} from read_parquet([{files}], union_by_name = true) order by {order}"  # noqa: S608

    def write(temporary: Path) -> int:
        spilled = tempfile.TemporaryDirectory(prefix=".merge-", suffix=temporary_suffix(), dir=table.folder)
        with spilled as folder, duckdb.connect() as connection:
            connection.execute(f"set memory_limit = '{_MEMORY}'")
            connection.execute(f"set temp_directory = {quoted(folder)}")
            try:
                ((count,),) = connection.execute(
                    f"copy ({query}) to {quoted(temporary)}"
                    f" (format parquet, compression zstd, row_group_size {_GROUP_ROWS})"
                ).fetchall()
            except duckdb.Error as error:
                why = str(error).splitlines()[0]
                raise LakeError(
                    f"Files of {table.folder} can't be merged, and stay as they are: {why}"
                ) from None
        return int(count)

    return commit_written(
        table.folder / f"{job_id}-{part}.parquet",
        write,
        list(table.schema),
        job_id=job_id,
        batch_id=part,
        claim=Claim(group[0].claim.after, group[-1].claim.through),
        replaces=[name for each in group for name in (each.path.name, *_still_there(each))],
    )


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in columns)


def _still_there(part: _Part) -> Iterator[str]:
    """What a part has replaced itself: it must not count again when the part is gone."""
    for name in part.manifest.replaces:
        if done_path(part.path.with_name(name)).exists():
            yield name


def _remove_undeclared(folder: Path) -> None:
    """Remove what a writer that was killed has renamed into place and not declared."""
    for path in folder.glob("*.parquet"):
        if not done_path(path).exists():
            step(f"remove {path.name}")
            path.unlink()


def _remove_replaced(files: Mapping[Path, ResultManifest]) -> None:
    """Remove what files that count have replaced a while ago: the manifest first, then the rows."""
    for path, manifest in files.items():
        if not manifest.is_known_at(datetime.now(UTC) - KEPT_FOR):
            continue
        for name in manifest.replaces:
            part = path.with_name(name)
            for file in (done_path(part), part):
                if file.exists():
                    step(f"remove {file.name}")
                    file.unlink()
