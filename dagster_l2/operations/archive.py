"""Where a backup lies: files by the hash of their content, in a folder or a tar file, and a list of them.

The list is written last and makes the backup count. What belongs in a backup is for ``backups`` to say.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from dagster_l2.base.errors import L2Error
from dagster_l2.base.files import fsync_file, step, write_durably, write_json

LIST_FILE = "backup.json"
_FILES = "files"
_CHUNK = 1 << 20


class BadBackup(L2Error):
    """What lies there is no whole backup; the message says what is wrong with it."""


class Archive(Protocol):
    """Where a backup is written to."""

    def holds(self, digest: str, size: int) -> bool:
        """Whether a file of this content is there already."""

    def put(self, source: Path) -> tuple[str, int]:
        """Take a file in; the SHA-256 and the size, in bytes, of what was read."""

    def close_with(self, content: dict[str, Any]) -> None:
        """Write the list, so that the backup counts."""


class Source(Protocol):
    """Where a backup is read from."""

    @property
    def content(self) -> dict[str, Any]:
        """The list."""

    def open(self, digest: str) -> BinaryIO:
        """The file of this content; raises `BadBackup` when it lacks."""


def copied(source: BinaryIO, target: BinaryIO) -> tuple[str, int]:
    """Copy a stream; the SHA-256 and the number of bytes that were read."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(_CHUNK):
        digest.update(chunk)
        target.write(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


class FolderArchive:
    """A folder, which is brought up to date: what it holds already is not copied again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        is_ours = (folder / LIST_FILE).exists() or (folder / _FILES).exists()
        if folder.is_dir() and any(folder.iterdir()) and not is_ours:
            raise BadBackup(f"{folder} holds something that is no backup; name an empty folder or a new one.")
        (folder / _FILES).mkdir(parents=True, exist_ok=True)

    def holds(self, digest: str, size: int) -> bool:
        """See `Archive`."""
        path = self._path(digest)
        return path.is_file() and path.stat().st_size == size

    def put(self, source: Path) -> tuple[str, int]:
        """See `Archive`."""
        # Its name is its hash, which is known when it has been read.
        arriving = self._folder / _FILES / f".arriving-{os.getpid()}.tmp"
        try:
            with source.open("rb") as file, arriving.open("wb") as target:
                digest, size = copied(file, target)
            path = self._path(digest)
            path.parent.mkdir(exist_ok=True)
            step(f"keep {digest}")
            fsync_file(arriving)
            arriving.replace(path)
        finally:
            arriving.unlink(missing_ok=True)
        return digest, size

    def close_with(self, content: dict[str, Any]) -> None:
        """See `Archive`; what an earlier backup held and this one does not is removed afterwards."""
        write_json(self._folder / LIST_FILE, content)
        wanted = {file["sha256"] for file in content["files"]}
        for path in (self._folder / _FILES).rglob("*"):
            if path.is_file() and path.name not in wanted:
                path.unlink()

    def _path(self, digest: str) -> Path:
        return self._folder / _FILES / digest[:2] / digest


class _TarArchive:
    """One tar file, uncompressed since parquet is compressed already."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self._there: set[str] = set()

    def holds(self, digest: str, size: int) -> bool:  # noqa: ARG002
        """See `Archive`."""
        return digest in self._there

    def put(self, source: Path) -> tuple[str, int]:
        """See `Archive`."""
        # The size stands before the content: a copy does not grow or change meanwhile.
        with tempfile.TemporaryFile() as copy, source.open("rb") as file:
            digest, size = copied(file, copy)
            if digest not in self._there:
                copy.seek(0)
                self._add(f"{_FILES}/{digest[:2]}/{digest}", size, copy)
                self._there.add(digest)
        return digest, size

    def close_with(self, content: dict[str, Any]) -> None:
        """See `Archive`."""
        text = json.dumps(content, indent=2).encode()
        self._add(LIST_FILE, len(text), io.BytesIO(text))

    def _add(self, name: str, size: int, file: Any) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o600
        self._tar.addfile(member, file)


@contextmanager
def open_archive(target: Path) -> Iterator[Archive]:
    """Open a place to write a backup to: a file when its name ends in .tar, else a folder.

    A tar file appears under its name when it is whole.

    Raises
    ------
    BadBackup
        When something else lies there.
    """
    if target.suffix != ".tar":
        if target.is_file():
            raise BadBackup(f"{target} is a file; name a folder, or a new file that ends in .tar.")
        yield FolderArchive(target)
        return
    if target.exists():
        raise BadBackup(f"{target} is there already; name another file.")
    ready = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(ready, "w") as tar:
            yield _TarArchive(tar)
        write_durably(target, lambda temporary: _rename(ready, temporary))
    finally:
        ready.unlink(missing_ok=True)


def _rename(source: Path, target: Path) -> None:
    source.replace(target)


class _FolderSource:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.content = _read_list((folder / LIST_FILE).read_bytes(), folder)

    def open(self, digest: str) -> BinaryIO:
        try:
            return (self._folder / _FILES / digest[:2] / digest).open("rb")
        except FileNotFoundError:
            raise BadBackup(f"{self._folder} lacks the file {digest}; take another backup.") from None


class _TarSource:
    def __init__(self, path: Path, tar: tarfile.TarFile) -> None:
        self._path, self._tar = path, tar
        listed = tar.extractfile(LIST_FILE)
        self.content = _read_list(listed.read() if listed else b"", path)

    def open(self, digest: str) -> BinaryIO:
        try:
            file = self._tar.extractfile(f"{_FILES}/{digest[:2]}/{digest}")
        except KeyError:
            file = None
        if file is None:
            raise BadBackup(f"{self._path} lacks the file {digest}; take another backup.")
        return file  # type: ignore[return-value]  # it reads as a binary file does


@contextmanager
def open_source(place: Path) -> Iterator[Source]:
    """Open a backup for reading.

    Raises
    ------
    BadBackup
        When none lies there, or it was never finished.
    """
    try:
        if place.is_dir():
            yield _FolderSource(place)
            return
        with tarfile.open(place, "r:") as tar:
            yield _TarSource(place, tar)
    except (FileNotFoundError, KeyError):
        raise BadBackup(
            f"{place} holds no finished backup: there is no {LIST_FILE}; take another one."
        ) from None
    except tarfile.TarError as error:
        raise BadBackup(f"{place} is no whole tar file ({error}); take another backup.") from None


def _read_list(text: bytes, place: Path) -> dict[str, Any]:
    try:
        content = json.loads(text)
        if not isinstance(content, dict) or not isinstance(content["files"], list):
            raise ValueError
        for file in content["files"]:
            str(file["path"]), str(file["sha256"]), int(file["bytes"])
    except (ValueError, KeyError, TypeError):
        raise BadBackup(f"The {LIST_FILE} of {place} can't be read; take another backup.") from None
    return content
