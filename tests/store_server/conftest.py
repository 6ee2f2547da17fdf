"""A running local store for each test, and a plain HTTP client beside it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from dagster_l2.store.server import LocalStoreServer, RecordSet, store_app


class Store:
    """One running store, asked over HTTP."""

    def __init__(self, url: str, app: Any, http: httpx.Client) -> None:
        self.url = url
        self.app = app
        self.http = http

    def answer(self, query: str, variables: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        """The whole answer of a GraphQL request that must be 200."""
        response = self.http.post("/graphql", json={"query": query, "variables": variables, **more})
        assert response.status_code == 200, response.text
        content: dict[str, Any] = json.loads(response.content)
        return content

    def data(self, query: str, variables: dict[str, Any] | None = None) -> Any:
        """The data of an answer without errors."""
        content = self.answer(query, variables)
        assert "errors" not in content, content
        return content["data"]

    def ids(self, **params: Any) -> list[str]:
        """The ids of the datasets that these filterParams find, in order."""
        query = "query ($p: DatasetInventoriesRequest) { datasetInventories(filterParams: $p) { datasetId } }"
        return [row["datasetId"] for row in self.data(query, {"p": params})["datasetInventories"]]

    def count(self, **params: Any) -> int:
        """The record count for these filterParams."""
        query = (
            "query ($p: DatasetInventoryRecordCountRequest)"
            " { datasetInventoriesRecordCount(filterParams: $p) { recordCount } }"
        )
        found: int = self.data(query, {"p": params})["datasetInventoriesRecordCount"]["recordCount"]
        return found


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """Start stores; all of them end with the test."""
    with ExitStack() as stack:

        def start(records: RecordSet | None = None, **options: Any) -> Store:
            options.setdefault("inversions_file", tmp_path / "inversions.sqlite")
            app = store_app(records or RecordSet(), **options)
            server = stack.enter_context(LocalStoreServer(app))
            http = stack.enter_context(httpx.Client(base_url=server.url, timeout=10))
            return Store(server.url, app, http)

        yield start


@pytest.fixture
def serve_rows(serve: Callable[..., Store], tmp_path: Path) -> Callable[..., Store]:
    """Start a store over dataset records, dumped to a file and loaded again."""

    def start(*rows: dict[str, Any], **options: Any) -> Store:
        dump = tmp_path / "dump.json"
        dump.write_text(json.dumps({"data": {"datasetInventories": rows}}), encoding="utf-8")
        return serve(RecordSet.load([dump]), **options)

    return start
