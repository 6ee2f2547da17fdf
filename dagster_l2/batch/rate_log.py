"""The log of granted requests that quotas are counted in: exact where it is young, coarser where it is old.

It never forgets a grant early: what is merged counts at its latest moment. No rule about rates lives here.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator

_RESOLUTION = 100
_MOST = 1000
"""More grants than this are merged where they lie closer together than that part of their age: a merged one
counts as late as its last, which holds up what may follow it a window later."""

_FAR = 10**17


class GrantLog:
    """Moments of grants (seconds, kept in whole milliseconds rounded up) in order.

    An entry is ``[moment, grants, turned down]``: a grant that the server turned down stays in the log,
    because the server may have counted it, and is told apart, because it may not have.
    """

    def __init__(self, entries: list[list[int]] | None = None) -> None:
        self._entries = entries or []

    def __len__(self) -> int:
        return sum(entry[1] for entry in self._entries)

    def add(self, at: float) -> None:
        """Note a grant."""
        moment = _ms(at)
        place = bisect.bisect_right(self._entries, [moment, math.inf, math.inf])
        self._entries.insert(place, [moment, 1, 0])

    def remove(self, at: float) -> None:
        """Take back a grant that was never used."""
        place = self._find(at)
        if place is None:
            return
        entry = self._entries[place]
        entry[1] -= 1
        entry[2] = min(entry[2], entry[1])
        if not entry[1]:
            del self._entries[place]

    def move(self, at: float, used_at: float) -> None:
        """Correct the moment of a grant to the earlier one at which it was used."""
        if _ms(used_at) < _ms(at) and self._find(at) is not None:
            self.remove(at)
            self.add(used_at)

    def turn_down(self, at: float) -> None:
        """Note that the server turned down the request of a grant."""
        place = self._find(at)
        if place is not None:
            entry = self._entries[place]
            entry[2] = min(entry[2] + 1, entry[1])

    def count(self, after: float, before: float, *, admitted: bool = False) -> int:
        """Grants in ``(after, before)``; ``admitted`` leaves out those turned down."""
        return sum(weight for _, weight in self._within(after, before, admitted=admitted))

    def ends(self, after: float, before: float) -> tuple[float, float] | None:
        """The first and the last moment of admitted grants in ``(after, before)``."""
        moments = [moment for moment, _ in self._within(after, before, admitted=True)]
        return (moments[0] / 1000, moments[-1] / 1000) if moments else None

    def last_but(self, grants: int, *, admitted: bool = False) -> float | None:
        """The moment after which fewer than ``grants`` lie; None when the log holds fewer."""
        left = grants
        for moment, count, turned_down in reversed(self._entries):
            left -= count - turned_down if admitted else count
            if left <= 0:
                return moment / 1000
        return None

    def tidy(self, now: float, keep_s: float, latest: float, most: int = _MOST) -> None:
        """Drop what is older than ``keep_s``, merge when there are many, pull back what lies past ``latest``.

        A moment past ``latest`` was written by a clock that has been set back since.
        """
        oldest, newest, present = _ms(now - keep_s), _ms(latest), _ms(now)
        merged: list[list[int]] = []
        start = 0
        is_long = len(self._entries) > most
        for moment, count, turned_down in self._entries:
            if moment < oldest:
                continue
            moment = min(moment, newest)
            if is_long and merged and (moment - start) * _RESOLUTION <= present - moment:
                merged[-1] = [moment, merged[-1][1] + count, merged[-1][2] + turned_down]
            else:
                merged.append([moment, count, turned_down])
                start = moment
        self._entries = merged

    def as_json(self) -> list[list[int]]:
        """The entries as they are kept."""
        return self._entries

    def _within(self, after: float, before: float, *, admitted: bool) -> Iterator[tuple[int, int]]:
        first, last = _ms(after), _ms(before)
        for moment, count, turned_down in self._entries:
            weight = count - turned_down if admitted else count
            if first < moment < last and weight:
                yield moment, weight

    def _find(self, at: float) -> int | None:
        """The entry that holds the grant: the first one not before it."""
        place = bisect.bisect_left(self._entries, [_ms(at)])
        return place if place < len(self._entries) else None


def _ms(at: float) -> int:
    if math.isinf(at):
        return -_FAR if at < 0 else _FAR
    return math.ceil(round(at * 1000, 3))
