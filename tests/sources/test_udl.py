"""The client of the UDL against the real server: patience, pages and counts."""

from __future__ import annotations

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from dagster_l2.base.errors import L2Error
from dagster_l2.batch import FailureClass
from dagster_l2.sources.udl_errors import (
    CountMismatch,
    UdlAnswerInvalid,
    UdlError,
    UdlRefused,
    UdlStopped,
    UdlTurnedDown,
    UdlUnreachable,
)
from dagster_l2.store.server.reach_generate import ReachFleet
from dagster_l2.store.server.udl import HeldObservations
from tests.sources.reach_kit import (
    COUNT,
    DAY,
    LIST,
    MINUTES,
    UdlWorld,
    held,
    question,
    row,
    seconds,
)


def ids(records: list[Any]) -> list[str]:
    return [record["id"] for record in records]


WHOLE = ids(seconds(20))


def test_it_asks_as_the_udl_wants_it(udl: UdlWorld) -> None:
    with udl.client() as client:
        client.observations(question(sensor="REACH-101"), is_counted=True)
    rest = "&idSensor=REACH-101&source=Aerospace&dataMode=REAL&descriptor=QUICKLOOK"
    span = "obTime=2025-05-01T00:00:00.000Z..2025-05-01T00:05:00.000Z"
    assert udl.asked == [
        (LIST, f"{span}{rest}&sort=obTime&maxResults=10000"),
        (COUNT, f"{span}{rest}"),
    ]
    assert (udl.pace.granted, udl.pace.answered) == (2, 2)


# -- what passes by itself --------------------------------------------------------------------------------


@pytest.mark.parametrize(("fault", "turned_down"), [
    ({"kind": "status", "status": 429, "headers": {"Retry-After": "7"}}, ["7", "7"]),
    ({"kind": "status", "status": 429}, [None, None]),
    ({"kind": "status", "status": 503, "headers": {"Retry-After": "soon"}}, ["soon", "soon"]),
    ({"kind": "status", "status": 500}, []),
    ({"kind": "status", "status": 502, "body": "<html>"}, []),
    ({"kind": "status", "status": 408}, []),
    ({"kind": "status", "status": 204, "body": ""}, []),
    ({"kind": "html"}, []),
    ({"kind": "html", "body": ""}, []),
    ({"kind": "html", "body": "[{"}, []),
    ({"kind": "html", "body": "null"}, []),
    ({"kind": "graphql_errors"}, []),
    ({"kind": "cut"}, []),
    ({"kind": "cut", "chunked": True}, []),
    ({"kind": "slow", "seconds": 0.6}, []),
])  # fmt: skip
def test_what_passes_by_itself_is_asked_again(
    udl: UdlWorld, fault: dict[str, Any], turned_down: list[str | None]
) -> None:
    udl.faults.add(times=2, **fault)
    with udl.client(timeout_s=0.3) as client:
        observed = client.observations(question(), is_counted=True)
    assert ids(observed.records) == WHOLE
    assert udl.paths == [LIST] * 3 + [COUNT]
    assert udl.pace.granted == 4
    assert udl.pace.turned_down == turned_down


@pytest.mark.parametrize("fault", [
    {"kind": "html"},
    {"kind": "html", "body": ""},
    {"kind": "html", "body": '{"message": "no records"}'},
    {"kind": "status", "status": 204, "body": ""},
    {"kind": "cut", "chunked": True},
    {"kind": "status", "status": 500, "body": "[]"},
    {"kind": "status", "status": 404, "body": "[]"},
    {"kind": "status", "status": 410, "body": "[]"},
    {"kind": "status", "status": 302, "headers": {"Location": "/login"}, "body": "[]"},
], ids=str)  # fmt: skip
def test_nothing_but_an_empty_list_with_200_is_empty(udl: UdlWorld, fault: dict[str, Any]) -> None:
    udl.clear()
    with udl.client(budget_s=0.0) as client:
        assert client.observations(question()).records == []
        udl.faults.add(**fault)
        with pytest.raises(UdlError) as failed:
            client.observations(question())
        with pytest.raises(UdlError):
            client.count(question())
    is_final = fault.get("status") in (302, 404, 410)
    assert failed.value.failure_class is (FailureClass.PERMANENT if is_final else FailureClass.PASSING)
    assert failed.value.transient is not is_final
    assert udl.url in str(failed.value)


