"""Filters, order and pages over records, as the store's request types name them.

The names decide: ``xMin``/``xMax`` bound field ``x``, ``xs`` lists values of ``x``, a list field matches when
it shares a value. What a request looks like on the wire is in ``engine`` and ``public``.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from dagster_l2.store.server.moments import moment
from dagster_l2.store.server.records import Row
from dagster_l2.store.server.standins import StandIn

Predicate = Callable[[Row], bool]

_PAGING = ("pageSize", "pageNumber", "sortColumn")
_CREATE_DATE = "createDate"


class BadRequest(Exception):
    """A request that cannot be answered; the message says why."""


class Table:
    """Records of one type, filtered, sorted and paged.

    Parameters
    ----------
    rows
        The records, as stored.
    types
        Field name to GraphQL type, without marks of nullability: ``String``, ``DateTime``, ``[String]``, …
    stand_ins
        Values for records that have none; they count for filters and order as if stored.
    inclusive
        Whether Min and Max include their bound (the real store does not say).
    unstable
        Whether ties of the order fall differently with each request.
    """

    def __init__(
        self,
        rows: Iterable[Row],
        types: Mapping[str, str],
        stand_ins: Mapping[str, StandIn] | None = None,
        *,
        inclusive: bool = True,
        unstable: bool = False,
    ) -> None:
        self._types = types
        self._stand_ins = stand_ins or {}
        self._inclusive = inclusive
        self._unstable = unstable
        dated = [(moment(row.get(_CREATE_DATE)), row) for row in rows]
        sound = [(created, row) for created, row in dated if created is not None]
        sound.sort(key=lambda pair: pair[0])
        self._moments = [created for created, _ in sound]
        undated = [row for created, row in dated if created is None]
        self.rows = [row for _, row in sound] + undated
        """All records by ``createDate``; at the end the ones whose ``createDate`` is no moment."""

    def select(self, params: Mapping[str, Any]) -> Sequence[Row]:
        """The page of records that ``params`` asks for.

        Raises
        ------
        BadRequest
            For a filter or a sort column that does not exist here, or an impossible page.
        """
        rows = self._matching(params)
        column = params.get("sortColumn") or _CREATE_DATE
        return _page(self._sorted(rows, column), params)

    def count(self, params: Mapping[str, Any]) -> int:
        """How many records match; paging does not count."""
        return len(self._matching(params))

    def _matching(self, params: Mapping[str, Any]) -> Sequence[Row]:
        asked = {name: value for name, value in params.items() if name not in _PAGING and _is_filter(value)}
        lowest, highest = asked.pop("createDateMin", None), asked.pop("createDateMax", None)
        rows: Sequence[Row] = self.rows
        if lowest is not None or highest is not None:
            rows = rows[self._between(lowest, highest)]
        for name, value in asked.items():
            matches = self._predicate(name, value)
            rows = [row for row in rows if matches(row)]
        return rows

    def _between(self, lowest: datetime | None, highest: datetime | None) -> slice:
        left, right = (bisect_left, bisect_right) if self._inclusive else (bisect_right, bisect_left)
        start = 0 if lowest is None else left(self._moments, lowest)
        stop = len(self._moments) if highest is None else right(self._moments, highest)
        return slice(start, max(start, stop))

    def _value(self, name: str) -> Callable[[Row], Any]:
        stand_in = self._stand_ins.get(name)
        if stand_in is None:
            return lambda row: row.get(name)
        return lambda row: stored if (stored := row.get(name)) is not None else stand_in(row)

    def _predicate(self, name: str, asked: Any) -> Predicate:
        if name in _SPECIAL:
            return _SPECIAL[name](asked)
        if name in self._types:
            value = self._value(name)
            if self._types[name].startswith("["):
                return lambda row: _shares(value(row), asked)
            return lambda row: bool(value(row) == asked)
        if name[-3:] in ("Min", "Max") and name[:-3] in self._types:
            return self._bound(name[:-3], name[-3:], asked)
        if name.endswith("s") and name[:-1] in self._types:
            value, wanted = self._value(name[:-1]), frozenset(asked)
            return lambda row: isinstance(found := value(row), str) and found in wanted
        raise BadRequest(f"The local store does not hold what the filter {name} asks about.")

    def _bound(self, field: str, side: str, bound: Any) -> Predicate:
        value = self._value(field)
        read: Callable[[Any], Any] = moment if self._types[field] == "DateTime" else _number
        inclusive, is_lowest = self._inclusive, side == "Min"

        def within(row: Row) -> bool:
            found = read(value(row))
            if found is None:
                return False
            if found == bound:
                return inclusive
            return bool((found > bound) is is_lowest)

        return within

    def _sorted(self, rows: Sequence[Row], column: str) -> Sequence[Row]:
        descending, name = column.startswith("-"), column.removeprefix("-")
        if name not in self._types:
            raise BadRequest(f'column "{name}" does not exist')
        if name == _CREATE_DATE and not descending and not self._unstable:
            return rows
        value = self._value(name)
        read: Callable[[Any], Any] = moment if self._types[name] == "DateTime" else _comparable
        keyed = [(read(value(row)), row) for row in rows]
        known = [pair for pair in keyed if pair[0] is not None]
        if self._unstable:
            random.shuffle(known)
        known.sort(key=lambda pair: pair[0])
        if descending:
            known.reverse()  # ties too, so that the latest version of a history comes first
        return [row for _, row in known] + [row for key, row in keyed if key is None]


def _page(rows: Sequence[Row], params: Mapping[str, Any]) -> Sequence[Row]:
    size, number = params.get("pageSize"), params.get("pageNumber")
    number = 1 if number is None else number
    if number < 1 or (size is not None and size < 1):
        raise BadRequest("pageSize and pageNumber count from 1.")
    return rows if size is None else rows[(number - 1) * size : number * size]


def _is_filter(value: Any) -> bool:
    return value is not None and value != []


def _shares(found: Any, wanted: Sequence[Any]) -> bool:
    return isinstance(found, list) and any(item in wanted for item in found)


def _number(value: Any) -> float | None:
    usable = isinstance(value, int | float) and not isinstance(value, bool) and value == value
    return value if usable else None


def _comparable(value: Any) -> tuple[int, Any] | None:
    """A key that orders anything a record may hold: numbers, then text, then the rest."""
    if value is None or value != value:
        return None
    if isinstance(value, int | float):
        return (0, value)
    return (1, value) if isinstance(value, str) else (2, repr(value))


def _wavelengths(ranges: Sequence[float]) -> Predicate:
    """Pairs of lowest and highest wavelength in nm; a record matches that overlaps one of them."""
    if len(ranges) % 2:
        raise BadRequest("wavelengthRanges takes pairs of a lowest and a highest wavelength in nm.")
    pairs = list(zip(ranges[::2], ranges[1::2], strict=True))

    def overlaps(row: Row) -> bool:
        first, last = _number(row.get("wavelengthMin")), _number(row.get("wavelengthMax"))
        if first is None or last is None:
            return False
        return any(first <= highest and last >= lowest for lowest, highest in pairs)

    return overlaps


def _fewer_than_planned(name: str) -> Callable[[bool], Predicate]:
    def make(asked: bool) -> Predicate:
        def is_fewer(row: Row) -> bool:
            planned, found = _number(row.get("plannedRecipeCount")), _number(row.get(name))
            return planned is not None and found is not None and (found < planned) is asked

        return is_fewer

    return make


# Filters whose names do not follow the rule of the others.
_SPECIAL: dict[str, Callable[[Any], Predicate]] = {
    "wavelengthRanges": _wavelengths,
    "isUnplanned": lambda asked: lambda row: (row.get("plannedRecipeCount") is None) is asked,
    "isTotalRecipeInstanceCountLessThanPlanned": _fewer_than_planned("totalRecipeInstanceCount"),
    "isCompleteRecipeInstanceCountLessThanPlanned": _fewer_than_planned("completeRecipeInstanceCount"),
}
