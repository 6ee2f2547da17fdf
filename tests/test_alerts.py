"""Alerts: each cause once, none lost while the receiver is down, over real HTTP and SMTP servers."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import dagster as dg
import duckdb
import pytest
import sqlalchemy as sa
from aiosmtpd.controller import Controller

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.batch import batch_attempts
from dagster_l2.cli import _run
from dagster_l2.ledger import Delivery, Ledger, State
from dagster_l2.operations.alerts import FailedRun, tell, ways_of
from dagster_l2.operations.outcomes import INTERRUPTED, failed_runs, forget_old_runs
from dagster_l2.pipeline.wiring import open_ledger
from dagster_l2.resources import L2, one_sentence
from dagster_l2.sensors import build_alert_sensor
from dagster_l2.settings import Settings, load_settings
from dagster_l2.sources import TooManyMissing

pytestmark = pytest.mark.xdist_group("dagster")

SEEDS = Path(__file__).resolve().parents[1] / "dbt_project" / "seeds" / "states"
NOW = datetime.now(UTC)


class Receiver:
    """A webhook that keeps what comes, and can be out of order."""

    def __init__(self) -> None:
        self.bodies: list[dict[str, Any]] = []
        self.status = 204
        self.refused: str | None = None
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                is_odd = body["details"].get("job") == receiver.refused is not None
                status = 422 if is_odd else receiver.status
                if status < 300:
                    receiver.bodies.append(body)
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_arguments: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/hook"
        Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Mailbox:
    """What the mail server took."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, _server: object, _session: object, envelope: Any) -> str:
        self.mails.append(message_from_bytes(envelope.content, policy=policy.default))  # type: ignore[arg-type]
        return "250 OK"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.stop()


