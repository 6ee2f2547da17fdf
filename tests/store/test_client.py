"""The client against the real local store, behaving and misbehaving."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
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


def test_records_and_their_number_come_in_one_answer(client: StoreClient, faults: Faults) -> None:
    dates = sorted(record["createDate"] for record in client.datasets())
    asked = {
        "createDateMin": datetime.fromisoformat(dates[3]).replace(tzinfo=UTC) + timedelta(microseconds=1)
    }
    records, count = client.counted_datasets(asked)
    assert count == len(records) == len(dates) - 4
    faults.add("status", skip=1)
    client.counted_datasets(asked)
    faults.clear()
    faults.add("wrong_count", n=2)
    records, count = client.counted_datasets(asked)
    assert count == len(records) + 2


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


class Remembering:
    """A pace that grants at once and keeps what it was told."""

    def __init__(self) -> None:
        self.granted = 0
        self.told: list[tuple[str, float, str | None]] = []

    def acquire(self) -> float:
        self.granted += 1
        return float(self.granted)

    def succeeded(self, granted_at: float, headers: Mapping[str, str]) -> None:
        self.told.append(("succeeded", granted_at, headers.get("Content-Type")))

    def congested(self, granted_at: float, headers: Mapping[str, str]) -> None:
        self.told.append(("congested", granted_at, headers.get("Retry-After")))


@pytest.mark.parametrize("status", [429, 503])
def test_every_request_has_a_grant_and_the_pace_hears_how_it_went(
    url: str, faults: Faults, status: int
) -> None:
    faults.add("status", status=status, times=2, headers={"Retry-After": "9"} if status == 429 else {})
    pace = Remembering()
    with StoreClient(url, token=TOKEN, first_wait_s=0.01, pace=pace) as client:
        began = time.monotonic()
        assert len(client.datasets()) == client.dataset_count()
        assert time.monotonic() - began < 5  # to wait as long as the store asks is the pace's part
    said = "9" if status == 429 else None
    assert pace.told == [
        ("congested", 1.0, said),
        ("congested", 2.0, said),
        ("succeeded", 3.0, "application/json"),
        ("succeeded", 4.0, "application/json"),
    ]
    assert pace.granted == 4


def test_an_answer_that_never_came_is_neither(url: str, faults: Faults) -> None:
    faults.add("cut", times=1)
    pace = Remembering()
    with StoreClient(url, token=TOKEN, first_wait_s=0.01, pace=pace) as client:
        client.dataset_count()
    assert (pace.granted, [what for what, _, _ in pace.told]) == (2, ["succeeded"])


def test_being_turned_down_uses_up_no_try(url: str, faults: Faults) -> None:
    faults.add("status", status=429, times=6)
    with StoreClient(url, token=TOKEN, attempts=1, first_wait_s=0.001) as client:
        assert client.dataset_count() > 10


def test_being_turned_down_for_ever_ends_with_the_patience(url: str, faults: Faults) -> None:
    faults.add("status", status=429)
    began = time.monotonic()
    with (
        StoreClient(url, token=TOKEN, attempts=1, first_wait_s=0.05, patience_s=0.3) as client,
        pytest.raises(StoreUnreachable, match="HTTP 429"),
    ):
        client.dataset_count()
    assert 0.1 < time.monotonic() - began < 2


@pytest.mark.parametrize("status", [429, 503])
def test_without_a_pace_the_client_waits_as_long_as_it_is_told(
    client: StoreClient, faults: Faults, status: int
) -> None:
    faults.add("status", status=status, times=1, headers={"Retry-After": "0.5"})
    began = time.monotonic()
    assert client.dataset_count() > 10
    assert time.monotonic() - began >= 0.5


def test_a_wait_that_is_longer_than_the_patience_is_not_begun(url: str, faults: Faults) -> None:
    faults.add("status", status=429, headers={"Retry-After": "50"})
    began = time.monotonic()
    with (
        StoreClient(url, token=TOKEN, patience_s=5) as client,
        pytest.raises(StoreUnreachable, match="HTTP 429"),
    ):
        client.dataset_count()
    assert time.monotonic() - began < 5


def test_one_odd_record_leaves_its_page_as_it_was_sent(client: StoreClient, faults: Faults) -> None:
    body = '{"data": {"datasetInventories": [{"datasetId": "A", "frameCount": NaN}, {"datasetId": 7}, null]}}'
    faults.add("status", status=200, body=body, times=1)
    sent = list(client.datasets())
    assert [sent[1], sent[2]] == [{"datasetId": 7}, None]
    assert sent[0]["frameCount"] != sent[0]["frameCount"]
