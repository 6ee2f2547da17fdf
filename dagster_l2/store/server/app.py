"""The local store's HTTP: routes, tokens, the request log, and what a fault does to an answer.

What is answered is decided in ``catalog`` and ``public``; how the app is run is in ``running``.
"""

from __future__ import annotations

import asyncio
import hmac
import json
import os
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from dagster_l2.store.server.catalog import Catalog
from dagster_l2.store.server.engine import Answer
from dagster_l2.store.server.faults import Faults, Rule
from dagster_l2.store.server.public import search, search_values
from dagster_l2.store.server.records import RecordSet
from dagster_l2.store.server.search import BadRequest

_LOG_LENGTH = 100_000
_CRASH_EXIT = 70
_PAGE = "<!DOCTYPE html><html><body><h1>Scheduled maintenance</h1></body></html>"


def store_app(
    records: RecordSet,
    *,
    token: str | None = None,
    inversions_file: Path | str,
    inclusive_bounds: bool = True,
    unstable_ties: bool = False,
    strict_nulls: bool = False,
    allow_faults: bool = False,
    faults: Faults | None = None,
) -> Starlette:
    """The local store as an ASGI app.

    Parameters
    ----------
    records
        What it serves; not copied and not changed.
    token
        Asked for, raw, in the ``Authorization`` header of ``/graphql``; None leaves the store open.
    inversions_file
        SQLite file of the published inversions; made when missing, may be shared by two servers.
    inclusive_bounds
        Whether the Min and Max filters include their bound; the real store does not say.
    unstable_ties
        Whether records that sort alike change places between requests; the real store does not say either.
    strict_nulls
        Whether null in a never-null field is a GraphQL error instead of null.
    allow_faults
        Whether ``POST /_faults`` may set faults.
    faults
        The faults in force, to be changed in process.

    Returns
    -------
    Starlette
        Its ``state`` has ``faults`` and ``requests``, a bounded log of (seconds since 1970, operation names).

    Raises
    ------
    StoreError
        When the file of the inversions cannot be used.
    """
    server = _Server(
        Catalog(
            records,
            inversions_file,
            inclusive_bounds=inclusive_bounds,
            unstable_ties=unstable_ties,
            strict_nulls=strict_nulls,
        ),
        token,
        faults or Faults(),
    )
    routes = [
        Route("/graphql", server.graphql, methods=["POST"]),
        Route("/datasets/v1", server.search, methods=["GET"]),
        Route("/datasets/v1/searchValues", server.search_values, methods=["GET"]),
        Route("/healthz", server.health, methods=["GET"]),
    ]
    if allow_faults:
        routes.append(Route("/_faults", server.set_faults, methods=["GET", "POST", "DELETE"]))
    app = Starlette(routes=routes, lifespan=server.lifespan)
    app.state.faults = server.faults
    app.state.requests = server.requests
    return app


