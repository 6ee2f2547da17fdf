"""How a page of the board is made: its template, who looks, where its forms may come from.

Which pages there are is in ``board``, ``lists`` and ``op_page``; what is drawn in ``drawings``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import jinja2
from fastapi import HTTPException, Request
from starlette.responses import HTMLResponse, Response

from dagster_l2.ledger import ROLES, Role, Token
from dagster_l2.service.access import Access
from dagster_l2.service.backend import Backend
from dagster_l2.service.drawings import lasted, shown, when

COOKIE = "l2_token"
FOLDER = Path(__file__).parent / "templates"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self' data:;"
    " form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
PAGE = 100
"""Rows of a table on one page."""


class SignIn(Exception):
    """Nobody is signed in."""


class Pages:
    """What all pages have in common."""

    def __init__(self, backend: Backend, access: Access) -> None:
        self.backend, self.access, self._templates = backend, access, _templates()

    def page(self, name: str, who: Token | None, status: int = 200, **content: Any) -> Response:
        """A page from its template."""
        text = self._templates.get_template(f"{name}.html").render(
            who=who, may_work=may(who, "scientist"), page=name, **content
        )
        return HTMLResponse(text, status, HEADERS)

    def refusal(self, request: Request, status: int, sentence: str, headers: dict[str, str]) -> Response:
        """The page of a refusal."""
        who: Token | None = getattr(request.state, "who", None)
        answer = self.page("problem", who, status, problem=sentence)
        answer.headers.update(headers)
        return answer

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


def op_address(op_id: str) -> str:
    """The address of an OP's page."""
    return f"/board/op/{quote(op_id, safe='')}"


def neighbours(
    path: str, asked: dict[str, Any], name: str, offset: int, total: int, page: int = PAGE
) -> dict[str, Any]:
    """The addresses of the page before and the page after; None where there is none.

    Parameters
    ----------
    asked
        What the address says beside ``name``, which has the offset.
    """

    def at(start: int) -> str:
        return f"{path}?{urlencode({**asked, name: start})}"

    return {
        "previous": at(max(0, offset - page)) if offset else None,
        "following": at(offset + page) if offset + page < total else None,
    }


def same_origin(request: Request) -> None:
    """Refuse a form that another site's page sent: the cookie's own rule is not everywhere kept."""
    origin = request.headers.get("Origin")
    if origin is None or urlsplit(origin).netloc != request.headers.get("Host"):
        raise HTTPException(403, "This form was not sent from the board itself.")


def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"shown": shown, "when": when, "op_address": op_address, "lasted": lasted}
    return environment
