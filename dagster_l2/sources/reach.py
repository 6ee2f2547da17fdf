"""REACH as a source: a day of dosimeter observations, of one sensor or of all, from the UDL.

It says how a day is cut into chunks and what one holds. How chunks run is in ``batch``, the client in
``udl``, the columns in ``reach_records``.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import polars as pl

from dagster_l2.batch import DAY, Chunk, FetchedChunk, Window
from dagster_l2.sources.reach_records import DUPLICATE_KEY, FIELDS, SCHEMA, parse_observations, raw_json
from dagster_l2.sources.udl import Observed, Question

_LOG = logging.getLogger(__name__)

SATELLITES = 32
DOSIMETERS = 2
CADENCE_S = 5
DESCRIPTORS = ("QUICKLOOK", "PROVISIONAL")
ALL = "ALL"

_CHUNK_OF_ALL = timedelta(minutes=5)
_CHUNK_OF_ONE = timedelta(hours=6)


def chunk_length(sensor: str | None) -> timedelta:
    """The span of one request: 5 minutes of all sensors, 6 hours of one."""
    return _CHUNK_OF_ALL if sensor in (None, ALL) else _CHUNK_OF_ONE


class Archive(Protocol):
    """What observations are asked of; `dagster_l2.sources.udl.UdlClient` is one."""

    @property
    def url(self) -> str:
        """Its name, as a part of the identity of what it holds; no secrets."""

    def count(self, question: Question) -> int:
        """How many records it says it holds."""

    def observations(self, question: Question, *, is_counted: bool = False) -> Observed:
        """All records of a question."""


class Reach:
    """The observations of one sensor, or of all of them.

    Parameters
    ----------
    client
        The UDL.
    sensor
        Such as ``REACH-101``; None or ``ALL`` means all of them.
    descriptor
        ``QUICKLOOK`` or ``PROVISIONAL``.
    settled_after_days
        A day that ended longer ago does not change any more.
    satellites, cadence_s
        What a whole day is measured by: satellites, and seconds between two samples of a dosimeter.
    is_counted
        Compare every chunk with the server's own count. It doubles the requests and more; without it the
        count is asked where an answer may have been cut by a limit of the server.
    """

    name = "reach"
    schema_version = 1
    schema: Mapping[str, pl.DataType] = SCHEMA
    key: tuple[str, ...] = ("id_sensor", DUPLICATE_KEY, "ob_time")
    newest_by = "created_at"
    sort_by: tuple[str, ...] = ("ob_time", "id_sensor", DUPLICATE_KEY)

    def __init__(
        self,
        client: Archive,
        *,
        sensor: str | None = None,
        descriptor: str = "QUICKLOOK",
        source: str = "Aerospace",
        data_mode: str = "REAL",
        settled_after_days: float = 7,
        satellites: int = SATELLITES,
        cadence_s: int = CADENCE_S,
        is_counted: bool = False,
    ) -> None:
        self._client = client
        self._sensor = None if sensor in (None, ALL) else sensor
        self._descriptor = descriptor
        self._source = source
        self._data_mode = data_mode
        self._settled_after = timedelta(days=settled_after_days)
        sensors = satellites if self._sensor is None else 1
        self._records_a_day = sensors * DOSIMETERS * int(DAY.total_seconds()) // cadence_s
        self._is_counted = is_counted
        self._known_keys = set(FIELDS)
        # Part of the identity of a window; the address has no name and password in it.
        self.query: Mapping[str, Any] = {
            "url": client.url,
            "sensor": self._sensor or ALL,
            "descriptor": descriptor,
            "source": source,
            "data_mode": data_mode,
        }

    def __repr__(self) -> str:
        return f"Reach({self._sensor or ALL}, {self._descriptor}, {self._client!r})"

    def can_change(self, window: Window, now: datetime) -> bool:
        """Whether the window ends in the future, or too short a time ago."""
        return window.end > now - self._settled_after

    def chunks(self, window: Window) -> list[Chunk]:
        """The window in spans of 5 minutes (all sensors) or 6 hours (one)."""
        step = chunk_length(self._sensor)
        count = -(-(window.end - window.start) // step)
        starts = [window.start + i * step for i in range(count)]
        return [Chunk(start, min(start + step, window.end)) for start in starts]

    def expected_records(self, window: Window) -> int:
        """How many samples the dosimeters take: 1 105 920 a day in all, 34 560 of one sensor."""
        return self._records_a_day * (window.end - window.start) // DAY

    def count(self, span: Window | Chunk) -> int:
        """How many records the UDL counts in a half-open span; one or two requests."""
        inside = self._client.count(self._question(span.start, span.end))
        return inside - self._client.count(self._question(span.end, span.end)) if inside else 0

    def fetch(self, chunk: Chunk) -> FetchedChunk:
        """The records of one chunk, each once, sorted.

        Both ends belong to the span that the UDL is asked for, and a sample may fall in the last
        microsecond of a chunk. So the end itself is asked for, and what lies on it is left to the next one.

        Raises
        ------
        UdlError
            One of its subclasses, with its ``failure_class``. "Nothing there" is an answer, never an error.
        """
        observed = self._client.observations(
            self._question(chunk.start, chunk.end), is_counted=self._is_counted
        )
        self._note_unknown_keys(observed.records)
        frame, problems = parse_observations(observed.records)
        start, end = (moment.astimezone(UTC).replace(tzinfo=None) for moment in (chunk.start, chunk.end))
        # A record without a readable time is kept with its reason where the server files it.
        is_inside = frame.select((pl.col("ob_time") >= start) & (pl.col("ob_time") < end)).to_series()
        outside = int((~is_inside).sum())
        is_good = pl.Series([True]).new_from_index(0, len(frame))
        if problems:
            is_good = is_good.scatter(list(problems), False)
        inside = is_inside.fill_null(value=True)
        rejected = [(reason, raw_json(observed.records[i])) for i, reason in problems.items() if inside[i]]
        good = frame.filter(is_inside & is_good)
        newest = _newest(good, self.key, self.sort_by)
        return FetchedChunk(
            frame=newest,
            duplicates=len(good) - len(newest),
            received=len(frame) - outside,
            expected=None if observed.count is None else observed.count - outside,
            rejected=rejected,
            bytes=observed.bytes,
        )

    def _question(self, start: datetime, end: datetime) -> Question:
        return Question(
            start,
            end,
            descriptor=self._descriptor,
            sensor=self._sensor,
            source=self._source,
            data_mode=self._data_mode,
        )

    def _note_unknown_keys(self, records: list[Any]) -> None:
        found = set().union(*(record for record in records if isinstance(record, dict)))
        unknown = found - self._known_keys
        if unknown:
            self._known_keys |= unknown
            _LOG.warning("Observations have keys that no column holds: %s.", ", ".join(sorted(unknown)))


def _newest(frame: pl.DataFrame, key: tuple[str, ...], sort_by: tuple[str, ...]) -> pl.DataFrame:
    """Of records with one key the one created last; by id where even that is the same, so that it is one."""
    ordered = frame.sort([*sort_by, "created_at", "id"])
    return ordered.unique(key, keep="last", maintain_order=True)
