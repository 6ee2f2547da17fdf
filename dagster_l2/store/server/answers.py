"""Answers as they go out over HTTP, whole or as a fault spoils them.

Which faults strike is decided in ``faults``; what an unspoilt answer holds, by whoever makes it.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
from collections.abc import Sequence
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send

from dagster_l2.store.server.faults import Rule

_CRASH_EXIT = 70
_PAGE = "<!DOCTYPE html><html><body><h1>Scheduled maintenance</h1></body></html>"


def is_authorized(request: Request, wanted: str | None) -> bool:
    """Whether the ``Authorization`` header is the wanted text; None wants nothing."""
    if wanted is None:
        return True
    # Header text is Latin-1 on the wire; a token outside it is compared as the bytes a client sends.
    given = request.headers.get("Authorization", "").encode("latin-1", "replace")
    return hmac.compare_digest(given, wanted.encode())


def json_answer(content: Any, status: int = 200, *, strict: bool = True) -> Response:
    """JSON; not ``strict`` is for records with NaN or a lone surrogate, which are to reach the client."""
    # orjson would turn NaN into null and refuse a lone surrogate.
    body = orjson.dumps(content) if strict else json.dumps(content).encode()
    return Response(body, status, media_type="application/json")


async def instead(struck: Sequence[Rule]) -> Response | None:
    """Wait as long as a fault says; the answer that replaces the real one, if a fault has one."""
    for rule in struck:
        if rule.kind == "slow":
            await asyncio.sleep(rule.seconds)
        elif rule.kind == "status":
            body = json.dumps({"message": "fault"}) if rule.body is None else rule.body
            return Response(body, rule.status, dict(rule.headers))
        elif rule.kind == "rate":
            return Response('{"message": "Too many requests"}', 429, dict(rule.headers))
        elif rule.kind == "html":
            return HTMLResponse(_PAGE if rule.body is None else rule.body)
        elif rule.kind == "graphql_errors" and not rule.with_data:
            return json_answer({"data": None, "errors": [{"message": rule.message}]})
    return None


def bent(struck: Sequence[Rule]) -> dict[str, Any]:
    """The faults that bend the answer itself, as arguments of its maker."""
    return {
        "count_offset": sum(rule.n for rule in struck if rule.kind == "wrong_count"),
        "is_empty": any(rule.kind == "empty" for rule in struck),
    }


def after(response: Response, struck: Sequence[Rule]) -> Response:
    """What is left of the answer once it was made."""
    for rule in struck:
        if rule.kind == "crash_after_create":
            if rule.exit:
                os._exit(_CRASH_EXIT)
            return _BrokenOff(None)
        if rule.kind == "cut":
            return _BrokenOff(response, chunked=rule.chunked)
    return response


class _BrokenOff(Response):
    """The connection is dropped: after half of the body, or before any answer."""

    def __init__(self, whole: Response | None, *, chunked: bool = False) -> None:
        super().__init__()
        self._whole = whole
        self._chunked = chunked

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        # ASGI has no word for hanging up, so the connection is taken from uvicorn's own request cycle.
        cycle: Any = getattr(receive, "__self__", None)
        if self._whole is not None:
            # Without a length the server sends chunks, whose end then never comes.
            headers = [
                (name, value)
                for name, value in self._whole.raw_headers
                if not (self._chunked and name == b"content-length")
            ]
            half = bytes(self._whole.body)[: len(self._whole.body) // 2]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": half, "more_body": True})
        cycle.transport.close()
        while not cycle.disconnected:
            await asyncio.sleep(0.001)
