"""What can be looked at: OPs, the queue, inversions, published documents, figures. Nothing here writes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from typing import Annotated, Any, Generic, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Query, Response

from dagster_l2.ledger import State
from dagster_l2.service.access import Access
from dagster_l2.service.answers import as_json
from dagster_l2.service.backend import Backend, Row
from dagster_l2.service.shapes import (
    OP,
    Documents,
    Health,
    InversionWithSteps,
    ProgramInFull,
    Programs,
    Queue,
    Refusal,
)

Limit = Annotated[int, Query(ge=1, le=1000, description="How many at most.")]
Found = TypeVar("Found")
_Responses = dict[int | str, dict[str, Any]]

_REFUSALS: _Responses = {401: {"model": Refusal}, 422: {"model": Refusal}, 429: {"model": Refusal}}
_AWAY: _Responses = {503: {"model": Refusal, "description": "The ledger is away, or gold is not built yet."}}
_NOT_THERE: _Responses = {404: {"model": Refusal, "description": "There is no such one."}}


def add_reads(app: FastAPI, backend: Backend, access: Access) -> None:
    """Add what can be looked at; all but health takes a reader's token."""
    _health(app, backend)
    router = APIRouter(
        dependencies=[Depends(access.as_least("reader"))], responses={**_REFUSALS, **_AWAY}, tags=["look"]
    )
    _programs(router, backend)
    _queue(router, backend)
    _published(router, backend)

    @router.get("/inversions/{inversion_id:any}", responses=_with(InversionWithSteps, _NOT_THERE))
    def one_inversion(inversion_id: str) -> Response:
        """One inversion: whose, of what, when; with the steps of its OP that were about it."""
        found = backend.inversion(inversion_id)
        if found is None:
            raise HTTPException(404, f"There is no inversion {inversion_id[:100]!a}.")
        return as_json(found)

    @router.get("/metrics", responses={200: {"content": {"text/plain": {}}}}, response_class=Response)
    def metrics() -> Response:
        """The figures for a scraper, as Prometheus text."""
        return Response(backend.metrics(), media_type="text/plain; version=0.0.4")

    @router.get("/openapi.json", include_in_schema=False)
    def description() -> Response:
        """The description of all this."""
        return as_json(app.openapi())

    app.include_router(router)


def _with(model: type, *more: _Responses) -> _Responses:
    responses: _Responses = {200: {"model": model}}
    for others in more:
        responses |= others
    return responses


def _health(app: FastAPI, backend: Backend) -> None:
    @app.get("/healthz", responses=_with(Health, _AWAY), tags=["look"])
    def health() -> Response:
        """Whether the ledger can be read; the only thing that takes no token."""
        backend.ledger.latest_ids()
        return as_json({"status": "well"})


def _programs(router: APIRouter, backend: Backend) -> None:
    @router.get("/observing-programs", responses=_with(Programs))
    def programs(
        state: Annotated[list[State] | None, Query(description="In one of these states.")] = None,
        proposal: Annotated[str | None, Query(examples=["pid_1_118"])] = None,
        instrument: Annotated[str | None, Query(examples=["VISP"])] = None,
        observed_from: Annotated[
            date | None, Query(description="Observed on this day (UTC) or later.")
        ] = None,
        observed_to: Annotated[
            date | None, Query(description="Observed on this day (UTC) or before.")
        ] = None,
        since: Annotated[
            datetime | None, Query(description="Only OPs that moved after it; UTC unless it says a zone.")
        ] = None,
        after: Annotated[
            str | None, Query(description="next_after of the page before.", examples=[OP])
        ] = None,
        limit: Limit = 100,
    ) -> Response:
        """OPs by id, a page at a time, with their state of now."""
        as_of = datetime.now(UTC)
        moved = None if since is None else _utc(since)
        first = None if observed_from is None else datetime.combine(observed_from, time())
        last = None if observed_to is None else datetime.combine(observed_to, time.max)
        rows = [
            row
            for row in backend.programs()
            if (not state or row["state"] in state)
            and (proposal is None or row["proposal_id"] == proposal)
            and (instrument is None or instrument in (row["instruments"] or ()))
            and (moved is None or row["recorded_at"] > moved)
            and (first is None or (row["end_time"] is not None and row["end_time"] >= first))
            and (last is None or (row["start_time"] is not None and row["start_time"] <= last))
        ]
        page = [row for row in rows if after is None or row["op_id"] > after]
        more = len(page) > limit
        page = page[:limit]
        return as_json(
            {
                "items": page,
                "total": len(rows),
                "next_after": page[-1]["op_id"] if more else None,
                # Whoever asks again since then misses nothing: what is recorded later is later.
                "as_of": as_of - timedelta(seconds=1),
            }
        )

    @router.get("/observing-programs/{op_id:any}", responses=_with(ProgramInFull, _NOT_THERE))
    def one_program(op_id: str) -> Response:
        """Everything about an OP: state, verdict with reasons, datasets, package, history, inversions."""
        return as_json(backend.program(op_id))


