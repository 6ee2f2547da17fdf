"""Lines of JSON in a chain of hashes: writing them, and finding the first line that is not as it was written.

The format is described in ``docs/ledger-dump.md``. What the lines hold, and databases, are ``dump``'s.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dagster_l2.ledger.columns import to_json
from dagster_l2.ledger.errors import LedgerError

FORMAT = "dagster_l2 ledger"
VERSION = 1

_START = b'{"hash":"'
_HEX = 64  # characters of a SHA-256
_BODY = len(_START) + _HEX + 2  # after the hash, its quote and the comma


class BadDump(LedgerError):
    """A dump that can't be taken; the message names the line. Nothing of it is in the ledger."""


@dataclass(frozen=True, slots=True)
class Dumped:
    """What a dump holds: ``hash`` is that of its last line, so it stands for all of it."""

    revision: str
    rows: int
    hash: str


class Chain:
    """The lines of a dump, one after the other, each with the hash over all before it and itself."""

    def __init__(self, revision: str) -> None:
        self.revision = revision
        self.rows = 0
        self.hash = ""

    def first(self) -> bytes:
        """The line that says what this is."""
        return self._line({"format": FORMAT, "version": VERSION, "revision": self.revision})

    def row(self, table: str, row: Mapping[str, Any]) -> bytes:
        """The line of one row of a table."""
        self.rows += 1
        return self._line({"table": table, "row": row})

    def last(self) -> bytes:
        """The line that ends it."""
        return self._line({"end": True, "rows": self.rows})

    def dumped(self) -> Dumped:
        """What was written so far."""
        return Dumped(self.revision, self.rows, self.hash)

    def _line(self, content: Mapping[str, Any]) -> bytes:
        body = to_json(content).encode("ascii")
        self.hash = _next_hash(self.hash, body)
        return _START + self.hash.encode("ascii") + b'",' + body[1:] + b"\n"


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a dump whose hash was found right; ``body`` is the JSON of a row, None for first and last."""

    number: int
    hash: str
    body: bytes | None
    revision: str | None = None


def verified(lines: Iterable[bytes], name: str) -> Iterator[Line]:
    """The lines of a dump, each after its hash was found right.

    Whoever reads them to the end knows that all lines are there: the first, the last, as many as it says.

    Raises
    ------
    BadDump
        At the first line that was changed, moved, cut off or is not one of a dump.
    """
    before, number, rows, is_ended = "", 0, 0, False
    for number, line in enumerate(lines, 1):
        if is_ended:
            raise BadDump(f"{name} goes on after its end, at line {number}; take the file as it was written.")
        body, before = _body(line, before, number, name)
        if number == 1:
            first = content(body, number, name)
            _check_first(first, name)
            yield Line(number, before, None, str(first.get("revision")))
        elif body.startswith(b'{"end"'):
            is_ended = True
            said = content(body, number, name).get("rows")
            if said != rows:
                raise BadDump(f"Line {number} of {name} says {said} rows, but there are {rows}.")
            yield Line(number, before, None)
        else:
            rows += 1
            yield Line(number, before, body)
    if not number:
        raise BadDump(f"{name} is empty; take a file that `l2 ledger export` wrote.")
    if not is_ended:
        raise BadDump(f"{name} has no end: it was cut off after line {number}; take the whole file.")


def verify(lines: Iterable[bytes], name: str) -> Dumped:
    """Read a dump to its end; raises `BadDump` as `verified` does."""
    revision, rows, hash_ = "", 0, ""
    for line in verified(lines, name):
        revision, hash_ = line.revision or revision, line.hash
        rows += line.body is not None
    return Dumped(revision, rows, hash_)


def content(body: bytes, number: int, name: str) -> dict[str, Any]:
    """What a line says; raises `BadDump` when it is no JSON object."""
    try:
        said = json.loads(body)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise BadDump(f"Line {number} of {name} is not JSON; take the file as it was written.")
    return said


def _body(line: bytes, before: str, number: int, name: str) -> tuple[bytes, str]:
    """The JSON of a line without its hash, and the hash."""
    if not line.endswith(b"\n"):
        raise BadDump(f"{name} ends in the middle of line {number}: it was cut off; take the whole file.")
    if not line.startswith(_START) or line[_BODY - 2 : _BODY] != b'",':
        raise BadDump(f"Line {number} of {name} is not one of a ledger's dump; take the file as written.")
    body = b"{" + line[_BODY:-1]
    hash_ = _next_hash(before, body)
    if line[len(_START) : len(_START) + _HEX] != hash_.encode("ascii"):
        raise BadDump(
            f"Line {number} of {name} is not the one that was written there: it was changed, or a line before"
            " it is missing or moved; take the file as it was written."
        )
    return body, hash_


def _check_first(content: Mapping[str, Any], name: str) -> None:
    if content.get("format") != FORMAT:
        raise BadDump(f"{name} is not the dump of a ledger; take a file that `l2 ledger export` wrote.")
    if content.get("version") != VERSION:
        raise BadDump(
            f"{name} is of version {content.get('version')} of the format and this program reads {VERSION};"
            " install the version that wrote it."
        )


def _next_hash(before: str, body: bytes) -> str:
    return hashlib.sha256(before.encode("ascii") + body).hexdigest()
