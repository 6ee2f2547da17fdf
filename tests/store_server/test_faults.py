"""The server told to misbehave: each way, how often, and over HTTP."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from dagster_l2.store.server import Faults, LocalStoreServer, RecordSet, Rule, generate, store_app
from tests.store_server.conftest import Store
from tests.store_server.test_inversions import CREATE, params, published

QUERY = {"query": "{ datasetInventories { datasetId } }"}


@pytest.fixture
def store(serve: Callable[..., Store]) -> Store:
    return serve(generate(5, seed=1), allow_faults=True)


def post(store: Store) -> httpx.Response:
    return store.http.post("/graphql", json=QUERY)


def test_without_faults_it_behaves(store: Store) -> None:
    assert post(store).json()["data"]["datasetInventories"]
    assert store.app.state.faults.as_json() == []


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "7"}, {"Retry-After": "soon"}], ids=str)
def test_status_with_any_headers(store: Store, headers: dict[str, str]) -> None:
    store.app.state.faults.add("status", status=429, headers=headers, times=1)
    response = post(store)
    assert response.status_code == 429
    assert response.headers.get("Retry-After") == headers.get("Retry-After")
    assert post(store).status_code == 200


def test_slow(store: Store) -> None:
    store.app.state.faults.add("slow", seconds=0.3, times=1)
    began = time.monotonic()
    assert post(store).json()["data"]
    assert time.monotonic() - began >= 0.3


def test_html_with_200(store: Store) -> None:
    store.app.state.faults.add("html")
    response = post(store)
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert response.text.startswith("<!DOCTYPE html>")


def test_an_empty_body(store: Store) -> None:
    store.app.state.faults.add("html", body="")
    assert post(store).content == b""


def test_cut_breaks_off_inside_the_body(store: Store) -> None:
    whole = post(store).content
    store.app.state.faults.add("cut", times=1)
    with store.http.stream("POST", "/graphql", json=QUERY) as response:
        assert int(response.headers["content-length"]) == len(whole)
        got: list[bytes] = []
        with pytest.raises(httpx.RemoteProtocolError):
            got.extend(response.iter_bytes())
    assert b"".join(got) == whole[: len(whole) // 2]
    assert post(store).content == whole


def test_errors_inside_200(store: Store) -> None:
    store.app.state.faults.add("graphql_errors", message="boom", times=1)
    assert post(store).json() == {"data": None, "errors": [{"message": "boom"}]}
    store.app.state.faults.add("graphql_errors", message="bang", with_data=True, times=1)
    answer = post(store).json()
    assert answer["errors"] == [{"message": "bang"}]
    assert answer["data"]["datasetInventories"]


def test_rate(store: Store) -> None:
    store.app.state.faults.add("rate", n=2, seconds=0.5, headers={"Retry-After": "1"})
    responses = [post(store) for _ in range(4)]
    assert [response.status_code for response in responses] == [200, 200, 429, 429]
    assert responses[-1].headers["Retry-After"] == "1"
    time.sleep(0.6)
    assert post(store).status_code == 200


@pytest.mark.parametrize("off", [3, -2, -10_000])
def test_wrong_count(store: Store, off: int) -> None:
    true = store.count()
    store.app.state.faults.add("wrong_count", n=off)
    assert store.count() == max(0, true + off)
    assert store.http.get("/datasets/v1").json()["recordCount"] == max(0, true + off)
    assert len(store.ids()) == true


def test_empty_answers_as_a_store_without_records(store: Store) -> None:
    store.app.state.faults.add("empty")
    assert store.count() == 0
    assert store.ids() == []
    assert store.data("{ experimentDescriptions { experimentId } }") == {"experimentDescriptions": []}
    assert store.http.get("/datasets/v1").json() == {"recordCount": 0, "searchResults": []}


def test_crash_after_create_keeps_the_record(store: Store) -> None:
    store.app.state.faults.add("crash_after_create", times=1)
    assert store.count() > 0
    with pytest.raises(httpx.RemoteProtocolError, match="without sending"):
        store.http.post("/graphql", json={"query": CREATE, "variables": {"p": params()}})
    assert [row["inversionId"] for row in published(store)] == ["inv.ABC123"]
    assert "duplicate key" in store.answer(CREATE, {"p": params()})["errors"][0]["message"]


def test_match_skip_and_times(store: Store) -> None:
    store.app.state.faults.add("status", match="datasetInventories {", skip=1, times=2)
    assert store.count() > 0
    assert [post(store).status_code for _ in range(5)] == [200, 503, 503, 200, 200]
    (rule,) = store.app.state.faults.as_json()
    assert (rule["matched"], rule["fired"]) == (5, 2)


def test_match_sees_variables_and_public_queries(store: Store) -> None:
    store.app.state.faults.add("status", match="inv.WRONG1")
    answer = store.http.post("/graphql", json={"query": CREATE, "variables": {"p": params("inv.WRONG1")}})
    assert answer.status_code == 503
    store.app.state.faults.add("status", status=500, match="pageNumber=2")
    assert store.http.get("/datasets/v1?pageNumber=1").status_code == 200
    assert store.http.get("/datasets/v1?pageNumber=2").status_code == 500


def test_faults_over_http(store: Store) -> None:
    rules = [{"kind": "slow", "seconds": 0}, {"kind": "status", "status": 418, "times": 1}]
    answer = store.http.post("/_faults", json=rules)
    assert answer.status_code == 200
    assert [rule["kind"] for rule in answer.json()] == ["slow", "status"]
    assert [post(store).status_code for _ in range(2)] == [418, 200]
    assert [rule["fired"] for rule in store.http.get("/_faults").json()] == [2, 1]
    assert store.http.delete("/_faults").json() == []


@pytest.mark.parametrize(
    "rules",
    [
        {"kind": "slow"},
        [{"kind": "nosuch"}],
        [{"kind": "status", "status": "503"}],
        [{"kind": "status", "status": 9}],
        [{"kind": "status", "headers": ["x"]}],
        [{"kind": "slow", "second": 1}],
        [{"kind": ["slow"]}],
        ["slow"],
        "",
    ],
)
def test_a_wrong_fault_is_refused_and_nothing_changes(store: Store, rules: Any) -> None:
    store.app.state.faults.set([Rule("empty")])
    answer = store.http.post("/_faults", json=rules)
    assert answer.status_code == 400
    assert answer.json()["message"]
    assert [rule["kind"] for rule in store.app.state.faults.as_json()] == ["empty"]


def test_without_allow_faults_nobody_sets_them(serve: Callable[..., Store]) -> None:
    faults = Faults([Rule("status", times=1)])
    store = serve(faults=faults)
    assert store.http.post("/_faults", json=[]).status_code == 404
    assert [post(store).status_code for _ in range(2)] == [503, 200]


SERVE = """
import sys
from dagster_l2.store.server import Faults, RecordSet, Rule, serve, store_app
faults = Faults([Rule("crash_after_create", exit=True)])
serve(store_app(RecordSet(), inversions_file=sys.argv[1], faults=faults), "127.0.0.1", int(sys.argv[2]))
"""


def test_a_process_that_dies_after_the_create_has_kept_it(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    file = tmp_path / "i.sqlite"
    with subprocess.Popen([sys.executable, "-c", SERVE, str(file), str(port)]) as process:
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}") as http:
                _wait_for(http, process)
                with pytest.raises(httpx.TransportError):
                    http.post("/graphql", json={"query": CREATE, "variables": {"p": params()}})
            assert process.wait(timeout=10) == 70
        finally:
            process.kill()
    app = store_app(RecordSet(), inversions_file=file)
    with LocalStoreServer(app) as server, httpx.Client(base_url=server.url) as http:
        kept = published(Store(server.url, app, http))
    assert [row["inversionId"] for row in kept] == ["inv.ABC123"]


def _wait_for(http: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        assert process.poll() is None, "the server did not start"
        try:
            http.get("/healthz")
        except httpx.TransportError:
            time.sleep(0.05)
        else:
            return
    pytest.fail("the server did not answer in 30 seconds")
