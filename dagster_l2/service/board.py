"""The board: the same reads and orders as pages for people, rendered here; nothing is loaded from outside.

Here: signing in with the personal token, which a cookie then holds. Pages are in ``lists`` and ``op_page``.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, FastAPI, Form, HTTPException, Request
from starlette.responses import FileResponse, RedirectResponse, Response

from dagster_l2.service.access import Access
from dagster_l2.service.backend import Backend
from dagster_l2.service.lists import add_lists
from dagster_l2.service.op_page import add_op_page
from dagster_l2.service.pages import COOKIE, FOLDER, HEADERS, Pages, SignIn, same_origin


def add_board(app: FastAPI, backend: Backend, access: Access) -> Pages:
    """Add the pages; what they have in common."""
    pages = Pages(backend, access)
    router = APIRouter(include_in_schema=False)
    _entrance(router, pages)
    add_lists(router, pages)
    add_op_page(router, pages)

    async def to_the_entrance(_request: Request, _error: Exception) -> Response:
        return RedirectResponse("/board/sign-in", 303)

    app.add_exception_handler(SignIn, to_the_entrance)
    app.include_router(router)
    return pages


def _entrance(router: APIRouter, pages: Pages) -> None:
    @router.get("/")
    def home() -> Response:
        return RedirectResponse("/board", 303)

    @router.get("/board/style.css")
    def style() -> Response:
        return FileResponse(FOLDER / "style.css", media_type="text/css")

    @router.get("/board/sign-in")
    def sign_in_page() -> Response:
        return pages.page("sign_in", None, problem=None)

    @router.post("/board/sign-in")
    def sign_in(request: Request, token: Annotated[str, Form(max_length=200)] = "") -> Response:
        same_origin(request)
        try:
            pages.access.enter(request, token.strip(), "reader")
        except HTTPException as refused:
            return pages.page("sign_in", None, refused.status_code, problem=refused.detail)
        answer = RedirectResponse("/board", 303, HEADERS)
        is_https = request.url.scheme == "https"
        answer.set_cookie(
            COOKIE, token.strip(), httponly=True, samesite="strict", secure=is_https, path="/board"
        )
        return answer

    @router.post("/board/sign-out")
    def sign_out(request: Request) -> Response:
        same_origin(request)
        answer = RedirectResponse("/board/sign-in", 303, HEADERS)
        answer.delete_cookie(COOKIE, path="/board")
        return answer