@pytest.fixture
def settings(data: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("L2_ALERT_URL", receiver.url)
    return load_settings()


@pytest.fixture
def ledger(settings: Settings) -> Iterator[Ledger]:
    with open_ledger(settings) as ledger:
        yield ledger


def _gold(settings: Settings) -> None:
    with duckdb.connect(str(settings.gold)) as gold:
        for table in ("state_rules", "priority_parts"):
            gold.execute(f"create table {table} as from read_csv('{SEEDS / table}.csv')")
        gold.execute("create table work_queue (op_id varchar)")


def _run_that_failed(**changes: Any) -> FailedRun:
    said = {
        "run_id": "0123456789abcdef", "job": "whole_pass", "sentence": "The store at port 8765 is away.",
        "error": "StoreError", "ended_at": NOW, "after": None,
    }  # fmt: skip
    return FailedRun(**{**said, **changes})


def test_nothing_is_recorded_or_sent_where_no_way_is_set(data: Path) -> None:
    with open_ledger(load_settings()) as ledger:
        assert tell(load_settings(), ledger, [_run_that_failed()]) == 0
        assert ledger.alerts() == []


def test_an_overdue_op_is_told_once_with_who_and_where_to_look(
    settings: Settings, ledger: Ledger, receiver: Receiver
) -> None:
    _gold(settings)
    long_ago = NOW - timedelta(days=400)
    for step in (State.DISCOVERED, State.INVERTIBLE, State.PREPROCESSED, State.WORKING):
        details = {"claimed_by": "ann"} if step is State.WORKING else {}
        ledger.append("op1", step, actor="ann", cause="c", occurred_at=long_ago, details=details)
    assert tell(settings, ledger, []) == 1
    assert tell(settings, ledger, []) == 0
    (body,) = receiver.bodies
    assert (body["kind"], body["responsible"], body["look"]) == ("overdue", "ann", "l2 show op1")
    assert "400.0 days" in body["what"]
    assert body["details"] == {"op_id": "op1", "state": "Working"}
    # Released and waiting too long again is another cause.
    ledger.append("op1", State.PREPROCESSED, actor="ann", cause="released", occurred_at=long_ago)
    assert tell(settings, ledger, []) == 1
    assert receiver.bodies[1]["id"] != body["id"]


def test_a_receiver_that_is_down_loses_nothing(
    settings: Settings, ledger: Ledger, receiver: Receiver
) -> None:
    receiver.status = 503
    assert tell(settings, ledger, [_run_that_failed()]) == 0
    assert tell(settings, ledger, []) == 0  # the cause is gone, the alert is not
    receiver.status = 200
    assert tell(settings, ledger, [_run_that_failed(job="handover", run_id="fedcba9876543210")]) == 2
    assert [body["details"]["job"] for body in receiver.bodies] == ["whole_pass", "handover"]
    assert [list(alert.delivered) for alert in ledger.alerts()] == [["webhook"], ["webhook"]]
    receiver.stop()
    assert tell(settings, ledger, [_run_that_failed(job="scan_store")]) == 0


def test_an_alert_that_is_not_taken_or_hard_to_write_down_stops_no_other(
    settings: Settings, ledger: Ledger, receiver: Receiver
) -> None:
    receiver.refused = "whole_pass"
    odd = _run_that_failed(job="handover" + "Ω" * 2000, sentence="no \ud800 file \0")
    for sent in (2, 0):
        assert tell(settings, ledger, [_run_that_failed(), odd, _run_that_failed(job="scan_store")]) == sent
    assert "no ? file ?" in receiver.bodies[0]["what"]
    receiver.refused = None
    assert tell(settings, ledger, []) == 1
    assert [body["details"]["job"] for body in receiver.bodies[1:]] == ["scan_store", "whole_pass"]


def test_a_run_that_fails_again_for_the_same_reason_is_one_cause_until_one_goes_well(
    settings: Settings, ledger: Ledger, receiver: Receiver
) -> None:
    first, again = _run_that_failed(), _run_that_failed(
        run_id="00ff", sentence="The store at port 8766 is away."
    )  # fmt: skip
    assert tell(settings, ledger, [first, again]) == 1
    assert tell(settings, ledger, [_run_that_failed(sentence="The disk is full.")]) == 1
    assert tell(settings, ledger, [_run_that_failed(after="a-good-run")]) == 1
    assert tell(settings, ledger, [_run_that_failed(ended_at=NOW - timedelta(days=30), after="x")]) == 0


def test_refused_handovers_are_told_to_who_said_ready(
    settings: Settings, ledger: Ledger, receiver: Receiver
) -> None:
    for step in (State.DISCOVERED, State.INVERTIBLE, State.PREPROCESSED):
        ledger.append("op1", step, actor="t", cause="c", details={"dataset_ids": ["A"]})
    ledger.claim("op1", actor="ann")
    event = ledger.submit_ready("op1", products="/p", commit_hash="0123456", actor="ann")

    def cut_short(_event: object) -> dict[str, Any]:
        raise ValueError("model.fits is cut short")

    ledger.settle(event, cut_short, run_id=None, actor="t", refusals=(ValueError,))
    ledger.refuse_delivery(Delivery("d1", "file", "bad.json"), "It is no ready event.", "{")
    assert tell(settings, ledger, []) == 2
    refused, malformed = receiver.bodies
    assert refused["what"].endswith("was refused: model.fits is cut short")
    assert (refused["responsible"], refused["look"]) == ("ann", "l2 show op1")
    assert "bad.json" in malformed["what"]
    assert (malformed["responsible"], malformed["look"]) == ("operator", "l2 inbox")
    assert tell(settings, ledger, []) == 0


def test_coverage_under_the_floor_is_told_once_for_the_same_days(
    settings: Settings, ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("L2_AVAILABILITY_FLOOR", "90")
    settings = load_settings()

    def attempt(job: str, day: int, percent: float) -> None:
        start = NOW - timedelta(days=day + 1)
        row = {
            "job_id": job, "unit_id": f"u{day}", "source": "reach", "status": "DOWNLOADED",
            "window_start": start, "window_end": start + timedelta(days=1), "availability_pct": percent,
            "recorded_at": NOW,
        }  # fmt: skip
        with ledger.engine.begin() as connection:
            connection.execute(sa.insert(batch_attempts), row)

    attempt("job1", 20, 40.0)
    attempt("job1", 21, 95.0)
    attempt("job1", 2, 10.0)  # may still change
    assert tell(settings, ledger, []) == 1
    assert "1 windows of reach got less than 90 %" in receiver.bodies[0]["what"]
    attempt("job2", 20, 41.0)
    assert tell(settings, ledger, []) == 0
    attempt("job3", 20, 99.0)
    attempt("job3", 30, 5.0)
    attempt("job3", 31, 6.0)
    assert tell(settings, ledger, []) == 1
    assert "2 windows" in receiver.bodies[1]["what"]
    attempt("job4", 31, 99.0)  # what is left of them was told
    assert tell(settings, ledger, []) == 0
    attempt("job5", 32, 7.0)
    assert tell(settings, ledger, []) == 1
    assert "1 windows" in receiver.bodies[2]["what"]
    assert "about" not in receiver.bodies[2]


def test_mail_names_what_who_and_where_to_look(
    settings: Settings, ledger: Ledger, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    box = Mailbox()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server = Controller(box, hostname="127.0.0.1", port=port)
    server.start()
    try:
        monkeypatch.setenv("L2_ALERT_SMTP", f"smtp://127.0.0.1:{port}")
        monkeypatch.setenv("L2_ALERT_MAIL_TO", "ann@example.org, bob@example.org")
        assert tell(load_settings(), ledger, [_run_that_failed(sentence="Down.\nBcc: eve@example.org")]) == 2
    finally:
        server.stop()
    (mail,) = box.mails
    assert mail["To"] == "ann@example.org, bob@example.org"
    assert "whole_pass failed" in mail["Subject"]
    assert mail["Bcc"] is None
    assert "Responsible: operator" in mail.get_content()
    assert len(receiver.bodies) == 1
    assert tell(load_settings(), ledger, [_run_that_failed(sentence="Another.")]) == 1  # no mail server now
    assert {tuple(alert.delivered) for alert in ledger.alerts()} == {("webhook", "mail"), ("webhook",)}


@pytest.mark.parametrize(
    "wrong",
    [{"L2_ALERT_SMTP": "smtp://h"}, {"L2_ALERT_SMTP": "mail.example.org", "L2_ALERT_MAIL_TO": "a@b.c"}],
)
def test_half_a_mail_setting_is_refused(
    data: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str]
) -> None:
    for name, value in wrong.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(WrongUse):
        ways_of(load_settings())


def test_the_sensor_tells_what_dagster_recorded(
    settings: Settings, ledger: Ledger, receiver: Receiver, capsys: pytest.CaptureFixture[str]
) -> None:
    @dg.op
    def scan() -> None:
        with one_sentence():
            raise TooManyMissing("5 of 10 known datasets are missing from the store at once.")

    @dg.op
    def other() -> None:
        with one_sentence():
            raise L2Error("The disk is full.")

    @dg.job
    def scan_store() -> None:
        scan()

    @dg.job
    def handover() -> None:
        other()

    with dg.DagsterInstance.ephemeral() as instance:
        for job in (scan_store, handover, scan_store):
            job.execute_in_process(instance=instance, raise_on_error=False)
        found = [run.error for run in failed_runs(instance)]
        assert found == ["TooManyMissing", "L2Error", "TooManyMissing"]
        stopped = instance.create_run_for_job(scan_store)
        instance.report_run_failed(stopped, INTERRUPTED)
        assert len(failed_runs(instance)) == 3
        context = dg.build_sensor_context(instance=instance, resources={"l2": L2(settings)})
        for expected in ("2 alerts", "0 alerts"):
            assert expected in str(build_alert_sensor(settings)(context))
    assert [body["kind"] for body in receiver.bodies] == ["scan_missing", "run_failed"]
    assert "--accept-missing" in receiver.bodies[0]["look"]
    assert _run(["alerts", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["kind"] for one in told] == ["run_failed", "scan_missing"]
    assert all(one["delivered"]["webhook"] for one in told)


def test_old_records_of_runs_go_and_those_of_running_ones_stay() -> None:
    @dg.job
    def nothing() -> None:
        pass

    with dg.DagsterInstance.ephemeral() as instance:
        for _ in range(2):
            nothing.execute_in_process(instance=instance)
        running = instance.create_run_for_job(nothing)
        for days in (0, 1):
            assert forget_old_runs(instance, days) == 0
        assert forget_old_runs(instance, 1e-9) == 2
        assert [run.run_id for run in instance.get_runs()] == [running.run_id]
