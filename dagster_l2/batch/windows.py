"""Windows of time and how a span is cut into them. Nothing here fetches or stores."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

DAY = timedelta(days=1)
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """The half-open span ``[start, end)`` of whole UTC days."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        return f"{self.start:%Y-%m-%d}..{self.end - DAY:%Y-%m-%d}"

    @property
    def part(self) -> str:
        """The window as a part of a file name."""
        return f"{self.start:%Y%m%d}-{self.end:%Y%m%d}"


def plan_windows(
    first: datetime, last: datetime, count: Callable[[Window], int], *, max_records: int
) -> Iterator[Window]:
    """Cut the days from ``first`` to ``last`` into windows that hold at most ``max_records`` each.

    Blocks of a power of two of days, counted from a fixed day, are halved until they are small enough or
    one day long. So an empty decade costs one question, and the same records give the same windows in
    every sweep.

    Parameters
    ----------
    first, last
        Moments inside the first and the last day, with zone.
    count
        Says how many records a window holds.
    max_records
        The size above which a window is halved.
    """
    low = (first - _EPOCH) // DAY
    high = (last - _EPOCH) // DAY + 1
    yield from _halve(low, high, count, max_records)


def _halve(low: int, high: int, count: Callable[[Window], int], max_records: int) -> Iterator[Window]:
    size = 1
    while low // size != (high - 1) // size:
        size *= 2
    start = (low // size) * size
    yield from _block(start, size, low, high, count, max_records)


def _block(
    start: int,
    size: int,
    low: int,
    high: int,
    count: Callable[[Window], int],
    max_records: int,
    records: int | None = None,
) -> Iterator[Window]:
    if start + size <= low or start >= high:
        return
    window = _days(start, size)
    records = count(window) if records is None else records
    if records == 0:
        return
    if records <= max_records or size == 1:
        yield window
        return
    half = size // 2
    left = count(_days(start, half)) if start + half > low else None
    yield from _block(start, half, low, high, count, max_records, left)
    # What is left over is the other half's, and saves a question. But a block is passed over only where the
    # source itself counts none in it: bounds may count twice what lies on them, and records come and go.
    rest = records - left if left is not None and records > left else None
    yield from _block(start + half, half, low, high, count, max_records, rest)


def _days(start: int, size: int) -> Window:
    return Window(_EPOCH + start * DAY, _EPOCH + (start + size) * DAY)
