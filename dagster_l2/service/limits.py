"""Limits before anything is done: the size of a body, requests of one token, wrong tokens of one address.

Also the log line of each request, which never has a token in it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dagster_l2.service.answers import refusal

_LOG = logging.getLogger(__name__)
_MOST_CLIENTS = 10_000


class Buckets:
    """A token bucket for each client; those not seen for longest are forgotten."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second, self._burst, self._clock = per_second, float(burst), clock
        self._lock = threading.Lock()
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> float:
        """Take one; seconds to wait when there is none, else 0."""
        now = self._clock()
        with self._lock:
            left, at = self._left.pop(client, (self._burst, now))
            left = min(self._burst, left + (now - at) * self._per_second)
            wait = 0.0 if left >= 1 else (1 - left) / self._per_second
            self._left[client] = (left if wait else left - 1, now)
            while len(self._left) > _MOST_CLIENTS:
                self._left.popitem(last=False)
        return wait


class _TooLarge(Exception):
    pass


class BodyLimit:
    """Refuses a body that is larger than allowed, said or not said beforehand."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app, self._most = app, most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = dict(scope["headers"]).get(b"content-length", b"0")
        if said.isdigit() and int(said) > self._most:
            await self._refuse(scope, receive, send)
            return
        seen, is_over = 0, False

        async def counted() -> Message:
            nonlocal seen, is_over
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most:
                is_over = True
                raise _TooLarge
            return message

        async def unless_over(message: Message) -> None:
            if not is_over:  # else the app answers that it could not read the body
                await send(message)

        with contextlib.suppress(_TooLarge):
            await self._app(scope, counted, unless_over)
        if is_over:
            await self._refuse(scope, receive, send)

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = refusal(413, f"The body is larger than {self._most:,} bytes.", {"Connection": "close"})
        await answer(scope, receive, send)


class RequestLog:
    """One line for each request: method, path, status, time and whose token; no query, no header."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def noted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noted)
        finally:
            who = scope.get("state", {}).get("who")
            about = {
                "status": status,
                "ms": round((time.perf_counter() - began) * 1000, 1),
                "who": who.name if who else None,
            }
            _LOG.info("%s %s", scope["method"], ascii(scope["path"])[1:-1], extra=about)
