"""What a source must say so that the batch engine can download it, and the classes a failure can have.

Only the contract: what is fetched is in ``sources``, how a job runs over it elsewhere in this room.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

import polars as pl

from dagster_l2.batch.windows import Window


class FailureClass(enum.StrEnum):
    """What to do with an item that failed.

    ``gone``: it does not exist any more; noted in a list of its own and never asked for again.
    ``passing``: it may work later; tried again within a budget of time.
    ``permanent``: it will not work as it is; kept with its reason until a person retries it.
    """

    GONE = "gone"
    PASSING = "passing"
    PERMANENT = "permanent"


@dataclass(frozen=True, slots=True, order=True)
class Chunk:
    """One request's share of a window: the half-open span ``[start, end)``, both in UTC."""

    start: datetime
    end: datetime

    @property
    def chunk_id(self) -> str:
        """The span as a part of a file name."""
        return f"{self.start:%Y%m%dT%H%M%S}-{self.end:%Y%m%dT%H%M%S}"


@dataclass(frozen=True)
class FetchedChunk:
    """What a chunk held: typed records, and (reason, raw JSON) of those that could not be read.

    ``received`` counts what the server sent inside the chunk, usable or not, and ``duplicates`` those of them
    that the source left out for a newer one. An empty frame with ``received == 0`` is a positive answer: the
    server said that there is nothing. ``notes`` are what the source wants kept with the results of the task,
    as JSON.
    """

    frame: pl.DataFrame
    received: int
    expected: int | None = None
    rejected: Sequence[tuple[str, str]] = field(default_factory=tuple)
    bytes: int = 0
    duplicates: int = 0
    notes: Mapping[str, Any] | None = None


class Source(Protocol):
    """Something that can be downloaded in windows of time.

    Every exception that ``fetch`` raises for a reason it knows is an `dagster_l2.base.errors.L2Error` with an
    attribute ``failure_class`` (`FailureClass`); anything else is a defect and fails the batch as permanent.
    One whose ``stops_job`` is true, such as a refused token, fails no item: the job stops and can be resumed.
    """

    name: str
    schema_version: int
    schema: Mapping[str, pl.DataType]
    key: tuple[str, ...]
    newest_by: str
    sort_by: tuple[str, ...]
    query: Mapping[str, Any]

    def can_change(self, window: Window, now: datetime) -> bool:
        """Whether the records of a finished window can still become others."""

    def chunks(self, window: Window) -> list[Chunk]:
        """The requests that cover a window without holes and without overlaps, in order."""

    def expected_records(self, window: Window) -> int | None:
        """How many records a whole window should hold, None when nobody knows."""

    def fetch(self, chunk: Chunk) -> FetchedChunk:
        """The records of one chunk, all pages; called in threads."""


class Pace(Protocol):
    """The permission to send requests, shared by all who talk to one server."""

    def acquire(self) -> float:
        """Wait until one request may be sent; gives the moment of the grant (its clock's seconds)."""

    def succeeded(self, granted_at: float, headers: Mapping[str, str]) -> None:
        """Tell that the request granted then was answered."""

    def congested(self, granted_at: float, headers: Mapping[str, str]) -> None:
        """Tell that the request granted then was turned down for load (429, 503); headers may say so, too."""
