"""The board: the same reads and orders as pages for people, rendered here; nothing is loaded from outside.

Who looks signs in with the personal token, which a cookie then holds. What is drawn is in ``drawings``.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlencode, urlsplit

import jinja2
from fastapi import APIRouter, FastAPI, Form, HTTPException, Query, Request
from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response

from dagster_l2.errors import L2Error
from dagster_l2.ledger import ROLES, Role, State, Token, UnknownOp
from dagster_l2.service.access import Access
from dagster_l2.service.doors import Doors, Row
from dagster_l2.service.drawings import Disk, Strip, disk_of, lasted, shown, strip_of, when
from dagster_l2.service.reads import chosen, late_by_responsible

COOKIE = "l2_token"
_PAGE = 100
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:;"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_FOLDER = Path(__file__).parent / "templates"
_ORDERS = ("claim", "release", "note")


class SignIn(Exception):
    """Nobody is signed in."""


def op_address(op_id: str) -> str:
    """The address of an OP's page."""
    return f"/board/op/{quote(op_id, safe='')}"


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"shown": shown, "when": when, "op_address": op_address, "lasted": lasted}
    return environment


class _Board:
    def __init__(self, doors: Doors, access: Access) -> None:
        self.doors, self.access, self._templates = doors, access, _templates()

    def page(self, name: str, who: Token | None, status: int = 200, **content: Any) -> Response:
        text = self._templates.get_template(f"{name}.html").render(
            who=who, may_work=may(who, "scientist"), page=name, **content
        )
        return HTMLResponse(text, status, _HEADERS)

    def signed_in(self, request: Request, role: Role = "reader") -> Token:
        """Who looks; raises `SignIn` when nobody does."""
        secret = request.cookies.get(COOKIE)
        if secret is None:
            raise SignIn
        try:
            return self.access.enter(request, secret, role)
        except HTTPException as refused:
            if refused.status_code == 401:
                raise SignIn from None
            raise


def may(who: Token | None, role: Role) -> bool:
    """Whether somebody has this role or a higher one."""
    return who is not None and ROLES.index(who.role) >= ROLES.index(role)


def add_board(app: FastAPI, doors: Doors, access: Access) -> None:
    """Add the pages."""
    board = _Board(doors, access)
    router = APIRouter(include_in_schema=False)
    _entrance(router, board)
    _lists(router, board)
    _all_inversions(router, board)
    _one_op(router, board)

    async def to_the_entrance(_request: Request, _error: Exception) -> Response:
        return RedirectResponse("/board/sign-in", 303)

    app.add_exception_handler(SignIn, to_the_entrance)
    app.include_router(router)


def _entrance(router: APIRouter, board: _Board) -> None:
    @router.get("/")
    def home() -> Response:
        return RedirectResponse("/board", 303)

    @router.get("/board/style.css")
    def style() -> Response:
        return FileResponse(_FOLDER / "style.css", media_type="text/css")

    @router.get("/board/sign-in")
    def sign_in_page() -> Response:
        return board.page("sign_in", None, problem=None)

    @router.post("/board/sign-in")
    def sign_in(request: Request, token: Annotated[str, Form(max_length=200)] = "") -> Response:
        _same_origin(request)
        try:
            board.access.enter(request, token.strip(), "reader")
        except HTTPException as refused:
            return board.page("sign_in", None, refused.status_code, problem=refused.detail)
        answer = RedirectResponse("/board", 303, _HEADERS)
        is_https = request.url.scheme == "https"
        answer.set_cookie(
            COOKIE, token.strip(), httponly=True, samesite="strict", secure=is_https, path="/board"
        )
        return answer

    @router.post("/board/sign-out")
    def sign_out(request: Request) -> Response:
        _same_origin(request)
        answer = RedirectResponse("/board/sign-in", 303, _HEADERS)
        answer.delete_cookie(COOKIE, path="/board")
        return answer


