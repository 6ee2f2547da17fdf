"""Backup and restore: the ledger, bronze, manifests and input packages; gold is made anew by the next pass.

What belongs in and in which order it is read, so that it fits together while a pass runs. Where a backup lies
is in ``archive``, how the ledger becomes a file in ``ledger``.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.base.files import only_one, sha256, write_durably, write_json
from dagster_l2.batch import batch_attempts, kept_jobs, take_jobs
from dagster_l2.lake import committed_files, done_path, read_manifest
from dagster_l2.ledger import Ledger, check_known
from dagster_l2.operations.archive import Archive, BadBackup, Source, copied, open_archive, open_source
from dagster_l2.settings import RESTORE_MARK, Settings

FORMAT = 1
EXTRAS = ("products", "published")
"""What a backup holds only when it is asked for: products that were handed over, files that went out."""

_LEDGER, _JOBS = "ledger.jsonl", "jobs.jsonl"
_FOLLOW_THE_LEDGER = ("transitions", "annotations", "attempts", "job_tasks")
"""Tables of bronze that are written from the state database."""

_MAY_BE_THERE = {"README.md", "dbt", "dagster", "locks", "logs", RESTORE_MARK}
"""What setting up and starting leave in a data folder, beside the files of the ledger."""

_TRIES = 3

Progress = Callable[[int, int], None]
"""Told the files that are done, of how many."""


class BackupFailed(L2Error):
    """A backup or a restore came to no end; the message says why."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What a backup or a restore did; ``copied_bytes`` leaves out what was there already."""

    files: int
    bytes: int
    copied_files: int
    copied_bytes: int
    ledger_rows: int
    jobs: int
    created_at: str


def back_up(
    settings: Settings,
    ledger: Ledger,
    target: Path,
    *,
    extras: Sequence[str] = (),
    progress: Progress | None = None,
) -> Kept:
    """Write a backup to a folder, or to a file that ends in ``.tar``; other work may go on meanwhile.

    Bronze that is written from the ledger is listed before the ledger is read, and all else after: so the
    ledger knows every row that bronze has of it, and bronze has the records of every verdict in the ledger.

    Raises
    ------
    BadBackup
        When the target holds something else.
    BackupFailed
        When a file keeps changing while it is read, or is damaged.
    """
    data = settings.data
    target = target.expanduser().absolute()
    if target == data or data in target.parents:
        raise WrongUse(f"{target} lies in the data folder and would be lost with it; name another place.")
    lock = data / "locks" / "backup.lock"
    with only_one(lock, "A backup"), open_archive(target) as archive, tempfile.TemporaryDirectory() as folder:
        following = [path for name in _FOLLOW_THE_LEDGER for path in _bronze(settings, name)]
        jobs_file, ledger_file = Path(folder, _JOBS), Path(folder, _LEDGER)
        with jobs_file.open("wb") as file:
            lines = list(kept_jobs(ledger.engine))
            file.writelines(lines)
        with ledger_file.open("wb") as file:
            dumped = ledger.dump(file, others=[batch_attempts])
        writer = _Writer(archive, {"": data, "published": settings.published_folder})
        writer.add(ledger_file, _LEDGER)
        writer.add(jobs_file, _JOBS)
        found = [*following, *_rest(settings, extras)]
        for number, path in enumerate(found, start=1):
            writer.take(path)
            if progress is not None:
                progress(number, len(found))
        content = {
            "format": FORMAT,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": version("dagster_l2"),
            "ledger_rows": dumped.rows,
            "ledger_hash": dumped.hash,
            "ledger_revision": dumped.revision,
            "jobs": len(lines),
            "with": sorted(extras),
            "files": writer.files,
        }
        archive.close_with(content)
    return _kept(content, writer.copied)