class _Server:
    def __init__(self, catalog: Catalog, token: str | None, faults: Faults) -> None:
        self.faults = faults
        self.requests: deque[tuple[float, tuple[str, ...]]] = deque(maxlen=_LOG_LENGTH)
        self._catalog = catalog
        self._token = token
        self._search_values: dict[str, Any] | None = None

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        self._catalog.inversions.close()

    async def graphql(self, request: Request) -> Response:
        if not self._is_allowed(request):
            return _json({"message": "Unauthorized", "errors": [{"message": "Unauthorized"}]}, 401)
        body = await request.body()
        struck = self.faults.strike(body.decode("utf-8", "replace"))
        spoiled = await _instead(struck)
        if spoiled is not None:
            return spoiled
        try:
            query, variables, operation_name = _graphql_body(body)
        except BadRequest as error:
            return _json({"errors": [{"message": str(error)}]}, 400)
        resolvers = self._catalog.resolvers(**_bent(struck))

        def work() -> tuple[list[str], Response]:
            names, answer = self._catalog.engine.answer(query, variables, operation_name, resolvers)
            return names, _json(_with_errors(answer, struck), strict=self._catalog.is_strict_json)

        names, response = await run_in_threadpool(work)
        self.requests.append((time.time(), tuple(names)))
        return _after(response, struck)

    async def search(self, request: Request) -> Response:
        struck = self.faults.strike(f"{request.url.path}?{request.url.query}")
        spoiled = await _instead(struck)
        if spoiled is not None:
            return spoiled
        self.requests.append((time.time(), (request.url.path,)))
        parameters = list(request.query_params.multi_items())

        def work() -> Response:
            answer = search(self._catalog, parameters, **_bent(struck))
            return _json(answer, strict=self._catalog.is_strict_json)

        try:
            return _after(await run_in_threadpool(work), struck)
        except BadRequest as error:
            return _json({"message": str(error)}, 400)

    async def search_values(self, _request: Request) -> Response:
        if self._search_values is None:
            self._search_values = await run_in_threadpool(search_values, self._catalog)
        return _json(self._search_values)

    async def health(self, _request: Request) -> Response:
        return _json({"status": "ok", "datasets": len(self._catalog.datasets.rows)})

    async def set_faults(self, request: Request) -> Response:
        if request.method == "POST":
            try:
                content = orjson.loads(await request.body())
                if not isinstance(content, list):
                    raise ValueError("The body is a JSON list of faults.")
                self.faults.set([Rule.from_json(item) for item in content])
            except (ValueError, TypeError) as error:
                return _json({"message": str(error)}, 400)
        elif request.method == "DELETE":
            self.faults.clear()
        return _json(self.faults.as_json())

    def _is_allowed(self, request: Request) -> bool:
        if self._token is None:
            return True
        # Header text is Latin-1 on the wire; a token outside it is compared as the bytes a client sends.
        given = request.headers.get("Authorization", "").encode("latin-1", "replace")
        return hmac.compare_digest(given, self._token.encode())


def _graphql_body(body: bytes) -> tuple[str, Mapping[str, Any] | None, str | None]:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise BadRequest("The body is not JSON.") from None
    if not isinstance(content, dict) or not isinstance(content.get("query"), str):
        raise BadRequest("The body is a JSON object with a query.")
    variables, operation_name = content.get("variables"), content.get("operationName")
    if not isinstance(variables, dict | None) or not isinstance(operation_name, str | None):
        raise BadRequest("variables is a JSON object, and operationName is a text.")
    return content["query"], variables, operation_name


def _json(content: Any, status: int = 200, *, strict: bool = True) -> Response:
    # orjson would turn NaN into null and refuse a lone surrogate; both are to reach the client.
    body = orjson.dumps(content) if strict else json.dumps(content).encode()
    return Response(body, status, media_type="application/json")


async def _instead(struck: list[Rule]) -> Response | None:
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
            return _json({"data": None, "errors": [{"message": rule.message}]})
    return None


def _bent(struck: list[Rule]) -> dict[str, Any]:
    """The faults that bend the answer itself, as arguments of its maker."""
    return {
        "count_offset": sum(rule.n for rule in struck if rule.kind == "wrong_count"),
        "is_empty": any(rule.kind == "empty" for rule in struck),
    }


def _with_errors(answer: Answer, struck: list[Rule]) -> Answer:
    errors = [{"message": rule.message} for rule in struck if rule.kind == "graphql_errors"]
    return {**answer, "errors": errors} if errors else answer


def _after(response: Response, struck: list[Rule]) -> Response:
    """What is left of the answer once it was made."""
    for rule in struck:
        if rule.kind == "crash_after_create":
            if rule.exit:
                os._exit(_CRASH_EXIT)
            return _BrokenOff(None)
        if rule.kind == "cut":
            return _BrokenOff(response)
    return response


class _BrokenOff(Response):
    """The connection is dropped: after half of the body, or before any answer."""

    def __init__(self, whole: Response | None) -> None:
        super().__init__()
        self._whole = whole

    async def __call__(self, _scope: Scope, receive: Receive, send: Send) -> None:
        # ASGI has no word for hanging up, so the connection is taken from uvicorn's own request cycle.
        cycle: Any = getattr(receive, "__self__", None)
        if self._whole is not None:
            start = {"type": "http.response.start", "status": 200, "headers": self._whole.raw_headers}
            half = bytes(self._whole.body)[: len(self._whole.body) // 2]
            await send(start)
            await send({"type": "http.response.body", "body": half, "more_body": True})
        cycle.transport.close()
        while not cycle.disconnected:
            await asyncio.sleep(0.001)
