"""A year as a calendar of weeks, each day with a mark of how it stands: as numbers for its template.

Marks differ in shape, so that nobody needs to tell colours apart. No HTML here.
"""

from __future__ import annotations

import calendar
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta

NOT_ASKED = "not asked"

# Drawn in a cell of 10 by 10 from its upper left corner.
SHAPES = {
    "complete": "h10v10h-10z",
    "in part": "v10h10z",
    "no data": "h10v10h-10z",
    "under way": "m0 3h10v4h-10z",
    "failed": "l10 10m0 -10l-10 10",
    NOT_ASKED: "m4 4h2v2h-2z",
}
"""By how a day stands: the mark, as what follows the corner in an SVG path."""

_STEP = 13
_LEFT, _TOP = 30, 16


@dataclass(frozen=True)
class Mark:
    """All days of a year that stand alike: the word, how many, their marks in one path, one mark alone."""

    standing: str
    days: int
    path: str
    alone: str

    @property
    def kind(self) -> str:
        """The word without blanks, for a style."""
        return self.standing.replace(" ", "-")


@dataclass(frozen=True)
class Calendar:
    """A year: its marks, where the names of months and weekdays go, and the same as a table by month."""

    year: int
    width: int
    height: int
    marks: list[Mark]
    months: list[tuple[int, str]]
    weekdays: list[tuple[int, str]]
    table: list[tuple[str, list[int]]]

    @property
    def in_words(self) -> str:
        """What the drawing shows, in one line."""
        return ", ".join(f"{mark.days} days {mark.standing}" for mark in self.marks)


def calendar_of(year: int, days: Mapping[date, str]) -> Calendar:
    """The calendar of a year.

    Parameters
    ----------
    days
        How each day stands, in the words of `SHAPES`; the others were not asked for.
    """
    first = date(year, 1, 1)
    count = 366 if calendar.isleap(year) else 365
    standings = {day: days.get(day, NOT_ASKED) for day in (first + timedelta(days=n) for n in range(count))}
    marks = []
    for standing, shape in SHAPES.items():
        alike = [day for day, its in standings.items() if its == standing]
        if alike:
            path = "".join(f"M{_x(day, first)} {_TOP + day.weekday() * _STEP}{shape}" for day in alike)
            marks.append(Mark(standing, len(alike), path, f"M1 1{shape}"))
    table = []
    for month in range(1, 13):
        counts = Counter(its for day, its in standings.items() if day.month == month)
        table.append((calendar.month_name[month], [counts[mark.standing] for mark in marks]))
    return Calendar(
        year,
        _x(date(year, 12, 31), first) + _STEP,
        _TOP + 7 * _STEP,
        marks,
        [(_x(date(year, month, 1), first), calendar.month_abbr[month]) for month in range(1, 13)],
        [(_TOP + day * _STEP + 9, calendar.day_abbr[day]) for day in (0, 2, 4)],
        table,
    )


def _x(day: date, first: date) -> int:
    return _LEFT + ((day - first).days + first.weekday()) // 7 * _STEP