def restore(
    settings: Settings, source: Path, *, files_only: bool = False, progress: Progress | None = None
) -> Kept:
    """Bring a backup into an empty data folder and an empty state database; goes on where it was ended.

    Until it has come to its end every other command refuses the folder.

    Parameters
    ----------
    files_only
        Leave the state database alone: it lies elsewhere and was not lost.

    Raises
    ------
    BadBackup
        When the backup is not whole.
    BackupFailed
        When the data folder holds something.
    LedgerUnavailable
        When the state database holds something, or the backup is of a newer version.
    """
    data = settings.data
    with open_source(source.expanduser()) as archive:
        content = archive.content
        if content.get("format") != FORMAT:
            raise BadBackup(
                f"{source} was written by version {content.get('version')} in a format that this one can't"
                " read; install that version."
            )
        if not files_only:
            check_known(str(content.get("ledger_revision")), str(source))
        text = json.dumps(content, sort_keys=True).encode()
        _begin(data, hashlib.sha256(text).hexdigest(), source)
        with only_one(data / "locks" / "restore.lock", "A restore"):
            entries = {str(file["path"]): file for file in content["files"]}
            own = {name: entries.pop(name) for name in (_LEDGER, _JOBS) if name in entries}
            targets = [(_target(settings, path), file) for path, file in entries.items()]
            if not files_only:
                _bring_ledger(settings, archive, own)
            done: list[int] = []
            for number, (path, file) in enumerate(targets, start=1):
                if _bring(archive, path, file):
                    done.append(file["bytes"])
                if progress is not None:
                    progress(number, len(targets))
        (data / RESTORE_MARK).unlink()
    return _kept(content, done)


def _bronze(settings: Settings, table: str) -> list[Path]:
    return committed_files(settings.lake / "bronze" / table)


def _rest(settings: Settings, extras: Sequence[str]) -> Iterator[Path]:
    """All files but those that follow the ledger: other tables, manifests, packages, events, extras."""
    data = settings.data
    bronze = settings.lake / "bronze"
    for folder in sorted(bronze.iterdir()) if bronze.is_dir() else []:
        if folder.name not in _FOLLOW_THE_LEDGER:
            yield from _bronze(settings, folder.name)
    origin = data / "origin.json"
    if origin.is_file():
        yield origin
    yield from _files(settings.jobs_folder)
    inputs = data / "inputs"
    for package in sorted(inputs.iterdir()) if inputs.is_dir() else []:
        yield from (path for path in sorted(package.glob("[!.]*")) if path.is_file())
        yield from _files(package / "transfer")
    yield from _files(data / "inbox")
    if "products" in extras:
        yield from _files(data / "products")
        yield from _files(data / "level2")
    if "published" in extras:
        yield from _files(settings.published_folder)


def _files(folder: Path) -> Iterator[Path]:
    """The files of a folder and those below; hidden ones are still being written."""
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_file() and not path.is_symlink() and not path.name.startswith("."):
            yield path


class _Writer:
    """Puts files into an archive and keeps the list of them."""

    def __init__(self, archive: Archive, roots: dict[str, Path]) -> None:
        self._archive, self._roots = archive, roots
        self.files: list[dict[str, Any]] = []
        self.copied: list[int] = []

    def take(self, path: Path) -> None:
        """Take a file of the data folder; a file that counts by a manifest together with it."""
        if path.suffix == ".parquet" and done_path(path).exists():
            self._take_committed(path)
        else:
            try:
                self.add(path, self._name(path))
            except FileNotFoundError:
                return  # it had its time: a ready event that was taken in, a job that was cleaned

    def _take_committed(self, path: Path) -> None:
        """Take a parquet file with the manifest that fits it, also when both are replaced meanwhile."""
        for _try in range(_TRIES):
            manifest = read_manifest(path)
            if manifest is None:
                continue
            if not self._archive.holds(manifest.sha256, manifest.bytes):
                try:
                    digest, size = self._archive.put(path)
                except FileNotFoundError:
                    continue
                if (digest, size) != (manifest.sha256, manifest.bytes):
                    continue
                self.copied.append(size)
            if read_manifest(path) == manifest:
                self._list(self._name(path), manifest.sha256, manifest.bytes)
                self.add(done_path(path), self._name(done_path(path)))
                return
        if path.exists():
            raise BackupFailed(
                f"{path} is not what its manifest says; if nothing writes to it now, its disk is not sound."
            )

    def add(self, path: Path, name: str) -> None:
        """Take a file under a name of its own."""
        digest, size = sha256(path), path.stat().st_size
        if not self._archive.holds(digest, size):
            digest, size = self._archive.put(path)
            self.copied.append(size)
        self._list(name, digest, size)

    def _list(self, name: str, digest: str, size: int) -> None:
        if not any(file["path"] == name for file in self.files[-1:]):
            self.files.append({"path": name, "sha256": digest, "bytes": size})

    def _name(self, path: Path) -> str:
        for prefix, root in self._roots.items():
            if root in path.parents:
                return str(PurePosixPath(prefix, path.relative_to(root).as_posix()))
        raise AssertionError(path)