@pytest.mark.parametrize("body", ["", "many", "-1", "1.5", "[]", "<html>"])
def test_a_count_is_a_number(udl: UdlWorld, body: str) -> None:
    udl.faults.add("html", body=body, match="/count")
    with udl.client(budget_s=0.0) as client, pytest.raises(UdlAnswerInvalid, match="no number"):
        client.count(question())


def test_being_turned_down_uses_up_no_tries(udl: UdlWorld) -> None:
    udl.faults.add("status", status=429, times=6)
    with udl.client(budget_s=0.0) as client:
        assert ids(client.observations(question()).records) == WHOLE
    assert len(udl.pace.turned_down) == 6
    udl.faults.add("status", status=429)
    with udl.client(patience_s=0.2) as client:
        began = time.monotonic()
        with pytest.raises(UdlTurnedDown, match="HTTP 429") as failed:
            client.observations(question())
    assert time.monotonic() - began < 2
    assert failed.value.failure_class is FailureClass.PASSING


def test_failing_tries_last_as_long_as_their_budget(udl: UdlWorld) -> None:
    udl.faults.add("status", status=500)
    with udl.client(budget_s=0.4) as client, pytest.raises(UdlUnreachable, match="HTTP 500"):
        client.observations(question())
    assert len(udl.asked) > 8  # many tries: time bounds them, not their number
    udl.faults.clear()
    udl.faults.add("status", status=500, times=30)
    with udl.client() as client:
        assert ids(client.observations(question()).records) == WHOLE


def test_who_looks_on_is_warned_of_what_keeps_failing_and_not_of_a_hiccup(
    udl: UdlWorld, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    udl.faults.add("status", status=500, times=3)
    with udl.client() as client:
        client.observations(question())
        assert caplog.records == []
        monkeypatch.setattr("dagster_l2.sources.udl._TELL_AFTER_S", 0.0)
        udl.faults.add("status", status=500, times=9)
        client.observations(question())
    assert [line.levelname for line in caplog.records] == ["WARNING"]
    assert "is failing (HTTP 500)" in caplog.text
    assert "asked again" in caplog.text


def test_an_answer_that_never_ends_is_given_up(udl: UdlWorld) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                try:
                    while True:
                        connection.sendall(b"1\r\n \r\n")
                        time.sleep(0.01)
                except OSError:
                    return

        thread = threading.Thread(target=drip)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with (
            udl.client(url, total_timeout_s=0.2, budget_s=0.0) as client,
            pytest.raises(UdlUnreachable, match="in time"),
        ):
            client.observations(question())
        thread.join()


def test_closing_ends_the_waiting(udl: UdlWorld) -> None:
    udl.faults.add("status", status=500)
    client = udl.client(first_wait_s=60.0, longest_wait_s=60.0, budget_s=600.0)
    raised: list[Exception] = []

    def ask() -> None:
        try:
            client.observations(question())
        except UdlError as error:
            raised.append(error)

    thread = threading.Thread(target=ask)
    thread.start()
    while not udl.asked:
        time.sleep(0.005)
    client.close()
    thread.join(timeout=2)
    assert [type(error) for error in raised] == [UdlStopped]
    with pytest.raises(UdlStopped):
        client.count(question())


# -- what does not ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("status", "error", "exit_code"), [
    (400, UdlError, 1), (401, UdlRefused, 2), (403, UdlRefused, 2), (404, UdlError, 1), (410, UdlError, 1),
])  # fmt: skip
def test_a_refusal_is_final_and_nothing_is_gone(
    udl: UdlWorld, status: int, error: type[L2Error], exit_code: int
) -> None:
    udl.faults.add("status", status=status, body="descriptor is not known")
    with udl.client() as client, pytest.raises(error, match=f"HTTP {status}") as failed:
        client.observations(question())
    assert type(failed.value) is error
    assert failed.value.exit_code == exit_code
    assert failed.value.failure_class is FailureClass.PERMANENT
    assert len(udl.asked) == 1
    assert ("descriptor is not known" in str(failed.value)) is (status == 400)


