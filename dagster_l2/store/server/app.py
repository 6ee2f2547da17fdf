"""The local store's HTTP: routes, tokens and the request log.

What is answered is decided in ``catalog``, ``public`` and ``udl``, what a fault does to it in ``answers``;
how the app is run is in ``running``.
"""

from __future__ import annotations

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
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from dagster_l2.store.errors import StoreError
from dagster_l2.store.server.answers import after, bent, instead, is_authorized, json_answer
from dagster_l2.store.server.catalog import Catalog
from dagster_l2.store.server.engine import Answer
from dagster_l2.store.server.faults import Faults, Rule
from dagster_l2.store.server.frames import FrameSpace
from dagster_l2.store.server.public import search, search_values
from dagster_l2.store.server.reach_generate import ReachFleet
from dagster_l2.store.server.records import RecordSet
from dagster_l2.store.server.search import BadRequest
from dagster_l2.store.server.udl import Observations, Udl

_LOG_LENGTH = 100_000


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
    reach: Observations | None = None,
    udl_token: str | None = None,
    udl_page: int = 10_000,
    frames_folder: Path | None = None,
) -> Starlette:
    """The local store as an ASGI app.

    Its ``state`` has ``faults`` and ``requests``, a bounded log of (seconds since 1970, names): the
    operations of a GraphQL request, else path and query.

    Parameters
    ----------
    records
        What it serves; not copied and not changed.
    token
        Asked for, raw, in the ``Authorization`` header of ``/graphql``; None leaves the store open.
    inversions_file
        SQLite file of the published inversions; made when missing, may be shared by two servers.
    inclusive_bounds, unstable_ties
        Whether the Min and Max filters include their bound, and whether records that sort alike change
        places between requests; the real store says neither.
    strict_nulls
        Whether null in a never-null field is a GraphQL error instead of null.
    faults, allow_faults
        The faults in force, to be changed in process, and whether ``POST /_faults`` may set them.
    reach, udl_token, udl_page
        The observations served below ``/udl`` (None: the whole generated fleet), the token asked for there
        behind ``Basic`` (None leaves it open), and how many observations one answer holds at most.
    frames_folder
        Where the frames of the ViSP datasets are made when they are asked for, to be listed and served below
        ``/objects``; None: there are only the frames of the dumps, as records.

    Raises
    ------
    StoreError
        When the file of the inversions cannot be used.
    """
    catalog = Catalog(
        records,
        inversions_file,
        frames=None if frames_folder is None else FrameSpace(records.datasets, frames_folder),
        inclusive_bounds=inclusive_bounds,
        unstable_ties=unstable_ties,
        strict_nulls=strict_nulls,
    )
    server = _Server(catalog, token, faults or Faults())
    udl = Udl(reach or ReachFleet(), udl_token, server.faults, server.note, max_page=udl_page)
    app = Starlette(routes=[*server.routes(allow_faults), *udl.routes()], lifespan=server.lifespan)
    app.state.faults, app.state.requests = server.faults, server.requests
    return app


def udl_app(reach: Observations, *, token: str | None = None, faults: Faults | None = None) -> Starlette:
    """The UDL alone as an ASGI app; what its ``state`` has is in `store_app`."""
    requests: deque[tuple[float, tuple[str, ...]]] = deque(maxlen=_LOG_LENGTH)
    faults = faults or Faults()

    def note(*names: str) -> None:
        requests.append((time.time(), names))

    app = Starlette(routes=Udl(reach, token, faults, note, max_page=10_000).routes())
    app.state.faults, app.state.requests = faults, requests
    return app


