"""Frames over real HTTP that broke off: what is here is gone on with only where it is of the same content."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from dagster_l2.inputs import Frame, FrameNotFetched, HttpObjects
from dagster_l2.inputs.objects import keep_tag, part_of
from dagster_l2.store.server import LocalStoreServer

CONTENT = bytes(range(256)) * 64
SIZE = len(CONTENT)


class Server:
    """Gives one file, or what a test answers instead."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.asked: list[str | None] = []
        self.instead: Callable[[Request], Response | None] = lambda _: None
        self.url = ""

    async def answer(self, request: Request) -> Response:
        self.asked.append(request.headers.get("Range"))
        return self.instead(request) or FileResponse(self.file)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    given = Server(tmp_path / "given.fits")
    given.file.write_bytes(CONTENT)
    with LocalStoreServer(Starlette(routes=[Route("/{path:path}", given.answer)])) as running:
        given.url = running.url
        yield given


def frame(size: int | None = SIZE) -> Frame:
    return Frame("data", "p/AAAAA/1.fits", "AAAAA", datetime(2025, 3, 1), size, "AVAILABLE")


def fetch(server: Server, target: Path, size: int | None = SIZE) -> None:
    objects = HttpObjects(server.url)
    try:
        objects.fetch(frame(size), target)
    finally:
        objects.close()


def broken_off(server: Server, target: Path, at: int, content: bytes = CONTENT) -> None:
    """What a kill leaves: the first bytes, and the tag that came before them."""
    part = part_of(target)
    part.write_bytes(content[:at])
    keep_tag(part, httpx.get(server.url).headers["ETag"])
    server.asked.clear()


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


@pytest.mark.parametrize("size", [SIZE, None])
def test_what_broke_off_is_gone_on_with(server: Server, tmp_path: Path, size: int | None) -> None:
    target = tmp_path / "AAAAA" / "1.fits"
    broken_off(server, target, 1000)
    fetch(server, target, size)
    assert (target.read_bytes(), server.asked) == (CONTENT, ["bytes=1000-"])
    assert left_in(target.parent) == ["1.fits"]


def test_one_that_is_whole_and_was_not_named_is_begun_anew(server: Server, tmp_path: Path) -> None:
    target = tmp_path / "AAAAA" / "1.fits"
    broken_off(server, target, SIZE)
    fetch(server, target, None)
    assert (target.read_bytes(), server.asked) == (CONTENT, [f"bytes={SIZE}-", None])
    assert left_in(target.parent) == ["1.fits"]


def test_two_contents_are_never_joined(server: Server, tmp_path: Path) -> None:
    target, other = tmp_path / "AAAAA" / "1.fits", CONTENT[::-1]
    broken_off(server, target, 1000)
    server.file.write_bytes(other)
    os.utime(server.file, (1, 1))
    fetch(server, target)
    assert target.read_bytes() == other


@pytest.mark.parametrize("says", [f"bytes 999-{SIZE - 1}/{SIZE}", f"bytes 0-{SIZE - 1}/{SIZE}", "nonsense"])
def test_another_part_than_was_asked_for_is_not_appended(server: Server, tmp_path: Path, says: str) -> None:
    target = tmp_path / "AAAAA" / "1.fits"
    broken_off(server, target, 1000)
    server.instead = lambda request: (
        Response(CONTENT[999:], 206, {"Content-Range": says}) if "Range" in request.headers else None
    )
    fetch(server, target)
    assert (target.read_bytes(), server.asked) == (CONTENT, ["bytes=1000-", None])


def test_what_is_coded_is_not_decoded_and_told(server: Server, tmp_path: Path) -> None:
    seen = []

    def coded(request: Request) -> Response:
        seen.append(request.headers["Accept-Encoding"])
        return Response(gzip.compress(CONTENT), headers={"Content-Encoding": "gzip"})

    server.instead = coded
    with pytest.raises(FrameNotFetched, match="sent as gzip, which was not asked for") as told:
        fetch(server, tmp_path / "1.fits")
    assert not told.value.transient
    assert seen == ["identity"]
