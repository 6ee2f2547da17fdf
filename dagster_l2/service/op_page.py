"""The page of an OP, and the orders that its forms give: the same calls as over HTTP, by the same roles."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import FileResponse, RedirectResponse, Response

from dagster_l2.base.errors import L2Error
from dagster_l2.ledger import PRIORITY_LEVELS, InvalidRecord, Role, State, Token, UnknownOp
from dagster_l2.service.answers import status_of
from dagster_l2.service.backend import Backend, Row
from dagster_l2.service.drawings import SPREAD, box_plot_of, disk_of
from dagster_l2.service.pages import HEADERS, Pages, may, op_address, same_origin


@dataclass(frozen=True)
class _Given:
    """An order as the form gives it."""

    op_id: str
    who: Token
    text: str
    level: str

    @property
    def is_operator(self) -> bool:
        return self.who.role == "operator"


@dataclass(frozen=True)
class _Order:
    """Who may give an order, in which states it makes sense, whether only for one's own, and what it does."""

    role: Role
    states: frozenset[State]
    is_for_claimer: bool
    give: Callable[[Backend, _Given], object]


def _claim(backend: Backend, given: _Given) -> object:
    backend.check_writable()
    return backend.ledger.claim(given.op_id, actor=given.who.name)


def _release(backend: Backend, given: _Given) -> object:
    return backend.ledger.release(given.op_id, actor=given.who.name, is_operator=given.is_operator)


def _withdraw(backend: Backend, given: _Given) -> object:
    backend.check_writable()
    return backend.ledger.withdraw(
        given.op_id, actor=given.who.name, reason=given.text, is_operator=given.is_operator
    )


def _retry(backend: Backend, given: _Given) -> object:
    return backend.ledger.retry(given.op_id, actor=given.who.name)


def _approve(backend: Backend, given: _Given) -> object:
    backend.check_writable()
    return backend.approve(backend.ledger, given.op_id, given.who.name)


def _reopen(backend: Backend, given: _Given) -> object:
    backend.check_writable()
    return backend.ledger.reopen(given.op_id, actor=given.who.name, reason=given.text)


def _assign(backend: Backend, given: _Given) -> object:
    return backend.ledger.assign(given.op_id, given.text.strip() or None, actor=given.who.name)


def _prioritize(backend: Backend, given: _Given) -> object:
    try:
        level = int(given.level)
    except ValueError:
        raise InvalidRecord(f"The priority {given.level!a} is no whole number.") from None
    return backend.ledger.prioritize(given.op_id, level, reason=given.text, actor=given.who.name)


def _note(backend: Backend, given: _Given) -> object:
    return backend.ledger.note(given.op_id, given.text, actor=given.who.name)


_EVERY = frozenset(State)
_CLAIMED = frozenset({State.WORKING, State.INVERTED})
_ORDERS = {
    "claim": _Order("scientist", frozenset({State.PREPROCESSED}), False, _claim),
    "release": _Order("scientist", frozenset({State.WORKING}), True, _release),
    "withdraw": _Order("scientist", frozenset({State.INVERTED}), True, _withdraw),
    "retry": _Order("scientist", frozenset({State.ERROR}), False, _retry),
    "publish": _Order("operator", frozenset({State.INVERTED}), False, _approve),
    "reopen": _Order("operator", frozenset({State.PUBLISHED}), False, _reopen),
    "assign": _Order("scientist", _EVERY - _CLAIMED - {State.PUBLISHED}, False, _assign),
    "priority": _Order("scientist", _EVERY - {State.PUBLISHED}, False, _prioritize),
    "note": _Order("scientist", _EVERY, False, _note),
}


def add_op_page(router: APIRouter, pages: Pages) -> None:
    """Add the page, its pictures and its orders."""

    @router.get("/board/op/{op_id:any}")
    def one(request: Request, op_id: str) -> Response:
        return _page(pages, pages.signed_in(request), op_id)

    @router.get("/board/picture/{op_id:any}")
    def picture(request: Request, op_id: str) -> Response:
        """The picture of an OP's level-1 frames."""
        pages.signed_in(request)
        return _png(pages.backend.picture(op_id), "There is no picture of its frames.")

    @router.get("/board/quicklook/{inversion_id:any}")
    def quicklook(request: Request, inversion_id: str) -> Response:
        """The picture of what an inversion found."""
        pages.signed_in(request)
        return _png(pages.backend.quicklook(inversion_id), "There is no picture of this inversion.")

    @router.post("/board/op/{op_id:any}")
    def order(
        request: Request,
        op_id: str,
        order: Annotated[str, Form(max_length=20)],
        text: Annotated[str, Form(max_length=2000)] = "",
        level: Annotated[str, Form(max_length=20)] = "",
    ) -> Response:
        """Give one of the orders; a refusal is a sentence on the page."""
        same_origin(request)
        wanted = _ORDERS.get(order)
        if wanted is None:
            raise HTTPException(422, f"There is no order {order!a}; there are {', '.join(_ORDERS)}.")
        who = pages.signed_in(request, wanted.role)
        try:
            wanted.give(pages.backend, _Given(op_id, who, text, level))
        except UnknownOp:
            raise
        except L2Error as refused:
            return _page(pages, who, op_id, problem=str(refused), status=status_of(refused))
        return RedirectResponse(op_address(op_id), 303, HEADERS)


def _page(pages: Pages, who: Token, op_id: str, *, problem: str | None = None, status: int = 200) -> Response:
    content: Row = pages.backend.program(op_id)
    return pages.page(
        "op",
        who,
        status,
        op=content,
        state=content["state"],
        program=content["observing_program"],
        disk=disk_of(content["datasets"]),
        plot=box_plot_of(content["datasets"]),
        spread=SPREAD,
        quicklooks=[
            row["inversion_id"]
            for row in content["inversions"]
            if pages.backend.quicklook(row["inversion_id"]) is not None
        ],
        problem=problem,
        orders=_offered(content["state"], who),
        levels=PRIORITY_LEVELS,
    )


def _offered(state: Row, who: Token) -> list[str]:
    """The orders that make sense now and that this person may give."""
    is_own = state["claimed_by"] == who.name or may(who, "operator")
    return [
        name
        for name, order in _ORDERS.items()
        if may(who, order.role)
        and State(state["state"]) in order.states
        and (is_own or not order.is_for_claimer)
    ]


def _png(path: Path | None, missing: str) -> Response:
    if path is None:
        raise HTTPException(404, missing)
    return FileResponse(path, media_type="image/png", headers={"Cache-Control": "no-store"})
