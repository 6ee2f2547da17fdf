"""What the service is handed from outside: readers, checks, limits. Nothing is done here."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, Protocol

from dagster_l2.ledger import Ledger, Present

Row = dict[str, Any]


class Listing(Protocol):
    """Published documents with the tag of all together, and what to ask with next."""

    @property
    def documents(self) -> list[Row]:
        """The documents, oldest change first."""

    @property
    def etag(self) -> str:
        """Of all of them together."""

    @property
    def next_since(self) -> str | None:
        """What to ask with the next time."""


class Scanned(Protocol):
    """What scans brought and where they have looked, as of the last pass; all raise before the first."""

    def sources(self) -> list[Row]:
        """The sources with windows: the years they lie in, and how many."""

    def standing_by_day(self, source: str, year: int) -> dict[date, str]:
        """How each covered day of a year stands."""

    def windows(self, source: str, offset: int, limit: int) -> tuple[list[Row], int]:
        """The windows of a source, trouble first, and how many there are."""

    def scans(self, offset: int, limit: int) -> tuple[list[Row], int]:
        """The scans, newest first, and how many there are."""

    def changes_by_field(self) -> list[Row]:
        """How often each field has changed."""

    def rejected(self, offset: int, limit: int) -> tuple[list[Row], int]:
        """Records that could not be read, newest first, and how many there are."""


class Backend(Protocol):
    """Where the service reads, and what it asks before it orders; for many threads at once."""

    @property
    def ledger(self) -> Ledger:
        """The ledger."""

    @property
    def scanned(self) -> Scanned:
        """What scans brought."""

    def queue(self) -> list[Row]:
        """The OPs that wait, best first; the rows are shared."""

    def programs(self) -> list[Row]:
        """Every OP by id; the rows are shared."""

    def program(self, op_id: str) -> Row:
        """Everything about an OP; raises `UnknownOp`."""

    def picture(self, op_id: str) -> Path | None:
        """The picture of an OP's level-1 frames, a PNG file; None where there is none."""

    def quicklook(self, inversion_id: str) -> Path | None:
        """The picture of what an inversion found, a PNG file; None where there is none."""

    def inversion(self, inversion_id: str) -> Row | None:
        """One inversion."""

    def inversions(self, offset: int, limit: int) -> tuple[list[Row], int]:
        """Inversions as of the last pass, newest claim first, and how many there are; none before it."""

    def documents(self, since: str | None) -> Listing:
        """The documents of inverted OPs; raises ValueError when ``since`` is no moment."""

    def document(self, op_id: str) -> Row | None:
        """The document of one OP."""

    def metrics(self) -> bytes:
        """Prometheus text."""

    def check_writable(self) -> None:
        """Raise where nothing may be claimed or published."""

    def check_ready(self, products: str, commit: str) -> str:
        """The place of the products; raises when they can't be handed over."""

    def approve(self, ledger: Ledger, op_id: str, actor: str) -> Present:
        """Approve the publishing of an OP."""


@dataclass(frozen=True)
class Limits:
    """What one client may ask.

    Parameters
    ----------
    per_second
        Requests of one token, on the average; None: as many as it likes.
    burst
        Requests of one token at once.
    body_bytes
        The largest body.
    failures_per_minute
        Wrong tokens of one address.
    """

    per_second: float | None = 50.0
    burst: int = 200
    body_bytes: int = 64 * 1024
    failures_per_minute: int = 60
