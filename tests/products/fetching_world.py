"""A web server of products that knows tags and ranges, and can be told to misbehave."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dagster_l2.products import (
    PRODUCT_FILES,
    HttpPlace,
    Limits,
)

OP, INVERSION = "eid_1_118_opAvoqBr", "inv.ABC123"
MODEL = PRODUCT_FILES[0]
QUICK = Limits(durable_bytes=1000, pause=lambda _: None)
Answer = Callable[[Request, bytes], Response | None]


class Server:
    """A web server of one folder that knows tags and ranges, and misbehaves where a test says so."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.requests: list[tuple[str, str | None, int]] = []
        self.first: list[Answer] = []
        self.always: Answer | None = None
        self.app = Starlette(routes=[Route("/{path:path}", self.answer)])
        self.url = ""

    async def answer(self, request: Request) -> Response:
        name = request.path_params["path"].rpartition("/")[2]
        body = (self.folder / name).read_bytes() if (self.folder / name).is_file() else b""
        said = self.always or (self.first.pop(0) if self.first else None)
        response = said(request, body) if said else None
        if response is None:
            response = self.right(request, body) if body else Response("none", 404)
        self.requests.append((name, request.headers.get("range"), response.status_code))
        return response

    def right(self, request: Request, body: bytes) -> Response:
        tag = tag_of(body)
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers={"ETag": tag})
        wanted = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if wanted and request.headers.get("if-range") == tag:
            start = int(wanted[1])
            where = {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}", "ETag": tag}
            return Response(body[start:], 206, where)
        return Response(body, headers={"ETag": tag})

    def asked(self, name: str = MODEL) -> list[tuple[str | None, int]]:
        return [(range_, status) for asked, range_, status in self.requests if asked == name]


def tag_of(body: bytes) -> str:
    return f'"{hashlib.sha256(body).hexdigest()[:16]}"'


def cut(request: Request, body: bytes) -> Response:
    """Half of the file, and then the line is dead."""

    async def half() -> Any:
        yield body[: len(body) // 2]
        raise ConnectionAbortedError

    return StreamingResponse(half(), headers={"Content-Length": str(len(body)), "ETag": tag_of(body)})


@contextmanager
def at(server: Server, **more: Any) -> Iterator[HttpPlace]:
    place = HttpPlace(f"{server.url}/run/7/", **{"timeout_s": 5.0, **more})
    try:
        yield place
    finally:
        place.close()


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in PRODUCT_FILES}
