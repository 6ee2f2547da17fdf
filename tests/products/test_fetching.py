"""Products come home whole, from a folder and over HTTP, whatever happens on the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from fetching_world import INVERSION, MODEL, OP, QUICK, Server, at, content, cut
from starlette.requests import Request
from starlette.responses import Response

from dagster_l2.base.files import AlreadyRunning, sha256, watch_steps
from dagster_l2.products import (
    MANIFEST_FILE,
    PRODUCT_FILES,
    FolderPlace,
    Limits,
    ProductsUnreachable,
    at_home,
    fetch,
    seal,
    verify,
)


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
