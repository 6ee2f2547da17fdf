"""What another try would change is tried again; anything else is refused with its reason."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from fetching_world import QUICK, Answer, Server, at, content, cut
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse

from dagster_l2.base.errors import L2Error, WrongUse, error_class
from dagster_l2.products import (
    PRODUCT_FILES,
    FolderPlace,
    HttpPlace,
    Limits,
    ProductsRefused,
    ProductsUnreachable,
    check_address,
    fetch,
)


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
