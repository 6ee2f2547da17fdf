"""Starting and stopping: ports, errors, nothing left behind."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from dagster_l2.store.server import (
    Faults,
    LocalStoreServer,
    RecordSet,
    Rule,
    StoreServerFailed,
    running,
    serve,
    store_app,
)


def test_a_request_that_is_cut_off_at_the_end_is_nothing_to_say(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A command that was interrupted would print a traceback below its one sentence."""
    monkeypatch.setattr(running, "_GRACE_S", 1)
    has_come = threading.Event()

    async def hangs(scope: Scope, _receive: Receive, _send: Send) -> None:
        if scope["type"] == "http":
            has_come.set()
            await asyncio.sleep(300)

    with ThreadPoolExecutor(1) as pool, LocalStoreServer(hangs) as server:
        pool.submit(httpx.get, server.url, timeout=60)
        assert has_come.wait(60)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_it_stops_and_starts_again(tmp_path: Path) -> None:
    app = store_app(RecordSet(), inversions_file=tmp_path / "i.sqlite")
    threads = threading.active_count()
    for _ in range(2):
        with LocalStoreServer(app) as server:
            assert server.url.startswith("http://127.0.0.1:")
            assert httpx.get(f"{server.url}/healthz").status_code == 200
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.url}/healthz")
    assert threading.active_count() == threads


def test_a_given_port_is_taken_and_a_taken_one_refused(tmp_path: Path) -> None:
    app = store_app(RecordSet(), inversions_file=tmp_path / "i.sqlite")
    with LocalStoreServer(app) as server:
        port = int(server.url.rpartition(":")[2])
        with pytest.raises(StoreServerFailed, match=f"127.0.0.1:{port}"), LocalStoreServer(app, port=port):
            pass
        with pytest.raises(StoreServerFailed, match="choose another port"):
            serve(app, "127.0.0.1", port)
    with LocalStoreServer(app, port=port) as again:
        assert again.url == server.url
    with pytest.raises(StoreServerFailed, match="no port"):
        serve(app, "127.0.0.1", 70_000)
    with pytest.raises(StoreServerFailed, match=r"192\.0\.2\.1"):
        serve(app, "192.0.2.1", 0)


def test_it_stops_while_a_request_hangs(tmp_path: Path) -> None:
    faults = Faults([Rule("slow", seconds=60)])
    app = store_app(RecordSet(), inversions_file=tmp_path / "i.sqlite", faults=faults)
    failed: list[Exception] = []

    def ask(url: str) -> None:
        try:
            httpx.post(f"{url}/graphql", json={"query": "{__typename}"}, timeout=30)
        except httpx.HTTPError as error:
            failed.append(error)

    with LocalStoreServer(app) as server:
        thread = threading.Thread(target=ask, args=(server.url,))
        thread.start()
        while not faults.as_json()[0]["fired"]:
            time.sleep(0.01)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    thread.join()


def test_requests_run_side_by_side(tmp_path: Path) -> None:
    faults = Faults([Rule("slow", seconds=0.5)])
    app = store_app(RecordSet(), inversions_file=tmp_path / "i.sqlite", faults=faults)
    with LocalStoreServer(app) as server:
        threads = [
            threading.Thread(
                target=httpx.post, args=(f"{server.url}/graphql",), kwargs={"json": {"query": "{__typename}"}}
            )
            for _ in range(6)
        ]
        began = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert time.monotonic() - began < 2.5
    assert len(app.state.requests) == 6
