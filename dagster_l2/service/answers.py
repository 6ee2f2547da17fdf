"""How the service answers: JSON with times in UTC, and each refusal as one sentence with its status."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.ledger import (
    Conflict,
    IllegalTransition,
    InputsChanged,
    InvalidRecord,
    KeyUsed,
    NotAllowed,
    UnknownOp,
)

_LOG = logging.getLogger(__name__)

_STATUS: tuple[tuple[type[L2Error], int], ...] = (
    (UnknownOp, 404),
    (Conflict, 409),
    (IllegalTransition, 409),
    (InputsChanged, 409),
    (NotAllowed, 409),
    (InvalidRecord, 422),
    (KeyUsed, 422),
    (WrongUse, 422),
)
"""The status of a refusal; any other error of ours says that something is not there yet, or away: 503."""

_KINDS = {
    400: "malformed",
    401: "no_token",
    403: "wrong_role",
    404: "unknown",
    405: "wrong_method",
    409: "refused",
    413: "too_large",
    422: "invalid",
    429: "too_many",
    503: "unavailable",
}


def as_json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """An answer with JSON; a time that says no zone is UTC, as all of gold's are."""
    body = orjson.dumps(content, default=str, option=orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z)
    return Response(body, status, headers, media_type="application/json")


def refusal(status: int, sentence: str, headers: dict[str, str] | None = None) -> Response:
    """A refusal: ``{"error": sentence, "kind": word}``."""
    said = sentence.encode("utf-8", "replace").decode()
    return as_json({"error": said, "kind": _KINDS.get(status, "failed")}, status, headers)


def status_of(error: L2Error) -> int:
    """The status that says what kind of refusal it is."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 503)


class Refusals:
    """Lets every error that reaches the app be one sentence: as JSON, or on a page for who looks at pages.

    Parameters
    ----------
    pages
        Where the addresses of pages begin.
    page
        What makes a page of a request, a status, a sentence and headers.
    """

    def __init__(self, pages: str, page: Callable[[Request, int, str, dict[str, str]], Response]) -> None:
        self._pages, self._page = pages, page

    def add_to(self, app: FastAPI) -> None:
        """Let the app answer by this."""
        app.add_exception_handler(L2Error, self._ours)
        app.add_exception_handler(HTTPException, self._http)
        app.add_exception_handler(RequestValidationError, self._invalid)
        app.add_exception_handler(Exception, self._unforeseen)

    def _say(
        self, request: Request, status: int, sentence: str, headers: dict[str, str] | None = None
    ) -> Response:
        if str(request.scope["path"]).startswith(self._pages):
            return self._page(request, status, sentence, headers or {})
        return refusal(status, sentence, headers)

    async def _ours(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, L2Error)
        status = status_of(error)
        return self._say(request, status, str(error), {"Retry-After": "10"} if status == 503 else None)

    async def _http(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        said = str(error.detail)
        if error.status_code == 404 and said == "Not Found":
            said = "There is nothing at this address; /openapi.json lists what there is."
        elif error.status_code == 405:
            said = f"This address takes no {request.method}."
        elif error.status_code == 400:
            said = "The body is not what this address takes."
        return self._say(request, error.status_code, said, dict(error.headers or {}))

    async def _invalid(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return self._say(request, 422, f"The body is no JSON: {first['ctx']['error']}.")
        if first["loc"] == ("body",) and "json" not in request.headers.get("Content-Type", "json"):
            return self._say(request, 422, "The body is to be JSON: send Content-Type: application/json.")
        place = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
        more = f" (and {len(error.errors()) - 1} more)" if len(error.errors()) > 1 else ""
        return self._say(request, 422, f"{place}: {first['msg']}{more}.")

    async def _unforeseen(self, request: Request, error: Exception) -> Response:
        _LOG.error("%s %s failed", request.method, request.scope["path"], exc_info=error)
        said = f"Nobody foresaw this ({type(error).__name__}); the log of the service says more."
        return self._say(request, 500, said)
