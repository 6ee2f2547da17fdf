"""The UDL's observations over HTTP: spans, filters, pages, count, token, and each way to misbehave."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from dagster_l2.store.server.reach_generate import ReachFleet
from dagster_l2.store.server.udl import HeldObservations
from tests.store_server.conftest import Store

PATH = "/udl/spaceenvobservation"
START = datetime(2025, 5, 1, tzinfo=UTC)
SPAN = "2025-05-01T00:00:00.000Z..2025-05-01T00:05:00.000Z"
Serve = Callable[..., Store]


def held(*seconds: float, **more: Any) -> HeldObservations:
    return HeldObservations(
        (START + timedelta(seconds=offset), {"id": f"at {offset}", "idSensor": "REACH-101", **more})
        for offset in seconds
    )


def ids(store: Store, span: str = SPAN, **more: Any) -> list[str]:
    response = store.http.get(PATH, params={"obTime": span, **more})
    assert response.status_code == 200, response.text
    return [row["id"] for row in response.json()]


def count(store: Store, span: str = SPAN, **more: Any) -> str:
    response = store.http.get(f"{PATH}/count", params={"obTime": span, **more})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain")
    return response.text


def test_both_ends_belong_to_the_span(serve: Serve) -> None:
    store = serve(reach=held(-0.000001, 0, 299.9995, 300, 300.000001))
    assert ids(store) == ["at 0", "at 299.9995", "at 300"]
    assert count(store) == "3"
    assert ids(store, "2025-05-01T00:00:00.000Z..2025-05-01T00:04:59.999Z") == ["at 0"]
    assert ids(store, "2025-05-02T00:00:00Z..2025-05-03T00:00:00Z") == []


@pytest.mark.parametrize(("name", "value"), [
    ("idSensor", "REACH-101"), ("descriptor", "QUICKLOOK"), ("source", "Aerospace"), ("dataMode", "REAL"),
])  # fmt: skip
def test_filters_take_equal_values_only(serve: Serve, name: str, value: str) -> None:
    fleet = serve(reach=ReachFleet(satellites=2, cadence_s=60))
    one = serve(reach=HeldObservations([(START, {"id": "this", name: value})]))
    for store in (fleet, one):
        assert ids(store, **{name: value})
        assert ids(store, **{name: "another"}) == []
        assert count(store, **{name: "another"}) == "0"


def test_pages_hold_what_the_count_says(serve: Serve) -> None:
    store = serve(reach=ReachFleet(satellites=3, cadence_s=30), udl_page=25)
    total = int(count(store))
    pages = [ids(store, firstResult=first, maxResults=20) for first in range(0, total + 20, 20)]
    assert [len(page) for page in pages[:3]] == [20, 20, 20]
    assert len({i for page in pages for i in page}) == sum(map(len, pages)) == total
    assert len(ids(store)) == len(ids(store, maxResults=1000)) == 25


@pytest.mark.parametrize("asked", [
    {},
    {"obTime": "2025-05-01T00:00:00.000Z"},
    {"obTime": "yesterday..today"},
    {"obTime": SPAN, "maxResults": "-1"},
    {"obTime": SPAN, "firstResult": "x"},
    {"obTime": SPAN, "sort": "idSensor"},
    {"obTime": SPAN, "sensor": "REACH-101"},
])  # fmt: skip
def test_a_wrong_question_is_400_with_a_reason(serve: Serve, asked: dict[str, str]) -> None:
    response = serve(reach=held(0)).http.get(PATH, params=asked)
    assert response.status_code == 400
    assert response.json()["message"]


def test_the_token_follows_basic(serve: Serve) -> None:
    store = serve(reach=held(0), udl_token="dXNlcjpwYXNz", token="of the other door")
    asked = {"params": {"obTime": SPAN}}
    for path in (PATH, f"{PATH}/count"):
        for wrong in ({}, {"Authorization": "dXNlcjpwYXNz"}, {"Authorization": "Basic x"}):
            assert store.http.get(path, headers=wrong, **asked).status_code == 401
        right = {"Authorization": "Basic dXNlcjpwYXNz"}
        assert store.http.get(path, headers=right, **asked).status_code == 200


def test_every_request_is_in_the_log(serve: Serve) -> None:
    store = serve(reach=held(0))
    ids(store, idSensor="REACH-101")
    count(store)
    store.http.get(PATH)
    assert [names for _, names in store.app.state.requests] == [
        (PATH, f"obTime={SPAN}&idSensor=REACH-101"),
        (f"{PATH}/count", f"obTime={SPAN}"),
        (PATH, ""),
    ]


def test_it_misbehaves_as_told(serve: Serve) -> None:
    store = serve(reach=held(0, 1, 2))
    faults = store.app.state.faults

    def get() -> httpx.Response:
        return store.http.get(PATH, params={"obTime": SPAN})

    faults.add("status", status=503, headers={"Retry-After": "soon"}, match=f"obTime={SPAN}", times=1)
    assert (get().status_code, get().status_code) == (503, 200)
    faults.set([])
    faults.add("rate", n=2, seconds=30)
    assert [get().status_code for _ in range(3)] == [200, 200, 429]
    faults.set([])
    faults.add("html", times=1)
    response = get()
    assert (response.status_code, response.text[:9]) == (200, "<!DOCTYPE")
    faults.add("slow", seconds=0.2, times=1)
    began = time.monotonic()
    assert len(get().json()) == 3
    assert time.monotonic() - began >= 0.2
    faults.add("wrong_count", n=-1)
    assert count(store) == "2"
    faults.add("empty")
    assert (ids(store), count(store)) == ([], "0")


@pytest.mark.parametrize("chunked", [False, True])
def test_a_cut_body_lacks_its_end(serve: Serve, chunked: bool) -> None:
    store = serve(reach=held(0, 1, 2))
    whole = store.http.get(PATH, params={"obTime": SPAN}).content
    store.app.state.faults.add("cut", times=1, chunked=chunked)
    got: list[bytes] = []
    with store.http.stream("GET", PATH, params={"obTime": SPAN}) as response:
        assert ("content-length" in response.headers) is not chunked
        assert (response.headers.get("transfer-encoding") == "chunked") is chunked
        with pytest.raises(httpx.RemoteProtocolError):
            got.extend(response.iter_bytes())
    assert b"".join(got) == whole[: len(whole) // 2]


def test_what_is_no_record_goes_out_as_it_is(serve: Serve) -> None:
    store = serve(reach=HeldObservations([(START, 7), (START, {"id": "x", "lat": float("nan")})]))
    assert store.http.get(PATH, params={"obTime": SPAN}).content == b'[7, {"id": "x", "lat": NaN}]'


def test_an_answer_does_not_wait_for_the_acknowledgement_of_its_head(serve: Serve) -> None:
    store = serve(reach=held(0))
    waits = []
    for _ in range(30):
        began = time.perf_counter()
        ids(store)
        waits.append(time.perf_counter() - began)
    assert min(waits[15:]) < 0.03
