"""How rows from a stream come to count: the lake's commit for files that never fit in memory as a whole.

The steps and the marker are the lake's: temporary file, fsync, validation, rename, folder, ``.done``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from dagster_l2.base.files import sha256, write_durably, write_json
from dagster_l2.lake import LakeError, ResultManifest, done_path


@dataclass(frozen=True, slots=True)
class Written:
    """A file that is on the disk as it should be."""

    rows: int
    bytes: int
    sha256: str


def write_validated(path: Path, fill: Callable[[Path], int], schema: Mapping[str, pl.DataType]) -> Written:
    """Let ``fill`` write a parquet file, validate it, and rename it into place.

    Parameters
    ----------
    fill
        Writes to the path that it is given; returns the number of rows.

    Raises
    ------
    LakeError
        When what the disk holds afterwards is not what was written.
    """
    found: list[Written] = []

    def write(temporary: Path) -> None:
        rows = fill(temporary)
        metadata = pq.read_metadata(temporary)
        if metadata.num_rows != rows:
            raise LakeError(f"{path.name} holds {metadata.num_rows} rows of {rows}; is the disk sound?")
        if pl.read_parquet_schema(temporary) != pl.Schema(schema):
            raise LakeError(f"{path.name} holds other columns than were written; is the disk sound?")
        found.append(Written(rows, temporary.stat().st_size, sha256(temporary)))

    write_durably(path, write)
    return found[0]


def commit_rows(
    path: Path,
    fill: Callable[[Path], int],
    schema: Mapping[str, pl.DataType],
    *,
    job_id: str,
    batch_id: str,
) -> ResultManifest:
    """Write a parquet file so that it counts wholly or not at all; see `write_validated`.

    Raises
    ------
    LakeError
        When what the disk holds afterwards is not what was written.
    OSError
        When the disk refuses.
    """
    done_path(path).unlink(missing_ok=True)
    written = write_validated(path, fill, schema)
    manifest = ResultManifest(
        job_id=job_id,
        batch_id=batch_id,
        file=path.name,
        status="DONE",
        row_count=written.rows,
        bytes=written.bytes,
        sha256=written.sha256,
        written_at=datetime.now(UTC).isoformat(timespec="microseconds"),
    )
    content = asdict(manifest)
    write_json(done_path(path), {name: value for name, value in content.items() if name != "claim"})
    return manifest
