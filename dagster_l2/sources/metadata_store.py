"""The metadata store as a source: the whole of it in windows of ``createDate``, checked by its own counts.

It fetches and parses. Which of the records are known already is said by ``findings``, what they decide by the
dbt project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from dagster_l2.batch import Chunk, FetchedChunk, Window, plan_windows
from dagster_l2.lake import SCAN_COLUMNS
from dagster_l2.store import (
    DATASETS,
    Record,
    RecordType,
    Rejected,
    StoreAnswerInvalid,
    StoreClient,
    StoreKind,
    content_hashes,
    parse_records,
)

SOURCE = "metadata_store"

_MICROSECOND = timedelta(microseconds=1)
_FIRST_LIGHT = datetime(2013, 1, 1, tzinfo=UTC)
_PUBLIC_PAGE = 300
_LEFTOVER_PAGE = 1000


class CountMismatch(StoreAnswerInvalid):
    """The store sent another number of records than it counts; both are kept for the log of attempts."""

    def __init__(self, message: str, *, records: int, expected_records: int) -> None:
        super().__init__(message)
        self.records, self.expected_records = records, expected_records


@dataclass(frozen=True)
class Batch:
    """The records of one window: parsed ones with their hashes, and the ones that could not be parsed.

    ``records`` were received, usable or not; where two share an id, only one of them is in ``frame``.
    """

    frame: pl.DataFrame
    hashes: pl.Series
    rejected: list[Rejected] = field(default_factory=list)
    records: int = 0
    expected_records: int = 0


def parse_batch(record_type: RecordType, raw: Sequence[Any]) -> Batch:
    """Parse raw records and hash their content."""
    frame, rejected = parse_records(record_type, raw)
    return Batch(frame, content_hashes(frame), rejected, len(raw), len(raw))


class MetadataStore:
    """Plan and fetch the windows of one sweep; what it fetches holds only the records that differ.

    Parameters
    ----------
    client
        The store.
    window_records
        A window with more records than this is halved, down to one day.
    query
        How the store is named in the log of attempts.
    differs
        Says of keys and content hashes which are not known yet; called in threads. None: none is known.
    stamp
        The moment of the scan (UTC without zone) and its job, which the rows bear; called in threads. So
        what a task hands over are rows of bronze already.
    """

    name = SOURCE
    schema_version = 2
    schema: Mapping[str, pl.DataType] = {**DATASETS.schema, **SCAN_COLUMNS}
    key: tuple[str, ...] = ("create_date", "dataset_id")
    newest_by = "update_date"
    sort_by: tuple[str, ...] = ("create_date", "dataset_id")

    def __init__(
        self,
        client: StoreClient,
        *,
        window_records: int = 3000,
        query: Mapping[str, Any] | None = None,
        differs: Callable[[pl.Series, pl.Series], pl.Series] | None = None,
        stamp: Callable[[], tuple[datetime | None, str | None]] = lambda: (None, None),
    ) -> None:
        self._client = client
        self._window_records = window_records
        self._differs = differs
        self._stamp = stamp
        self.query: Mapping[str, Any] = dict(query or {})
        self.total = 0

    def can_change(self, window: Window, now: datetime) -> bool:  # noqa: ARG002
        """Always: a record can change long after it was created."""
        return True

    def chunks(self, window: Window) -> list[Chunk]:
        """The window itself; it is as large as one request may be."""
        return [Chunk(window.start, window.end)]

    def expected_records(self, window: Window) -> None:  # noqa: ARG002
        """Unknown beforehand: it is counted with each fetch."""
        return

    def fetch(self, chunk: Chunk) -> FetchedChunk:
        """The records of a window that are new or changed; the others are in the notes by their ids.

        Raises
        ------
        StoreError
            See `read`.
        """
        batch = self.read(Window(chunk.start, chunk.end))
        scanned_at, job_id = self._stamp()
        stamps = pl.lit(scanned_at).alias("scanned_at"), pl.lit(job_id).alias("job_id")
        frame = batch.frame.with_columns(*stamps, batch.hashes)
        ids = frame[DATASETS.key_column]
        fresh = frame if self._differs is None else frame.filter(mask := self._differs(ids, batch.hashes))
        return FetchedChunk(
            frame=fresh,
            received=batch.records,
            expected=batch.expected_records,
            rejected=[(bad.reason, bad.raw_json) for bad in batch.rejected],
            notes={
                "received": batch.records,
                "unchanged": [] if self._differs is None else ids.filter(~mask).to_list(),
                "rejected": [[bad.record_id, bad.reason, bad.raw_json] for bad in batch.rejected],
            },
        )

    def plan(self, now: datetime) -> list[Window]:
        """The windows of a whole sweep, oldest first.

        The total is counted before the span is known, so that a record which arrives in between lies
        inside the span and is never counted as one that no window holds.
        """
        self.total = self._client.dataset_count()
        if self.total == 0:
            return []
        first = self._edge("createDate") or _FIRST_LIGHT
        last = self._edge("-createDate") or now
        windows = plan_windows(first, max(first, last), self._count, max_records=self._window_records)
        return list(windows)

    def read(self, window: Window) -> Batch:
        """The records created inside ``window``, as many as the store counts.

        Raises
        ------
        CountMismatch
            When the number stays another one; a record that arrives meanwhile is no mismatch.
        """
        filters = _around(window)
        for _ in range(3):
            raw, counted = self._counted(filters)
            if len(raw) == counted or len(raw) == self._client.dataset_count(filters):
                return _inside(window, raw)
        raise CountMismatch(
            f"The store counts {counted} records created in {window} and sends {len(raw)};"
            " the window is read again by the next scan.",
            records=len(raw),
            expected_records=counted,
        )

    def since(self, moment: datetime) -> list[Batch]:
        """The records created since a moment, and those updated since then; many are in both.

        A record that changed without a new ``updateDate`` is in neither.
        """
        bound = moment - _MICROSECOND
        found = (self._pages({name: bound}) for name in ("createDateMin", "updateDateMin"))
        return [parse_batch(DATASETS, raw) for raw in found]

    def leftovers(self) -> list[Rejected]:
        """The records that no window can hold, because their ``createDate`` is no moment.

        It reads the whole store page by page, so it is asked only when the windows hold fewer records than
        the store counts.
        """
        out: list[Rejected] = []
        page = 0
        while True:
            page += 1
            raw = self._client.datasets(page_size=_LEFTOVER_PAGE, page_number=page, sort_column="datasetId")
            out += [bad for bad in parse_records(DATASETS, raw)[1] if "createDate" in bad.reason]
            if len(raw) < _LEFTOVER_PAGE:
                return out

    def _edge(self, sort_column: str) -> datetime | None:
        if self._client.kind is StoreKind.PUBLIC:
            return None
        raw = self._client.datasets(page_size=1, sort_column=sort_column)
        frame, _ = parse_records(DATASETS, raw)
        return None if frame.is_empty() else frame["create_date"][0].replace(tzinfo=UTC)

    def _count(self, window: Window) -> int:
        return self._client.dataset_count(_around(window))

    def _counted(self, filters: dict[str, Any]) -> tuple[Sequence[Record], int]:
        if self._client.kind is StoreKind.GRAPHQL:
            return self._client.counted_datasets(filters)
        counted = self._client.dataset_count(filters)
        return self._pages(filters), counted

    def _pages(self, filters: dict[str, Any]) -> Sequence[Record]:
        if self._client.kind is StoreKind.GRAPHQL:
            return self._client.datasets(filters)
        out: list[Record] = []
        page = 0
        while True:
            page += 1
            raw = self._client.datasets(filters, page_size=_PUBLIC_PAGE, page_number=page)
            out += raw
            if len(raw) < _PUBLIC_PAGE:
                return _once_each(out)


def _around(window: Window) -> dict[str, Any]:
    """Bounds that hold all of the window whether the store includes its Min and Max or not."""
    return {"createDateMin": window.start - _MICROSECOND, "createDateMax": window.end}


def _once_each(raw: list[Record]) -> list[Record]:
    """Each record once: unstable ties between pages send some twice (and so others not at all)."""
    seen: dict[object, Record] = {}
    for i, record in enumerate(raw):
        key = (record.get(DATASETS.key), record.get("createDate")) if isinstance(record, dict) else None
        seen[str(key) if key and key[0] else i] = record
    return list(seen.values())


def _inside(window: Window, raw: Sequence[Record]) -> Batch:
    frame, rejected = parse_records(DATASETS, raw)
    start, end = (moment.replace(tzinfo=None) for moment in (window.start, window.end))
    is_inside = (frame["create_date"] >= start) & (frame["create_date"] < end)
    # What lies on a bound is rare, and a filter copies every column.
    kept = frame if is_inside.all() else frame.filter(is_inside)
    received = len(raw) - (len(frame) - len(kept))
    return Batch(kept, content_hashes(kept), rejected, received, received)