class _Server:
    def __init__(self, catalog: Catalog, token: str | None, faults: Faults) -> None:
        self.faults = faults
        self.requests: deque[tuple[float, tuple[str, ...]]] = deque(maxlen=_LOG_LENGTH)
        self._catalog = catalog
        self._token = token
        self._search_values: dict[str, Any] | None = None

    def routes(self, allow_faults: bool) -> list[Route]:
        routes = [
            Route("/graphql", self.graphql, methods=["POST"]),
            Route("/datasets/v1", self.search, methods=["GET"]),
            Route("/datasets/v1/searchValues", self.search_values, methods=["GET"]),
            Route("/objects/{bucket}/{key:path}", self.an_object, methods=["GET"]),
            Route("/healthz", self.health, methods=["GET"]),
        ]
        if allow_faults:
            routes.append(Route("/_faults", self.set_faults, methods=["GET", "POST", "DELETE"]))
        return routes

    def note(self, *names: str) -> None:
        self.requests.append((time.time(), names))

    @asynccontextmanager
    async def lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        yield
        self._catalog.inversions.close()

    async def graphql(self, request: Request) -> Response:
        if not is_authorized(request, self._token):
            return json_answer({"message": "Unauthorized", "errors": [{"message": "Unauthorized"}]}, 401)
        body = await request.body()
        struck = self.faults.strike(body.decode("utf-8", "replace"))
        spoiled = await instead(struck)
        if spoiled is not None:
            return spoiled
        try:
            query, variables, operation_name = _graphql_body(body)
        except BadRequest as error:
            return json_answer({"errors": [{"message": str(error)}]}, 400)
        resolvers = self._catalog.resolvers(**bent(struck))

        def work() -> tuple[list[str], Response]:
            names, answer = self._catalog.engine.answer(query, variables, operation_name, resolvers)
            return names, json_answer(_with_errors(answer, struck), strict=self._catalog.is_strict_json)

        names, response = await run_in_threadpool(work)
        self.requests.append((time.time(), tuple(names)))
        return after(response, struck)

    async def search(self, request: Request) -> Response:
        struck = self.faults.strike(f"{request.url.path}?{request.url.query}")
        spoiled = await instead(struck)
        if spoiled is not None:
            return spoiled
        self.requests.append((time.time(), (request.url.path,)))
        parameters = list(request.query_params.multi_items())

        def work() -> Response:
            answer = search(self._catalog, parameters, **bent(struck))
            return json_answer(answer, strict=self._catalog.is_strict_json)

        try:
            return after(await run_in_threadpool(work), struck)
        except BadRequest as error:
            return json_answer({"message": str(error)}, 400)

    async def an_object(self, request: Request) -> Response:
        """A file of the object space; ``Range`` is answered, so that a transfer can go on."""
        if not is_authorized(request, self._token):
            return json_answer({"message": "Unauthorized"}, 401)
        struck = self.faults.strike(request.url.path)
        spoiled = await instead(struck)
        if spoiled is not None:
            return spoiled
        self.requests.append((time.time(), (request.url.path,)))
        bucket, key = request.path_params["bucket"], request.path_params["key"]
        try:
            file = await run_in_threadpool(self._catalog.object_file, bucket, key)
        except StoreError as error:
            return json_answer({"message": str(error)}, 503)
        if file is None or not file.is_file():
            return json_answer({"message": "There is no such object."}, 404)
        if any(rule.kind in ("cut", "crash_after_create") for rule in struck):
            return after(Response(file.read_bytes()), struck)
        return FileResponse(file, media_type="application/fits")

    async def search_values(self, _request: Request) -> Response:
        if self._search_values is None:
            self._search_values = await run_in_threadpool(search_values, self._catalog)
        return json_answer(self._search_values)

    async def health(self, _request: Request) -> Response:
        return json_answer({"status": "ok", "datasets": len(self._catalog.datasets.rows)})

    async def set_faults(self, request: Request) -> Response:
        if request.method == "POST":
            try:
                content = orjson.loads(await request.body())
                if not isinstance(content, list):
                    raise ValueError("The body is a JSON list of faults.")
                self.faults.set([Rule.from_json(item) for item in content])
            except (ValueError, TypeError) as error:
                return json_answer({"message": str(error)}, 400)
        elif request.method == "DELETE":
            self.faults.clear()
        return json_answer(self.faults.as_json())


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


def _with_errors(answer: Answer, struck: list[Rule]) -> Answer:
    errors = [{"message": rule.message} for rule in struck if rule.kind == "graphql_errors"]
    return {**answer, "errors": errors} if errors else answer
