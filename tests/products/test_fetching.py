"""Products come home whole, from a folder and over HTTP, whatever happens on the way."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from dagster_l2.errors import L2Error, WrongUse, error_class
from dagster_l2.files import AlreadyRunning, sha256, watch_steps
from dagster_l2.products import (
    MANIFEST_FILE,
    PRODUCT_FILES,
    FolderPlace,
    HttpPlace,
    Limits,
    ProductsRefused,
    ProductsUnreachable,
    SyntheticShape,
    at_home,
    check_address,
    fetch,
    seal,
    verify,
    write_products,
)
from dagster_l2.store.server import LocalStoreServer

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


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_products(
        tmp_path_factory.mktemp("there"),
        op_id=OP,
        inversion_id=INVERSION,
        lines=["Fe I (630.15 nm)"],
        seed=1,
        shape=SyntheticShape(depth=3, wavelengths=5, y=4, x=5),
    )


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "there"
    folder.mkdir()
    for name in PRODUCT_FILES:
        (folder / name).write_bytes((made / name).read_bytes())
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    return home


@pytest.fixture(scope="module")
def web() -> Iterator[Server]:
    server = Server(Path())
    with LocalStoreServer(server.app) as running:
        server.url = running.url
        yield server


@pytest.fixture
def server(web: Server, folder: Path) -> Server:
    web.folder, web.requests, web.first, web.always = folder, [], [], None
    return web


@contextmanager
def at(server: Server, **more: Any) -> Iterator[HttpPlace]:
    place = HttpPlace(f"{server.url}/run/7/", **{"timeout_s": 5.0, **more})
    try:
        yield place
    finally:
        place.close()


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in PRODUCT_FILES}


@pytest.mark.parametrize("kind", ["folder", "http"])
def test_files_come_home_once_with_their_sums(kind: str, folder: Path, home: Path, server: Server) -> None:
    with at(server) as http:
        place = http if kind == "http" else FolderPlace(folder)
        first = fetch(place, home, QUICK)
        assert {file.name: (file.size, file.sha256) for file in first} == {
            name: ((folder / name).stat().st_size, sha256(folder / name)) for name in PRODUCT_FILES
        }
        assert content(home) == content(folder)
        for name in PRODUCT_FILES:
            os.utime(home / name, ns=(1, 1))
        # One of them is replaced there: that one alone comes again.
        changed = (folder / MODEL).read_bytes()[:-1] + b"x"
        (folder / "new").write_bytes(changed)
        (folder / "new").replace(folder / MODEL)
        second = fetch(place, home, QUICK)
    assert [file.sha256 for file in second][1:] == [file.sha256 for file in first][1:]
    assert content(home) == content(folder)
    assert [(home / name).stat().st_mtime_ns == 1 for name in PRODUCT_FILES] == [False, True, True]
    if kind == "http":
        assert [status for *_, status in server.requests] == [200, 200, 200, 200, 304, 304]


def test_a_home_is_sealed_and_holds_nothing_else(folder: Path, home: Path) -> None:
    with at_home(home):
        fetch(FolderPlace(folder), home, QUICK)
        verified = verify(
            home, op_id=OP, inversion_id=INVERSION, dataset_ids=["AAAAA"], may_be_synthetic=True
        )
        for _ in range(2):
            assert seal(home, verified) == home / MANIFEST_FILE
    left = {path.name for path in home.iterdir() if "lock" not in path.name and path.suffix != ".json"}
    assert left == set(PRODUCT_FILES)
    assert not [
        path for path in home.glob(".*.json") if "lock" not in path.name and "taking" not in path.name
    ]
    assert f'"{OP}"' in (home / MANIFEST_FILE).read_text()


def test_a_line_that_breaks_is_gone_on_with(folder: Path, home: Path, server: Server) -> None:
    server.first = [cut]
    with at(server) as place:
        fetch(place, home, QUICK)
    size = (folder / MODEL).stat().st_size
    assert server.asked() == [(None, 200), (f"bytes={size // 2}-", 206)]
    assert content(home) == content(folder)


def test_a_file_that_changed_in_between_comes_anew(folder: Path, home: Path, server: Server) -> None:
    def cut_and_change(request: Request, body: bytes) -> Response:
        (folder / MODEL).write_bytes(body[:-1] + b"x")
        return cut(request, body)

    server.first = [cut_and_change]
    with at(server) as place:
        fetch(place, home, QUICK)
    assert [status for _, status in server.asked()] == [200, 200]
    assert (home / MODEL).read_bytes().endswith(b"x")
    assert content(home) == content(folder)


@pytest.mark.parametrize("kind", ["folder", "http"])
def test_a_killed_fetch_goes_on(kind: str, folder: Path, home: Path, server: Server) -> None:
    body = (folder / MODEL).read_bytes() * 900  # a few pieces
    (folder / MODEL).write_bytes(body)
    address = str(folder) if kind == "folder" else f"{server.url}/run/7"
    code = f"""
    import os
    from pathlib import Path
    from dagster_l2.products import FolderPlace, HttpPlace, Limits, fetch
    from dagster_l2.products import fetching
    passed = []
    def dying(name, count):
        passed.append(count)
        if sum(passed) > {len(body) // 2}:
            os.kill(os.getpid(), 9)
    fetching.count = dying
    place = {"FolderPlace(Path" if kind == "folder" else "(HttpPlace"}({address!r}))
    fetch(place, Path({str(home)!r}), Limits(durable_bytes=1000))
    """
    died = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert not (home / MODEL).exists()
    here = (home / f".{MODEL}.part").stat().st_size
    assert 0 < here < len(body)
    with at(server) as http:
        fetch(http if kind == "http" else FolderPlace(folder), home, QUICK)
    assert content(home) == content(folder)
    if kind == "http":
        range_, status = server.asked()[-1]
        assert status == 206
        assert range_ is not None
        assert 0 < int(range_.removeprefix("bytes=").removesuffix("-")) <= here


def test_stopped_at_any_step_the_next_fetch_ends_the_same(folder: Path, home: Path) -> None:
    taken: list[str] = []
    watch_steps(taken.append)
    try:
        fetch(FolderPlace(folder), home, QUICK)
        for number in range(len(taken)):
            for path in home.iterdir():
                path.unlink()
            left = [number]

            def stop(_: str, left: list[int] = left) -> None:
                left[0] -= 1
                if left[0] < 0:
                    raise KeyboardInterrupt

            watch_steps(stop)
            with pytest.raises(KeyboardInterrupt):
                fetch(FolderPlace(folder), home, QUICK)
            watch_steps(None)
            fetch(FolderPlace(folder), home, QUICK)
            assert content(home) == content(folder)
    finally:
        watch_steps(None)
    assert len(taken) > 6


def test_a_server_that_knows_neither_tags_nor_ranges_is_asked_anew(
    folder: Path, home: Path, server: Server
) -> None:
    def bare(request: Request, body: bytes) -> Response:
        return Response(body, headers={"ETag": 'W/"weak"'})

    def bare_cut(request: Request, body: bytes) -> Response:
        response = cut(request, body)
        del response.headers["ETag"]
        return response

    server.first = [bare_cut, bare]
    with at(server) as place:
        fetch(place, home, QUICK)
        server.always = bare
        fetch(place, home, QUICK)
    assert server.asked() == [(None, 200)] * 3
    assert content(home) == content(folder)


@pytest.mark.parametrize("how", ["another part", "416"])
def test_a_wrong_part_is_not_used(how: str, folder: Path, home: Path, server: Server) -> None:
    def wrong(request: Request, body: bytes) -> Response:
        if how == "416":
            return Response(status_code=416)
        return Response(body[5:], 206, {"Content-Range": f"bytes 5-{len(body) - 1}/{len(body)}"})

    server.first = [cut, wrong]
    with at(server) as place:
        fetch(place, home, QUICK)
    assert [status for _, status in server.asked()][2:] == [200]
    assert content(home) == content(folder)


def of_unknown_length(body: bytes) -> Response:
    async def chunks() -> Any:
        yield body
        yield bytes(300_000)

    return StreamingResponse(chunks())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda r, b: Response("no", 404), "inv_res_mod.fits is answered with HTTP 404"),
        (lambda r, b: Response("no", 403), "HTTP 403"),
        (lambda r, b: HTMLResponse("<!doctype html>log in"), "is not a FITS file, but text/html"),
        (lambda r, b: Response(b""), "is empty"),
        (lambda r, b: RedirectResponse(r.url), "redirected more than 5 times"),
        (lambda r, b: RedirectResponse("ftp://127.0.0.1/x"), "no address"),
        (lambda r, b: RedirectResponse("http://169.254.1.1/secret"), "not fetched from 169.254.1.1"),
        (lambda r, b: Response(b, headers={"Content-Encoding": "gzip"}), "sent as gzip"),
        (lambda r, b: Response(b + bytes(300_000)), r"at most 0.0002 GB.*L2_PRODUCTS_MOST_GB"),
        (lambda r, b: of_unknown_length(b), r"at most 0.0002 GB.*L2_PRODUCTS_MOST_GB"),
    ],
)  # fmt: skip
def test_what_no_other_try_would_change_is_refused(
    answer: Answer, says: str, home: Path, server: Server
) -> None:
    server.always = answer
    limits = Limits(most_bytes=200_000, pause=pytest.fail)
    with at(server, hosts=frozenset({"127.0.0.1"})) as place, pytest.raises(ProductsRefused) as refused:
        fetch(place, home, limits)
    assert re.search(says, str(refused.value))
    assert error_class(refused.value) == "permanent"
    assert "\n" not in str(refused.value)
    assert not list(home.glob("*.fits"))
    server.always = None
    with at(server) as place:
        fetch(place, home, QUICK)


def test_every_file_that_is_not_given_is_named(home: Path, server: Server) -> None:
    server.always = lambda _request, _body: Response("no", 404)
    with at(server) as place, pytest.raises(ProductsRefused) as refused:
        fetch(place, home, QUICK)
    assert [problem.split()[0] for problem in refused.value.problems] == list(PRODUCT_FILES)


def stalling(_request: Request, body: bytes) -> Response:
    async def first_only() -> Any:
        import asyncio

        yield body[:100]
        await asyncio.sleep(2)

    return StreamingResponse(first_only(), headers={"Content-Length": str(len(body))})


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda r, b: Response("busy", 503), "answered with HTTP 503"),
        (lambda r, b: Response("slowly", 429), "answered with HTTP 429"),
        (cut, "broke off"),
        (stalling, "stalls"),
    ],
)
def test_what_may_pass_is_tried_again_and_then_left(
    answer: Answer, says: str, folder: Path, home: Path, server: Server
) -> None:
    server.always = answer
    waited: list[float] = []
    with at(server, timeout_s=0.3) as place, pytest.raises(ProductsUnreachable, match=says) as left:
        fetch(place, home, Limits(pause=waited.append))
    assert error_class(left.value) == "transient"
    assert waited == sorted(waited)
    assert len(waited) == 3
    server.always = None
    with at(server) as place:
        fetch(place, home, QUICK)
    assert content(home) == content(folder)


def test_a_server_that_is_not_there_may_come(home: Path) -> None:
    place = HttpPlace("http://127.0.0.1:9", timeout_s=1.0)
    with pytest.raises(ProductsUnreachable, match=r"broke off at http://127\.0\.0\.1:9"):
        fetch(place, home, QUICK)
    place.close()


def test_a_share_that_is_away_may_come_and_a_folder_that_is_missing_will_not(
    folder: Path, home: Path, tmp_path: Path
) -> None:
    share = tmp_path / "share"
    for empty in (share, share):
        with pytest.raises(ProductsUnreachable, match="is it mounted"):
            fetch(FolderPlace(share / "run7", root=share), home, QUICK)
        empty.mkdir(exist_ok=True)
    folder.rename(share / "run7")
    fetch(FolderPlace(share / "run7", root=share), home, QUICK)
    for inside, says in (("run8", "does not exist"), ("../../etc", "leads out of")):
        with pytest.raises(ProductsRefused, match=says):
            fetch(FolderPlace(share / inside, root=share), home, QUICK)


def test_a_file_that_is_still_written_is_not_taken(folder: Path, home: Path) -> None:
    def writer(_: float) -> None:
        pass

    class Growing(FolderPlace):
        @contextmanager
        def open(self, file: str, kept: Any) -> Iterator[Any]:
            with super().open(file, kept) as opened:
                yield opened
                with (folder / file).open("ab") as written:
                    written.write(b"more")

    with pytest.raises(ProductsUnreachable, match="changed while it was copied"):
        fetch(Growing(folder), home, Limits(pause=writer))
    assert not list(home.glob("*.fits"))
    fetch(FolderPlace(folder), home, QUICK)
    assert content(home) == content(folder)


def test_a_home_is_for_one_at_a_time(home: Path) -> None:
    with at_home(home), pytest.raises(AlreadyRunning, match="is already running"), at_home(home):
        pass


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("https://ana:secret@host/run", "name or a password"),
        ("https://host/run?token=secret", "no [?]"),
        ("https:///run", "does not say where"),
        ("file://host/run", "does not say where"),
        ("ftp://host/run", "not by 'ftp'"),
        ("http://host:port/run", "cannot be read"),
    ],
)
def test_an_address_that_must_not_be_kept_is_refused_without_showing_it(address: str, says: str) -> None:
    with pytest.raises(WrongUse, match=says) as refused:
        check_address(address)
    assert isinstance(refused.value, L2Error)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("address", ["/data/run #3?", "run7", "file:///data/run7", "globus://aaa-bbb/x"])
def test_other_places_are_kept_as_they_are(address: str) -> None:
    assert check_address(address) == address