def _begin(data: Path, backup: str, source: Path) -> None:
    """Mark the folder as one that is being restored; refuse one that holds something else."""
    mark = data / RESTORE_MARK
    if mark.exists():
        try:
            begun = json.loads(mark.read_text(encoding="utf-8"))["backup"]
        except (ValueError, KeyError, TypeError):
            begun = None
        if begun != backup:
            raise BackupFailed(
                f"Another backup is being restored into {data}; finish that one, or remove the folder."
            )
        return
    if data.is_dir():
        others = {path.name for path in data.iterdir() if not path.name.startswith("l2.sqlite")}
        if others := others - _MAY_BE_THERE:
            raise BackupFailed(
                f"{data} holds something already ({', '.join(sorted(others)[:3])}), and a restore overwrites"
                " nothing; move it away, or set L2_DATA_DIR to another folder."
            )
    write_json(mark, {"backup": backup, "from": str(source)})


def _bring_ledger(settings: Settings, archive: Source, own: dict[str, dict[str, Any]]) -> None:
    if own.keys() != {_LEDGER, _JOBS}:
        raise BadBackup("The backup lists no ledger; take another one.")
    with (
        tempfile.TemporaryDirectory() as folder,
        Ledger.open(settings.state_url, schema=settings.db_schema) as ledger,
    ):
        for name, file in own.items():
            _bring(archive, Path(folder, name), file)
        ledger.load(Path(folder, _LEDGER), others=[batch_attempts])
        with Path(folder, _JOBS).open("rb") as lines:
            try:
                take_jobs(ledger.engine, lines)
            except ValueError as error:
                raise BadBackup(
                    f"The jobs of the backup can't be read ({error}); take another one."
                ) from None


def _target(settings: Settings, name: str) -> Path:
    """Where a file of the list belongs; nothing outside the data folder and the publish area is written."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise BadBackup(f"The backup lists a file {name!r} outside the data folder; take another one.")
    if path.parts[0] == "published":
        return settings.published_folder.joinpath(*path.parts[1:])
    return settings.data.joinpath(*path.parts)


def _bring(archive: Source, path: Path, file: dict[str, Any]) -> bool:
    """Write one file with the content that the list says; False when it is there already."""
    wanted = str(file["sha256"]), int(file["bytes"])
    if path.is_file() and (sha256(path), path.stat().st_size) == wanted:
        return False

    def write(temporary: Path) -> None:
        with archive.open(wanted[0]) as source, temporary.open("wb") as target:
            if copied(source, target) != wanted:
                raise BadBackup(
                    f"The file {wanted[0]} of the backup ({file['path']}) is damaged; take another backup."
                )

    write_durably(path, write)
    return True


def _kept(content: dict[str, Any], copied_sizes: Sequence[int]) -> Kept:
    files = content["files"]
    return Kept(
        files=len(files),
        bytes=sum(int(file["bytes"]) for file in files),
        copied_files=len(copied_sizes),
        copied_bytes=sum(copied_sizes),
        ledger_rows=int(content["ledger_rows"]),
        jobs=int(content["jobs"]),
        created_at=str(content["created_at"]),
    )
