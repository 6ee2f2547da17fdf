"""Files that survive a crash, and names that stay in their folder.

Durable writes (temporary file, fsync, rename, fsync of the folder) in steps that a test can watch, folder
names for ids that come from outside, and locks that a death frees. No formats and no layout: those live in
the rooms that own them.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dagster_l2.base.errors import L2Error

_TEMPORARY = re.compile(r"\.([0-9a-f]{8})-(\d+)-\d+\.tmp\Z")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


class AlreadyRunning(L2Error):
    """Another process holds the lock; the message says who and since when."""

    exit_code = 3


_watch: Callable[[str], None] | None = None


def watch_steps(watch: Callable[[str], None] | None) -> None:
    """Show ``watch`` each durable step just before it is taken, in this process; None ends that.

    What it raises is what the step fails with. So a test finds every step that the code takes, and can
    end the process, or refuse the disk, at each of them.
    """
    global _watch
    _watch = watch


def step(name: str) -> None:
    """Say that a durable step comes next: a write, an fsync, a rename, a row of the state database."""
    if _watch is not None:
        _watch(name)


def fsync_folder(folder: Path) -> None:
    """Make a rename inside ``folder`` durable."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def fsync_file(path: Path) -> None:
    """Make the content of ``path`` durable."""
    fd = os.open(path, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_durably(path: Path, write: Callable[[Path], None], *, is_last: bool = True) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place.

    After a crash ``path`` holds the old content or the new one, never a part of it. The temporary
    file is removed when ``write`` fails. Of many files in one folder only the last one needs to make
    the renames durable.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}{temporary_suffix()}")
    try:
        step(f"write {path.name}")
        write(temporary)
        step(f"fsync {path.name}")
        fsync_file(temporary)
        step(f"rename {path.name}")
        temporary.replace(path)
        if is_last:
            step(f"fsync the folder of {path.name}")
            fsync_folder(path.parent)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a write and an fsync know only a number
        raise


@functools.cache
def this_place() -> str:
    """Names where this process runs, so that its number says whether it still does.

    Two containers may bear one host name; their processes are told apart by the kernel's own numbers.
    """
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        space, boot = "", ""
    return f"{socket.gethostname()}/{boot}/{space}"


def temporary_suffix() -> str:
    """How the name of a temporary file or folder ends: it says whose it is, for `remove_leftovers`."""
    return f".{_place_digest()}-{os.getpid()}-{threading.get_ident()}.tmp"


@functools.cache
def _place_digest() -> str:
    return hashlib.sha256(this_place().encode()).hexdigest()[:8]


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files and folders in a folder whose process was killed.

    Those of the living stay, and so do those of other machines, of which that can't be known.
    """
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY.search(path.name)
        if match is None or match[1] != _place_digest() or _is_alive(int(match[2])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it is another user's
    return True


def write_json(path: Path, content: Any, *, indent: int | None = 2, is_last: bool = True) -> None:
    """Write ``content`` as readable JSON, durably; see `write_durably`."""
    text = json.dumps(content, indent=indent, ensure_ascii=False, default=str) + "\n"
    write_durably(path, lambda temporary: _write_text(temporary, text), is_last=is_last)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def safe_name(identifier: str) -> str:
    """A folder or file name for an id from outside.

    An ordinary id (letters, digits, ``.``, ``_``, ``-``; at most 100 characters) is its own name.
    Any other keeps what is ordinary in it and gets a hash, so that two ids never share a name and none
    leaves its folder.
    """
    if _PLAIN_NAME.match(identifier):
        return identifier
    digest = hashlib.sha256(identifier.encode("utf-8", "surrogatepass")).hexdigest()[:16]
    kept = re.sub(r"[^A-Za-z0-9_-]+", "_", identifier)[:60].strip("_")
    return f"{kept or 'id'}~{digest}"


@contextmanager
def only_one(lock_file: Path, what: str, *, wait_s: float = 0.0) -> Iterator[None]:
    """Hold an operating-system lock for the time of a ``with`` block.

    Parameters
    ----------
    lock_file
        The file that is locked; who holds it is written beside it.
    what
        Names the work in the message.
    wait_s
        Seconds to wait for another holder to end before giving up.

    Raises
    ------
    AlreadyRunning
        When another process holds it. The lock is freed by the system when its holder dies.
    """
    lock_file.parent.mkdir(parents=True, exist_ok=True)
    holder = lock_file.with_suffix(".json")
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=wait_s)
    except Timeout:
        raise AlreadyRunning(_who_holds(holder, what)) from None
    try:
        started = datetime.now(UTC).isoformat(timespec="seconds")
        holder.write_text(json.dumps({"pid": os.getpid(), "since": started}), encoding="utf-8")
        yield
    finally:
        lock.release()


def _who_holds(holder: Path, what: str) -> str:
    try:
        info = json.loads(holder.read_text(encoding="utf-8"))
        return (
            f"{what} is already running (process {info['pid']}, since {info['since']}); wait for it to end."
        )
    except (OSError, ValueError, KeyError):
        return f"{what} is already running in another process; wait for it to end."
