"""Products fetched from where a scientist left them, into their home; a fetch that broke off goes on.

Each file is gathered under a hidden name and gets its own when it is whole and on the disk; a note beside it
says what it was gathered from. Whether the products are good is in ``verify``.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from dagster_l2.base.files import fsync_file, fsync_folder, sha256, step, write_json
from dagster_l2.base.telemetry import count
from dagster_l2.products.layout import PRODUCT_FILES, ProductsRefused, ProductsUnreachable
from dagster_l2.products.places import PIECE, Kept, NotGiven, Opened, Place
from dagster_l2.products.reading import MAGIC

_TRIES = 4
_FIRST_WAIT_S = 0.5
_GB = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file that came home: its size in bytes and its SHA-256 as it was fetched."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is fetched, and how.

    Parameters
    ----------
    most_bytes
        Of one file.
    durable_bytes
        After so many a fetch that is killed goes on.
    pause
        Waits so many seconds before another try.
    """

    most_bytes: int = 500 * _GB
    durable_bytes: int = 64 << 20
    pause: Callable[[float], None] = time.sleep


def fetch(place: Place, home: Path, limits: Limits | None = None) -> tuple[Fetched, ...]:
    """Bring the three product files into ``home``; those that are there and have not changed stay.

    Raises
    ------
    ProductsRefused
        With every file that the place does not give, or that is too large or no FITS.
    ProductsUnreachable
        When the place, or this disk, did not give in after several tries; what has come stays.
    """
    limits = limits or Limits()
    problems: list[str] = []
    fetched: list[Fetched] = []
    for name in PRODUCT_FILES:
        try:
            fetched.append(_Fetch(place, home, name, limits).run())
        except NotGiven as error:
            problems.append(f"{name} {error}")
    if problems:
        raise ProductsRefused(problems)
    return tuple(fetched)


def forget(home: Path) -> None:
    """Remove the notes and the parts of a fetch: the next one begins anew."""
    for name in PRODUCT_FILES:
        for path in (_note_of(home, name), _part_of(home, name)):
            path.unlink(missing_ok=True)


def _part_of(home: Path, name: str) -> Path:
    return home / f".{name}.part"


def _note_of(home: Path, name: str) -> Path:
    return home / f".{name}.json"


@dataclass(slots=True)
class _Note:
    """What is known of a file under way, or of one that came: ``durable`` bytes survive a power cut."""

    place: str
    tag: str | None
    size: int | None = None
    durable: int = 0
    sha256: str | None = None


class _Fetch:
    """One file on its way home."""

    def __init__(self, place: Place, home: Path, name: str, limits: Limits) -> None:
        self._place, self._name, self._limits = place, name, limits
        self._target, self._part = home / name, _part_of(home, name)
        self._note_file = _note_of(home, name)

    def run(self) -> Fetched:
        tries, furthest = 0, 0
        while True:
            try:
                return self._once()
            except ProductsUnreachable:
                here = self._part.stat().st_size if self._part.exists() else 0
                # A line that breaks again and again is well as long as each try brings a good part.
                tries = 1 if here >= furthest + PIECE else tries + 1
                furthest = max(furthest, here)
                if tries >= _TRIES:
                    raise
                self._limits.pause(_FIRST_WAIT_S * 2**tries)

    def _once(self) -> Fetched:
        note = self._noted()
        kept = Kept()
        if note is not None and note.sha256 is not None:
            kept = Kept(note.tag, note.durable, is_whole=_size_of(self._target) == note.durable)
        elif note is not None:
            kept = Kept(note.tag, min(note.durable, _size_of(self._part) or 0))
        with self._place.open(self._name, kept) as opened:
            if opened is None:
                assert note is not None
                assert note.sha256 is not None
                return Fetched(self._name, note.durable, note.sha256)
            self._check_room(opened)
            note = _Note(self._place.name, opened.tag, opened.size, opened.start)
            self._gather(opened, note)
        return self._keep(note)

    def _gather(self, opened: Opened, note: _Note) -> None:
        if opened.start == 0:
            # Of another content, perhaps: a kill must never leave its note beside a part of this one.
            self._note_file.unlink(missing_ok=True)
            self._part.unlink(missing_ok=True)
        end = opened.start
        with self._part.open("ab") as file:
            file.truncate(opened.start)
            try:
                for piece in opened.pieces:
                    if end == 0:
                        _check_start(piece, opened)
                    if end + len(piece) > self._limits.most_bytes:
                        raise NotGiven(_too_large(end + len(piece), self._limits))
                    file.write(piece)
                    end += len(piece)
                    count("received_bytes", len(piece))
                    if end - note.durable >= self._limits.durable_bytes:
                        self._make_durable(file, note, end)
            except ProductsUnreachable:
                self._make_durable(file, note, end)
                raise
        if end == 0:
            raise NotGiven("is empty")
        if opened.size is not None and end != opened.size:
            raise ProductsUnreachable(f"{self._name} ended after {end} of {opened.size} bytes.")

    def _make_durable(self, file: BinaryIO, note: _Note, end: int) -> None:
        file.flush()
        fsync_file(self._part)
        note.durable = end
        write_json(self._note_file, asdict(note))

    def _keep(self, note: _Note) -> Fetched:
        digest, size = sha256(self._part), self._part.stat().st_size
        step(f"fsync {self._name}")
        fsync_file(self._part)
        # The note of the whole file comes last: without it the file is fetched again, and nothing is wrong.
        step(f"rename {self._name}")
        self._part.replace(self._target)
        fsync_folder(self._target.parent)
        note.sha256, note.durable = digest, size
        write_json(self._note_file, asdict(note))
        return Fetched(self._name, size, digest)

    def _check_room(self, opened: Opened) -> None:
        if opened.size is None:
            return
        if opened.size > self._limits.most_bytes:
            raise NotGiven(_too_large(opened.size, self._limits))
        need, free = opened.size - opened.start, shutil.disk_usage(self._target.parent).free
        if need > free:
            raise ProductsUnreachable(
                f"{self._name} needs {need / _GB:.3g} GB and {free / _GB:.3g} GB are free; make room."
            )

    def _noted(self) -> _Note | None:
        try:
            note = _Note(**json.loads(self._note_file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None
        return note if note.place == self._place.name else None


def _check_start(piece: bytes, opened: Opened) -> None:
    """Refuse at once what is no FITS: a page that says "log in" may be anything but what was wanted."""
    if not piece.startswith(MAGIC[: len(piece)]):
        what = f", but {opened.kind.split(';')[0]}" if opened.kind and "html" in opened.kind else ""
        raise NotGiven(f"is not a FITS file{what}")


def _too_large(size: int, limits: Limits) -> str:
    return (
        f"has {size / _GB:.3g} GB, and at most {limits.most_bytes / _GB:.3g} GB are fetched;"
        " see L2_PRODUCTS_MOST_GB"
    )


def _size_of(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
