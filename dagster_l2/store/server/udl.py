"""The UDL's space-environment observations over HTTP: parameters, token, pages and count.

Which observations there are is said by what it is given (``reach_generate``); what a fault does to an
answer is in ``answers``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from dagster_l2.store.server.answers import after, bent, instead, is_authorized, json_answer
from dagster_l2.store.server.faults import Faults, Rule
from dagster_l2.store.server.moments import moment
from dagster_l2.store.server.search import BadRequest

_PATH = "/udl/spaceenvobservation"
_EXACT = {"idSensor": "sensor", "source": "source", "dataMode": "data_mode", "descriptor": "descriptor"}
_OTHERS = frozenset({"obTime", "sort", "maxResults", "firstResult"})


@dataclass(frozen=True, slots=True)
class Ask:
    """What observations are asked for: both ends of the span belong to it, None means any."""

    start: datetime
    end: datetime
    sensor: str | None = None
    source: str | None = None
    data_mode: str | None = None
    descriptor: str | None = None


class Observations(Protocol):
    """A stock of observations."""

    @property
    def is_strict_json(self) -> bool:
        """Whether they hold nothing that JSON forbids, such as NaN."""

    def count(self, ask: Ask) -> int:
        """How many there are."""

    def page(self, ask: Ask, first: int, most: int) -> list[Any]:
        """At most ``most`` of them by ``obTime``, from number ``first`` on."""


class HeldObservations:
    """Observations given one by one, whatever they hold; more may be added while it serves.

    Parameters
    ----------
    rows
        The moment that each is filed under (UTC), and the record itself.
    """

    is_strict_json = False

    def __init__(self, rows: Iterable[tuple[datetime, Any]] = ()) -> None:
        self._rows: list[tuple[datetime, Any]] = []
        self.add(rows)

    def add(self, rows: Iterable[tuple[datetime, Any]]) -> None:
        """Hold these, too."""
        fresh = [(_naive(filed), row) for filed, row in rows]
        self._rows = sorted([*self._rows, *fresh], key=lambda pair: pair[0])

    def count(self, ask: Ask) -> int:
        """How many there are."""
        return len(self._found(ask))

    def page(self, ask: Ask, first: int, most: int) -> list[Any]:
        """At most ``most`` of them by ``obTime``, from number ``first`` on."""
        return self._found(ask)[first : first + most]

    def _found(self, ask: Ask) -> list[Any]:
        rows = self._rows
        low = bisect_left(rows, ask.start, key=lambda pair: pair[0])
        high = bisect_right(rows, ask.end, key=lambda pair: pair[0])
        wanted = {name: value for name, part in _EXACT.items() if (value := getattr(ask, part)) is not None}
        return [row for _, row in rows[low:high] if _matches(row, wanted)]


class Udl:
    """The routes of the UDL.

    Parameters
    ----------
    observations
        What is served.
    token
        What follows ``Basic`` in the ``Authorization`` header; None leaves it open.
    faults
        The faults in force.
    note
        Told path and query of every request that came.
    max_page
        How many observations one answer holds at most, whatever ``maxResults`` says.
    """

    def __init__(
        self,
        observations: Observations,
        token: str | None,
        faults: Faults,
        note: Callable[..., None],
        *,
        max_page: int,
    ) -> None:
        self._observations = observations
        self._wanted = None if token is None else f"Basic {token}"
        self._faults = faults
        self._note = note
        self._max_page = max_page

    def routes(self) -> list[Route]:
        """What is to be mounted."""
        return [
            Route(_PATH, self._list, methods=["GET"]),
            Route(f"{_PATH}/count", self._count, methods=["GET"]),
        ]

    async def _list(self, request: Request) -> Response:
        def work(asked: Mapping[str, str], struck: list[Rule]) -> Response:
            ask = _ask(asked)
            if asked.get("sort", "obTime") != "obTime":
                raise BadRequest("The local store sorts observations by obTime only.")
            first = _number(asked, "firstResult", 0)
            most = min(_number(asked, "maxResults", self._max_page), self._max_page)
            found = [] if bent(struck)["is_empty"] else self._observations.page(ask, first, most)
            return json_answer(found, strict=self._observations.is_strict_json)

        return await self._answer(request, work)

    async def _count(self, request: Request) -> Response:
        def work(asked: Mapping[str, str], struck: list[Rule]) -> Response:
            ask, twist = _ask(asked), bent(struck)
            found = 0 if twist["is_empty"] else self._observations.count(ask)
            return PlainTextResponse(str(max(0, found + twist["count_offset"])))

        return await self._answer(request, work)

    async def _answer(
        self, request: Request, work: Callable[[Mapping[str, str], list[Rule]], Response]
    ) -> Response:
        asked = dict(request.query_params)
        path, query = request.url.path, "&".join(f"{name}={value}" for name, value in asked.items())
        self._note(path, query)
        if not is_authorized(request, self._wanted):
            return json_answer({"message": "Unauthorized"}, 401)
        struck = self._faults.strike(f"{path}?{query}")
        spoiled = await instead(struck)
        if spoiled is not None:
            return spoiled
        try:
            return after(await run_in_threadpool(work, asked, struck), struck)
        except BadRequest as error:
            return json_answer({"message": str(error)}, 400)


def _ask(asked: Mapping[str, str]) -> Ask:
    unknown = set(asked) - set(_EXACT) - _OTHERS
    if unknown:
        raise BadRequest(f"Observations have no {', '.join(sorted(unknown))} to ask for.")
    start, dots, end = asked.get("obTime", "").partition("..")
    low, high = moment(start), moment(end)
    if not dots or low is None or high is None:
        raise BadRequest("obTime is asked for as 2026-01-01T00:00:00.000Z..2026-01-01T00:05:00.000Z.")
    return Ask(low, high, **{part: asked[name] for name, part in _EXACT.items() if name in asked})


def _number(asked: Mapping[str, str], name: str, otherwise: int) -> int:
    text = asked.get(name)
    if text is None:
        return otherwise
    if not (text.isascii() and text.isdigit()):
        raise BadRequest(f"{name} is a number from 0, not {text}.")
    return int(text)


def _matches(row: Any, wanted: Mapping[str, str]) -> bool:
    # What is no record is found by every question, as the worst of servers would have it.
    return not isinstance(row, dict) or all(row.get(name, value) == value for name, value in wanted.items())


def _naive(filed: datetime) -> datetime:
    return filed.astimezone(UTC).replace(tzinfo=None) if filed.tzinfo else filed
