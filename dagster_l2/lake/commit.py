"""How a parquet file comes to count: validated, renamed into place, and only then declared done.

Temporary file, fsync, validation of what is on the disk, rename, fsync of the folder, then the ``.done``
manifest in the same way. A reader sees only files with a manifest. What the files mean is not known here.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from dagster_l2.base.errors import L2Error
from dagster_l2.base.files import sha256, write_durably, write_json


class LakeError(L2Error):
    """A file of the lake is not what it should be."""


@dataclass(frozen=True, slots=True)
class Claim:
    """With the files ``beside`` it, a file has each row of its source with ``after < key <= through``."""

    after: int
    through: int
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ResultManifest:
    """What ``.done`` says of the parquet file beside it; ``claim`` and ``replaces`` are left out where empty.

    A file has the rows of those that it ``replaces``, by name: from this manifest on they no longer count.
    """

    job_id: str
    batch_id: str
    file: str
    status: str
    row_count: int
    bytes: int
    sha256: str
    written_at: str
    claim: Claim | None = None
    replaces: tuple[str, ...] = ()

    def is_known_at(self, moment: datetime) -> bool:
        """Whether the file was there at a moment (with a time zone)."""
        return datetime.fromisoformat(self.written_at) <= moment


def done_path(path: Path) -> Path:
    """The manifest that belongs to a parquet file."""
    return path.with_suffix(".done")


def commit_parquet(
    path: Path, frame: pl.DataFrame, *, job_id: str, batch_id: str, claim: Claim | None = None
) -> ResultManifest:
    """Write ``frame`` to ``path`` so that it counts wholly or not at all.

    Parameters
    ----------
    path
        Final name, ending in ``.parquet``; it is replaced when it exists.
    frame
        The rows.
    job_id, batch_id
        Who wrote it and of what, for the manifest.
    claim
        What the file says of its source, for the manifest.

    Raises
    ------
    LakeError
        When what the disk holds afterwards is not what was written.
    OSError
        When the disk refuses, for example because it is full; nothing that counted before is lost.
    """

    def write(temporary: Path) -> int:
        pq.write_table(frame.to_arrow(), temporary, compression="zstd")
        return len(frame)

    return commit_written(path, write, frame.columns, job_id=job_id, batch_id=batch_id, claim=claim)


def commit_written(
    path: Path,
    write: Callable[[Path], int],
    columns: Sequence[str],
    *,
    job_id: str,
    batch_id: str,
    claim: Claim | None = None,
    replaces: Sequence[str] = (),
) -> ResultManifest:
    """Let ``write`` fill a parquet file and give back its number of rows, and commit it as `commit_parquet`.

    Parameters
    ----------
    columns
        What the file must have, in this order.
    replaces
        Names of files in the same folder that have its rows, and no longer count from now on.

    Raises
    ------
    LakeError
        When what the disk holds afterwards is not what was written.
    OSError
        When the disk refuses; nothing that counted before is lost.
    """
    done_path(path).unlink(missing_ok=True)
    found: dict[str, Any] = {}

    def write_soundly(temporary: Path) -> None:
        rows = write(temporary)
        _validate(temporary, rows, columns, path.name)
        found.update(rows=rows, bytes=temporary.stat().st_size, digest=sha256(temporary))

    write_durably(path, write_soundly)
    return _declare(path, **found, job_id=job_id, batch_id=batch_id, claim=claim, replaces=tuple(replaces))


def commit_link(path: Path, source: Path, *, job_id: str, batch_id: str) -> ResultManifest:
    """Let a committed file count under another name as well, without writing its rows again.

    Committed files are replaced and never written to, so both names keep what they have, whatever becomes
    of the other. Between file systems, or where there are no links, it is copied.

    Raises
    ------
    LakeError
        When the source has no manifest, or the disk holds something else than it says.
    OSError
        When the disk refuses; nothing that counted before is lost.
    """
    manifest = read_manifest(source)
    if manifest is None:
        raise LakeError(f"{source.name} is not committed, so no other file can be made of it.")
    done_path(path).unlink(missing_ok=True)
    # To rename one name of a file to another of its names does nothing, and would leave both.
    path.unlink(missing_ok=True)

    def write(temporary: Path) -> None:
        temporary.unlink(missing_ok=True)
        try:
            temporary.hardlink_to(source)
        except OSError:
            shutil.copyfile(source, temporary)
        if (temporary.stat().st_size, sha256(temporary)) != (manifest.bytes, manifest.sha256):
            raise LakeError(f"{source.name} is not what its manifest says; is the disk sound?")

    write_durably(path, write)
    return _declare(
        path,
        rows=manifest.row_count,
        bytes=manifest.bytes,
        digest=manifest.sha256,
        job_id=job_id,
        batch_id=batch_id,
    )


def _declare(
    path: Path,
    *,
    rows: int,
    bytes: int,
    digest: str,
    job_id: str,
    batch_id: str,
    claim: Claim | None = None,
    replaces: tuple[str, ...] = (),
) -> ResultManifest:
    """Write the manifest that makes a file count."""
    manifest = ResultManifest(
        job_id=job_id,
        batch_id=batch_id,
        file=path.name,
        status="DONE",
        row_count=rows,
        bytes=bytes,
        sha256=digest,
        written_at=datetime.now(UTC).isoformat(timespec="microseconds"),
        claim=claim,
        replaces=replaces,
    )
    content = asdict(manifest)
    for name in ("claim", "replaces"):
        if not content[name]:
            del content[name]
    write_json(done_path(path), content)
    return manifest


def _validate(path: Path, rows: int, columns: Sequence[str], name: str) -> None:
    file = pq.ParquetFile(path)
    if file.metadata.num_rows != rows:
        raise LakeError(f"{name} holds {file.metadata.num_rows} rows of {rows}; is the disk sound?")
    if file.schema_arrow.names != list(columns):
        raise LakeError(f"{name} holds other columns than were written; is the disk sound?")


def read_manifest(path: Path) -> ResultManifest | None:
    """The manifest of a parquet file; None when there is none or it cannot be read."""
    try:
        content = json.loads(done_path(path).read_text(encoding="utf-8"))
        claim = content.pop("claim", None)
        if claim is not None:
            claim = Claim(int(claim["after"]), int(claim["through"]), tuple(claim["beside"]))
        replaces = tuple(content.pop("replaces", ()))
        return ResultManifest(**content, claim=claim, replaces=replaces)
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def is_intact(path: Path) -> bool:
    """Whether the file is there with the size and the hash of its manifest."""
    manifest = read_manifest(path)
    return (
        manifest is not None
        and path.is_file()
        and path.stat().st_size == manifest.bytes
        and sha256(path) == manifest.sha256
    )


def committed_files(folder: Path, *, known_at: datetime | None = None) -> list[Path]:
    """The parquet files of a folder that count, by name; see `committed`."""
    return list(committed(folder, known_at=known_at))


def committed(folder: Path, *, known_at: datetime | None = None) -> dict[Path, ResultManifest]:
    """The parquet files of a folder that count, by name, with their manifests.

    A file counts with a manifest and the size that it states, while no other that counts replaces it. The
    hash is left to `is_intact`, since reading every byte before each use would cost more than the use.

    Parameters
    ----------
    known_at
        Leave out what was written after this moment (with a time zone); files that only carry a schema
        know nothing, and stay.
    """
    found: dict[Path, ResultManifest] = {}
    for done in sorted(folder.glob("*.done")):
        path = done.with_suffix(".parquet")
        manifest = read_manifest(path)
        if manifest is None or not path.is_file() or path.stat().st_size != manifest.bytes:
            continue
        if known_at is None or not manifest.row_count or manifest.is_known_at(known_at):
            found[path] = manifest
    replaced = {name for manifest in found.values() for name in manifest.replaces}
    return {path: manifest for path, manifest in found.items() if path.name not in replaced}
