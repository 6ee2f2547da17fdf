"""The client against the real local store, behaving and misbehaving."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from dagster_l2.store import (
    DuplicateInversion,
    StoreAnswerInvalid,
    StoreClient,
    StoreError,
    StoreQueryError,
    StoreReadOnly,
    StoreRefused,
    StoreUnreachable,
)
from dagster_l2.store.server import DEMO_NOW, Faults, LocalStoreServer, generate, store_app

TOKEN = "a-secret-token"
INVERSION = {
    "inversionId": "inv.ABC123",
    "primaryProposalId": "pid_1_1",
    "instrumentProgramExecutionId": "id.1.1",
    "bucket": "public",
    "datasetIds": ["AAAAA"],
    "spectralLines": ["Fe I (630.15 nm)"],
}


@pytest.fixture
def faults() -> Faults:
    return Faults()


@pytest.fixture
def url(tmp_path: Path, faults: Faults) -> Iterator[str]:
    app = store_app(
        generate(6, seed=3, now=DEMO_NOW),
        token=TOKEN,
        inversions_file=tmp_path / "inversions.sqlite",
        faults=faults,
    )
    with LocalStoreServer(app) as server:
        yield server.url


@pytest.fixture
def client(url: str) -> Iterator[StoreClient]:
    with StoreClient(url, token=TOKEN, timeout_s=2.0, attempts=3, first_wait_s=0.01) as client:
        yield client


def test_pages_hold_what_the_count_says(client: StoreClient) -> None:
    count = client.dataset_count()
    whole = client.datasets()
    paged = [
        record
        for page in range(1, count // 7 + 2)
        for record in client.datasets(page_size=7, page_number=page)
    ]
    assert count == len(whole) == len(paged) > 10
    assert {record["datasetId"] for record in whole} == {record["datasetId"] for record in paged}


def test_filters_take_moments_with_a_zone(client: StoreClient) -> None:
    dates = sorted(record["createDate"] for record in client.datasets())
    middle = datetime.fromisoformat(dates[len(dates) // 2]).replace(tzinfo=UTC)
    assert client.dataset_count({"createDateMin": middle}) in (len(dates) - len(dates) // 2, len(dates) // 2)


def test_the_public_search_gives_the_same_records(url: str, client: StoreClient) -> None:
    with StoreClient(url, kind="public") as public:
        ids = [
            record["datasetId"]
            for page in (1, 2)
            for record in public.datasets(page_size=300, page_number=page)
        ]
        assert public.dataset_count() == len(ids)
        assert sorted(ids) == sorted(record["datasetId"] for record in client.datasets())
        for refused in (lambda: public.inversions(), lambda: public.create_inversion(INVERSION)):
            with pytest.raises(StoreReadOnly, match="read only"):
                refused()


def test_a_wrong_token_is_one_sentence_that_does_not_show_it(url: str) -> None:
    with StoreClient(url, token="wrong-secret") as client:
        with pytest.raises(StoreRefused, match="L2_STORE_TOKEN") as refused:
            client.dataset_count()
        assert "wrong-secret" not in str(refused.value) + repr(client)


def test_a_store_that_is_down_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (
        StoreClient(f"http://127.0.0.1:{port}", attempts=2, first_wait_s=0.01) as client,
        pytest.raises(StoreUnreachable, match=f"http://127.0.0.1:{port} does not answer"),
    ):
        client.dataset_count()


@pytest.mark.parametrize("fault", [
    {"kind": "status", "status": 503},
    {"kind": "status", "status": 429, "headers": {"Retry-After": "0"}},
    {"kind": "status", "status": 429, "headers": {"Retry-After": "soon"}},
    {"kind": "status", "status": 429},
    {"kind": "html"},
    {"kind": "cut"},
    {"kind": "slow", "seconds": 3},
])  # fmt: skip
def test_what_passes_by_itself_is_tried_again(
    client: StoreClient, faults: Faults, fault: dict[str, Any]
) -> None:
    faults.add(times=1, **fault)
    assert client.dataset_count() > 10


@pytest.mark.parametrize(
    ("fault", "error", "words"),
    [
        ({"kind": "status", "status": 503}, StoreUnreachable, "HTTP 503"),
        ({"kind": "html"}, StoreAnswerInvalid, "a web page"),
        ({"kind": "cut"}, StoreUnreachable, "broke off"),
        ({"kind": "graphql_errors", "message": "boom"}, StoreQueryError, "boom"),
        ({"kind": "graphql_errors", "message": "boom", "with_data": True}, StoreQueryError, "boom"),
        ({"kind": "status", "status": 418}, StoreError, "HTTP 418"),
        ({"kind": "status", "status": 200, "body": "[1"}, StoreAnswerInvalid, "not JSON"),
        ({"kind": "status", "status": 200, "body": "[]"}, StoreAnswerInvalid, "no object"),
        ({"kind": "status", "status": 200, "body": "{}"}, StoreAnswerInvalid, "without data"),
    ],
)
def test_what_does_not_pass_is_one_sentence(
    client: StoreClient, faults: Faults, fault: dict[str, Any], error: type[StoreError], words: str
) -> None:
    faults.add(**fault)
    with pytest.raises(error, match=words) as raised:
        client.datasets()
    assert "\n" not in str(raised.value)
    faults.clear()
    assert client.datasets()


def test_an_inversion_is_created_once(client: StoreClient) -> None:
    created = client.create_inversion(INVERSION)
    assert created["createDate"]
    assert client.inversions("inv.ABC123") == [created]
    assert client.inversions(dataset_ids=["AAAAA"]) == [created]
    with pytest.raises(DuplicateInversion, match=r"inv\.ABC123"):
        client.create_inversion(INVERSION)


def test_a_create_whose_answer_is_lost_is_not_repeated_by_the_client(
    client: StoreClient, faults: Faults
) -> None:
    faults.add("crash_after_create", times=1)
    with pytest.raises(StoreUnreachable):
        client.create_inversion(INVERSION)
    assert len(client.inversions("inv.ABC123")) == 1


def test_ids_from_outside_break_no_query(client: StoreClient) -> None:
    for name in ('inv."}', "inv.\n", "../../x", "x" * 300, "}) { __typename"):
        assert client.inversions(name) == []