def test_a_udl_that_is_down_is_named(udl: UdlWorld) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    with (
        udl.client(url, budget_s=0.0) as client,
        pytest.raises(UdlUnreachable, match=f"{url} does not answer"),
    ):
        client.count(question())


# -- pages and counts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("page_size", [3, 7, 10, 19, 20, 21])
def test_pages_make_the_whole_and_agree_with_the_count(udl: UdlWorld, page_size: int) -> None:
    with udl.client(page_size=page_size) as client:
        observed = client.observations(question())
        assert ids(observed.records) == WHOLE
        assert observed.count == client.count(question()) == 20
        assert observed.bytes > 20 * 500


@pytest.mark.parametrize("limit", [1, 6, 20])
def test_a_limit_of_the_server_below_the_page_cuts_nothing(
    udl: UdlWorld, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = held(*seconds(20))
    udl.clear(whole)
    monkeypatch.setattr(udl.stock, "page", lambda ask, first, most: whole.page(ask, first, min(most, limit)))
    with udl.client() as client:
        for last in (5, 4, 5, 6, 19, 0, 30):
            found = client.observations(question(last / 60)).records
            assert ids(found) == WHOLE[: last + 1]


def test_a_day_of_even_chunks_needs_one_request_more_than_it_has_chunks(udl: UdlWorld) -> None:
    udl.clear(ReachFleet(satellites=1, cadence_s=20, quirks=False))
    with udl.client() as client, ThreadPoolExecutor(8) as pool:
        asked = [question(start=DAY + n * 5 * MINUTES, end=DAY + (n + 1) * 5 * MINUTES) for n in range(40)]
        found = list(pool.map(client.observations, asked))
    assert {len(observed.records) for observed in found} == {2 * 15 + 2}
    assert udl.paths == [LIST] * 41


@pytest.mark.parametrize("status", [500, 400])
def test_a_probe_that_fails_leaves_it_to_the_count(udl: UdlWorld, status: int) -> None:
    udl.faults.add("status", status=status, match="2025-04-30")
    with udl.client(budget_s=0.0) as client:
        assert client.observations(question()).count == 20


@pytest.mark.parametrize("off", [3, -3])
@pytest.mark.parametrize("page_size", [7, 10_000])
def test_a_count_that_stays_another_one_fails(udl: UdlWorld, off: int, page_size: int) -> None:
    udl.faults.add("wrong_count", n=off)
    with udl.client(page_size=page_size) as client:
        with pytest.raises(CountMismatch, match=f"counts {20 + off} .* sends 20") as failed:
            client.observations(question(), is_counted=True)
        assert failed.value.failure_class is FailureClass.PASSING
        udl.faults.clear()
        udl.faults.add("wrong_count", n=off, times=2)
        assert ids(client.observations(question(), is_counted=True).records) == WHOLE


@pytest.mark.parametrize("when", [2, 3, 4])
@pytest.mark.parametrize("second", [0.5, 19.5], ids=["first", "last"])
def test_a_record_that_arrives_between_pages_is_no_mismatch(udl: UdlWorld, when: int, second: float) -> None:
    moment = DAY + timedelta(seconds=second)
    late = row(moment, 99)
    stock = held(*seconds(20))
    udl.clear(stock)

    def arrive() -> None:
        if udl.pace.granted == when:
            stock.add([(moment, late)])

    udl.pace.before = arrive
    with udl.client(page_size=8) as client:
        found = ids(client.observations(question()).records)
    assert len(set(found)) == len(found)
    assert set(found) - {late["id"]} == set(WHOLE)


def test_a_record_that_goes_between_pages_loses_no_other(udl: UdlWorld) -> None:
    rows = seconds(20)
    udl.clear(held(*rows))

    def drop() -> None:
        if udl.pace.granted == 2:
            udl.stock.now = held(*rows[1:])

    udl.pace.before = drop
    with udl.client(page_size=8) as client:
        assert ids(client.observations(question()).records) == WHOLE[1:]


def test_what_the_server_holds_of_no_use_still_counts_as_sent(udl: UdlWorld) -> None:
    udl.clear(
        HeldObservations([(DAY, 7), (DAY, None), (DAY, {"lat": float("nan")}), (DAY, {"id": "\ud800"})])
    )
    with udl.client(page_size=3) as client:
        assert len(client.observations(question()).records) == 4