def _lists(router: APIRouter, board: _Board) -> None:
    @router.get("/board")
    def queue(
        request: Request,
        whom: Annotated[str, Query(alias="for", max_length=200)] = "",
        state: str = "",
        overdue: bool = False,
        offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    ) -> Response:
        who = board.signed_in(request)
        every = _or_none(board.doors.queue)
        states = [one for one in State if one.value == state] or None
        rows = chosen(every or [], whom=whom or None, states=states, overdue=overdue)
        asked = {"for": whom, "state": state, **({"overdue": "true"} if overdue else {})}

        def at(start: int) -> str:
            return "/board?" + urlencode({**asked, "offset": start})

        return board.page(
            "queue",
            who,
            rows=rows[offset : offset + _PAGE],
            total=len(rows),
            is_built=every is not None,
            offset=offset,
            previous=at(max(0, offset - _PAGE)) if offset else None,
            following=at(offset + _PAGE) if offset + _PAGE < len(rows) else None,
            asked={"for": whom, "state": state, "overdue": overdue},
            states=[one.value for one in State],
            people=sorted({row["responsible"] for row in every or []}),
        )

    @router.get("/board/overdue")
    def overdue_page(request: Request) -> Response:
        who = board.signed_in(request)
        rows = chosen(_or_none(board.doors.queue) or [], whom=None, states=None, overdue=True)
        groups = {
            name: sorted(
                (row for row in rows if row["responsible"] == name),
                key=lambda row: row["limit_days"] - row["days_in_state"],
            )
            for name in late_by_responsible(rows)
        }
        return board.page("overdue", who, groups=groups, total=len(rows), most=_PAGE)

    @router.get("/board/proposals")
    def proposals(request: Request) -> Response:
        who = board.signed_in(request)
        counts: dict[str, dict[str, int]] = {}
        for row in board.doors.programs():
            of_one = counts.setdefault(row["proposal_id"] or "not known", {})
            of_one[row["state"]] = of_one.get(row["state"], 0) + 1
        rows = [
            {"proposal_id": name, "total": sum(of_one.values()), **of_one}
            for name, of_one in sorted(counts.items())
        ]
        return board.page("proposals", who, rows=rows, states=[one.value for one in State])


def _all_inversions(router: APIRouter, board: _Board) -> None:
    @router.get("/board/inversions")
    def inversions(request: Request, offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0) -> Response:
        who = board.signed_in(request)
        rows, total = board.doors.inversions(offset, _PAGE)
        before, after = max(0, offset - _PAGE), offset + _PAGE
        return board.page(
            "inversions",
            who,
            rows=rows,
            total=total,
            offset=offset,
            previous=f"/board/inversions?offset={before}" if offset else None,
            following=f"/board/inversions?offset={after}" if after < total else None,
        )


def _one_op(router: APIRouter, board: _Board) -> None:
    @router.get("/board/op/{op_id:path}")
    def one(request: Request, op_id: str) -> Response:
        who = board.signed_in(request)
        try:
            return _op_page(board, who, op_id)
        except UnknownOp as unknown:
            return board.page("problem", who, 404, problem=str(unknown))

    @router.get("/board/picture/{op_id:path}")
    def picture(request: Request, op_id: str) -> Response:
        """The picture of an OP's level-1 frames."""
        board.signed_in(request)
        path = board.doors.picture(op_id)
        if path is None:
            raise HTTPException(404, "There is no picture of its frames.")
        return FileResponse(path, media_type="image/png", headers={"Cache-Control": "no-store"})

    @router.post("/board/op/{op_id:path}")
    def order(
        request: Request,
        op_id: str,
        order: Annotated[str, Form(max_length=20)],
        text: Annotated[str, Form(max_length=2000)] = "",
    ) -> Response:
        """Claim, release or note; the same calls as the orders over HTTP."""
        _same_origin(request)
        who = board.signed_in(request, "scientist")
        try:
            _give(board.doors, who, op_id, order, text)
        except UnknownOp as unknown:
            return board.page("problem", who, 404, problem=str(unknown))
        except L2Error as refused:
            return _op_page(board, who, op_id, problem=str(refused), status=409)
        return RedirectResponse(op_address(op_id), 303, _HEADERS)


def _give(doors: Doors, who: Token, op_id: str, order: str, text: str) -> None:
    ledger = doors.ledger
    if order == "claim":
        doors.check_writable()
        ledger.claim(op_id, actor=who.name)
    elif order == "release":
        ledger.release(op_id, actor=who.name, is_operator=who.role == "operator")
    elif order == "note":
        ledger.note(op_id, text, actor=who.name)
    else:
        raise HTTPException(422, f"There is no order {order!a}; there are {', '.join(_ORDERS)}.")


def _op_page(
    board: _Board, who: Token, op_id: str, *, problem: str | None = None, status: int = 200
) -> Response:
    content: Row = board.doors.program(op_id)
    disk: Disk | None = disk_of(content["datasets"])
    strip: Strip | None = strip_of(content["datasets"])
    is_own = content["state"]["claimed_by"] == who.name
    return board.page(
        "op",
        who,
        status,
        op=content,
        state=content["state"],
        program=content["observing_program"],
        disk=disk,
        strip=strip,
        problem=problem,
        can_claim=content["state"]["state"] == State.PREPROCESSED.value and may(who, "scientist"),
        can_release=content["state"]["state"] == State.WORKING.value and (is_own or may(who, "operator")),
    )


def _or_none(read: Callable[[], list[Row]]) -> list[Row] | None:
    """The rows; None while gold is not built."""
    try:
        return read()
    except L2Error:
        return None


def _same_origin(request: Request) -> None:
    """Refuse a form that another site's page sent: the cookie's own rule is not everywhere kept."""
    origin = request.headers.get("Origin")
    if origin is None or urlsplit(origin).netloc != request.headers.get("Host"):
        raise HTTPException(403, "This form was not sent from the board itself.")
