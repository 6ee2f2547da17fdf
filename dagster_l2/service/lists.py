"""The pages that list: queue, what is overdue, proposals, inversions, scans. Nothing here writes."""

from __future__ import annotations

import heapq
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Query, Request
from starlette.responses import Response

from dagster_l2.ledger import State
from dagster_l2.service.backend import Row
from dagster_l2.service.calendars import calendar_of
from dagster_l2.service.pages import PAGE, Pages, neighbours
from dagster_l2.service.reads import Once, chosen, late_by_responsible

_PEOPLE = 20
"""Who is on one page of what is overdue."""

_LONGEST = 25
"""What is shown of what one of them is late with."""

_NO_PROPOSAL = "not known"
"""What stands for the proposal of OPs that gold knows none of."""

Offset = Annotated[int, Query(ge=0, le=1_000_000)]


def add_lists(router: APIRouter, pages: Pages) -> None:
    """Add the lists."""
    _queue(router, pages)
    _overdue(router, pages)
    _proposals(router, pages)
    _inversions(router, pages)
    _scans(router, pages)


def _queue(router: APIRouter, pages: Pages) -> None:
    @router.get("/board")
    def queue(
        request: Request,
        whom: Annotated[str, Query(alias="for", max_length=200)] = "",
        state: str = "",
        overdue: bool = False,
        offset: Offset = 0,
    ) -> Response:
        who = pages.signed_in(request)
        every = pages.backend.queue()
        states = [one for one in State if one.value == state] or None
        rows = chosen(every, whom=whom or None, states=states, overdue=overdue)
        asked = {"for": whom, "state": state, **({"overdue": "true"} if overdue else {})}
        return pages.page(
            "queue",
            who,
            rows=rows[offset : offset + PAGE],
            total=len(rows),
            offset=offset,
            asked={"for": whom, "state": state, "overdue": overdue},
            states=[one.value for one in State],
            people=sorted({row["responsible"] for row in every}),
            **neighbours("/board", asked, "offset", offset, len(rows)),
        )


def _overdue(router: APIRouter, pages: Pages) -> None:
    late_groups = Once(_late_groups)

    @router.get("/board/overdue")
    def overdue(request: Request, offset: Offset = 0) -> Response:
        who = pages.signed_in(request)
        groups = late_groups(pages.backend.queue())
        return pages.page(
            "overdue",
            who,
            groups=groups[offset : offset + _PEOPLE],
            total=sum(group["total"] for group in groups),
            people=len(groups),
            offset=offset,
            **neighbours("/board/overdue", {}, "offset", offset, len(groups), _PEOPLE),
        )


def _late_groups(queue: list[Row]) -> list[Row]:
    """Who is late, who is most so first, with the longest of what each is late with."""
    late = [row for row in queue if row["is_overdue"]]
    of_each: dict[str, list[Row]] = {name: [] for name in late_by_responsible(late)}
    for row in late:
        of_each[row["responsible"]].append(row)
    return [
        {"name": name, "total": len(rows), "rows": heapq.nsmallest(_LONGEST, rows, key=_days_left)}
        for name, rows in of_each.items()
    ]


def _days_left(row: Row) -> float:
    left: float = row["limit_days"] - row["days_in_state"]
    return left


def _proposals(router: APIRouter, pages: Pages) -> None:
    by_proposal = Once(_states_by_proposal)

    @router.get("/board/proposals")
    def proposals(request: Request, offset: Offset = 0) -> Response:
        who = pages.signed_in(request)
        counts = by_proposal(pages.backend.programs())
        rows = [
            {"proposal_id": name, "total": counts[name].total(), **counts[name]}
            for name in sorted(counts)[offset : offset + PAGE]
        ]
        return pages.page(
            "proposals",
            who,
            rows=rows,
            total=len(counts),
            offset=offset,
            states=[one.value for one in State],
            **neighbours("/board/proposals", {}, "offset", offset, len(counts)),
        )

    @router.get("/board/programs")
    def programs(
        request: Request,
        proposal: Annotated[str, Query(max_length=200)] = "",
        state: Annotated[str, Query(max_length=20)] = "",
        offset: Offset = 0,
    ) -> Response:
        """The OPs of a proposal, of one state where asked: also those that wait for nobody."""
        who = pages.signed_in(request)
        rows = [
            row
            for row in pages.backend.programs()
            if (not proposal or (row["proposal_id"] or _NO_PROPOSAL) == proposal)
            and (not state or row["state"] == state)
        ]
        asked = {"proposal": proposal, "state": state}
        return pages.page(
            "programs",
            who,
            rows=rows[offset : offset + PAGE],
            total=len(rows),
            offset=offset,
            proposal=proposal,
            state=state,
            **neighbours("/board/programs", asked, "offset", offset, len(rows)),
        )


def _states_by_proposal(programs: list[Row]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {}
    for row in programs:
        counts.setdefault(row["proposal_id"] or _NO_PROPOSAL, Counter())[row["state"]] += 1
    return counts


def _inversions(router: APIRouter, pages: Pages) -> None:
    @router.get("/board/inversions")
    def inversions(request: Request, offset: Offset = 0) -> Response:
        who = pages.signed_in(request)
        rows, total = pages.backend.inversions(offset, PAGE)
        return pages.page(
            "inversions",
            who,
            rows=rows,
            total=total,
            offset=offset,
            **neighbours("/board/inversions", {}, "offset", offset, total),
        )


def _scans(router: APIRouter, pages: Pages) -> None:
    @router.get("/board/scans")
    def scans(
        request: Request,
        source: Annotated[str, Query(max_length=200)] = "",
        year: int = 0,
        offset: Offset = 0,
    ) -> Response:
        """Where was looked, day by day of a year, and what the scans brought."""
        who = pages.signed_in(request)
        scanned = pages.backend.scanned
        every = scanned.sources()
        chosen_one = next((one for one in every if one["source"] == source), every[0] if every else None)
        calendar = None
        if chosen_one is not None:
            first, last = chosen_one["first_year"], chosen_one["last_year"]
            # The store may have records with dates to come; without being asked nobody wants to see those.
            year = max(first, min(year or datetime.now(UTC).year, last))
            calendar = calendar_of(year, scanned.standing_by_day(chosen_one["source"], year))
        runs, total = scanned.scans(offset, PAGE)
        return pages.page(
            "scans",
            who,
            sources=every,
            source=chosen_one,
            calendar=calendar,
            runs=runs,
            total=total,
            offset=offset,
            changes=scanned.changes_by_field(),
            rejected=scanned.rejected(0, _LONGEST),
            **neighbours("/board/scans", {"source": source, "year": year}, "offset", offset, total),
        )

    @router.get("/board/scans/windows")
    def windows(
        request: Request, source: Annotated[str, Query(max_length=200)] = "", offset: Offset = 0
    ) -> Response:
        """The windows of a source, those that are not complete first."""
        who = pages.signed_in(request)
        rows, total = pages.backend.scanned.windows(source, offset, PAGE)
        pager = neighbours("/board/scans/windows", {"source": source}, "offset", offset, total)
        return pages.page("windows", who, source=source, rows=rows, total=total, offset=offset, **pager)

    @router.get("/board/scans/rejected")
    def rejected(request: Request, offset: Offset = 0) -> Response:
        """Records that a scan could not read."""
        who = pages.signed_in(request)
        rows, total = pages.backend.scanned.rejected(offset, PAGE)
        pager = neighbours("/board/scans/rejected", {}, "offset", offset, total)
        return pages.page("rejected", who, rows=rows, total=total, offset=offset, **pager)