def _queue(router: APIRouter, backend: Backend) -> None:
    late = Once(late_by_responsible)

    @router.get("/queue", responses=_with(Queue))
    def queue(
        whom: Annotated[
            str | None, Query(alias="for", description="Only what waits for this person or role.")
        ] = None,
        state: Annotated[list[State] | None, Query(description="In one of these states.")] = None,
        overdue: Annotated[bool, Query(description="Only what has waited too long.")] = False,
        offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
        limit: Limit = 100,
    ) -> Response:
        """Who does what next, best first; a role is one of pipeline, operator and scientist."""
        rows = chosen(backend.queue(), whom=whom, states=state, overdue=overdue)
        return as_json({"items": rows[offset : offset + limit], "total": len(rows), "overdue": late(rows)})


class Once(Generic[Found]):
    """What is found in shared rows, looked for once while nobody moves and the same list is handed out."""

    def __init__(self, look: Callable[[list[Row]], Found]) -> None:
        self._look = look
        self._last: tuple[list[Row], Found] | None = None

    def __call__(self, rows: list[Row]) -> Found:
        """What is in these rows; it is shared, too."""
        last = self._last
        if last is None or last[0] is not rows:
            self._last = last = rows, self._look(rows)
        return last[1]


def chosen(rows: list[Row], *, whom: str | None, states: list[State] | None, overdue: bool) -> list[Row]:
    """The rows of the queue that are asked for."""
    if whom is None and not states and not overdue:
        return rows
    return [
        row
        for row in rows
        if (whom is None or row["responsible"] == whom)
        and (not states or row["state"] in states)
        and (row["is_overdue"] or not overdue)
    ]


def late_by_responsible(rows: list[Row]) -> dict[str, int]:
    """How many of these rows are overdue, by who is responsible."""
    late = Counter([row["responsible"] for row in rows if row["is_overdue"]])
    return dict(sorted(late.items(), key=lambda item: (-item[1], item[0])))


def _published(router: APIRouter, backend: Backend) -> None:
    @router.get(
        "/published/observing-programs",
        responses=_with(Documents, {304: {"description": "As the ETag says, nothing has changed."}}),
    )
    def documents(
        since: Annotated[str | None, Query(description="next_since of an earlier answer.")] = None,
        if_none_match: Annotated[str | None, Header()] = None,
    ) -> Response:
        """The documents of inverted OPs that changed since; all without it. With ETag."""
        try:
            listing = backend.documents(since)
        except (ValueError, OverflowError):
            raise HTTPException(422, "since: give next_since of an earlier answer, or a moment.") from None
        tag = f'"{listing.etag}"'
        if if_none_match is not None and tag in if_none_match:
            return Response(status_code=304, headers={"ETag": tag})
        content = {"documents": listing.documents, "next_since": listing.next_since}
        return as_json(content, headers={"ETag": tag})

    @router.get("/published/observing-programs/{op_id:any}", responses={**_NOT_THERE, 200: {}})
    def document(op_id: str) -> Response:
        """The document of one OP."""
        found = backend.document(op_id)
        if found is None:
            raise HTTPException(404, f"There is no document of OP {op_id[:100]!a}.")
        return as_json(found)


def _utc(moment: datetime) -> datetime:
    try:
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except OverflowError:
        raise HTTPException(422, "since: this moment is out of range.") from None
