"""What people and steps do with one OP, and what they are told when they can't."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone

import pytest

from dagster_l2.ledger import (
    Conflict,
    IllegalTransition,
    InvalidRecord,
    Ledger,
    LedgerUnavailable,
    NotAllowed,
    State,
    UnknownOp,
    base,
    new_inversion_id,
)

HOSTILE = [
    "../../etc/passwd",
    "'; DROP TABLE op_transitions; --",
    'a"b',
    "two\nlines",
    "x" * 300,
    "%s %(a)s :a",
    "日本 ☀",
]


def test_a_claim_makes_a_new_inversion_of_the_package(ledger, bring, package):
    prepared = bring(ledger, "op", State.PREPROCESSED)
    assert prepared.details == package
    first = ledger.claim("op", actor="alice", details={"note": "mine"})
    assert re.fullmatch(r"inv\.[A-Z0-9]{6}", first.inversion_id)
    assert first.details == {**package, "claimed_by": "alice", "role": "scientist", "note": "mine"}
    assert (first.inputs_hash, ledger.present("op").claimed_by) == ("h1", "alice")
    released = ledger.release("op", actor="alice")
    assert (released.details, released.inversion_id, released.inputs_hash) == (package, None, "h1")
    assert ledger.claim("op", actor="bob").inversion_id != first.inversion_id


def test_a_second_claim_is_told_who_was_first_and_when(ledger, bring):
    bring(ledger, "op", State.PREPROCESSED)
    first = ledger.claim("op", actor="alice")
    with pytest.raises(Conflict, match="by alice") as told:
        ledger.claim("op", actor="bob")
    assert (told.value.actor, told.value.state, told.value.since) == ("alice", "Working", first.occurred_at)
    assert f"{first.occurred_at:%Y-%m-%d %H:%M:%S}" in str(told.value)


@pytest.mark.parametrize("state", [State.DISCOVERED, State.INVERTIBLE, State.NOT_INVERTIBLE, State.INVERTED])
def test_only_a_prepared_op_can_be_claimed(ledger, bring, state):
    bring(ledger, "op", state)
    with pytest.raises(IllegalTransition, match=f"is {state} since .*only a Preprocessed OP can be claimed"):
        ledger.claim("op", actor="bob")


def test_only_the_claimer_or_an_operator_releases(ledger, bring):
    bring(ledger, "op", State.WORKING, scientist="bob")
    with pytest.raises(NotAllowed, match="only bob or an operator can release it"):
        ledger.release("op", actor="eve")
    assert ledger.present("op").state is State.WORKING
    assert ledger.release("op", actor="eve", is_operator=True).actor == "eve"


def test_published_once_and_only_the_present_inversion(ledger, bring):
    inverted = bring(ledger, "op", State.INVERTED)
    call = {"details": {"bucket": "data"}, "actor": "p", "run_id": "r"}
    with pytest.raises(Conflict, match=f"its inversion is {inverted.inversion_id}, not inv.WRONG0"):
        ledger.published("op", inversion_id="inv.WRONG0", **call)
    row = ledger.published("op", inversion_id=inverted.inversion_id, **call)
    assert (row.inversion_id, row.details, row.inputs_hash) == (
        inverted.inversion_id,
        {"bucket": "data"},
        "h1",
    )
    with pytest.raises(Conflict, match="is Published since"):
        ledger.published("op", inversion_id=inverted.inversion_id, **call)


def test_reopen_and_withdraw_take_a_reason_and_a_new_inversion(ledger, bring, package):
    was = bring(ledger, "op", State.INVERTED, scientist="bob")
    with pytest.raises(InvalidRecord, match="The reason is empty"):
        ledger.withdraw("op", actor="bob", reason=" ")
    redo = ledger.withdraw("op", actor="eve", reason="bad fit")
    assert redo.inversion_id != was.inversion_id
    assert redo.details["claimed_by"] == "bob"
    assert redo.details["dataset_ids"] == package["dataset_ids"]
    assert "bad fit" in redo.cause

    bring(ledger, "other", State.PUBLISHED)
    with pytest.raises(InvalidRecord, match="The reason is empty"):
        ledger.reopen("other", actor="eve", reason="")
    row = ledger.reopen("other", actor="eve", reason="new calibration")
    assert (row.to_state, row.inversion_id) == (State.INVERTIBLE, None)
    assert row.details == {"failed_criteria": [], "warnings": [], "reason": "new calibration"}


def test_an_error_says_what_failed_and_a_retry_brings_all_back(ledger, bring):
    was = bring(ledger, "op", State.INVERTED)
    row = ledger.fail("op", step="publish", error_class="permanent", message="differs", actor="p", run_id="r")
    assert row.details == {
        "step": "publish",
        "class": "permanent",
        "message": "differs",
        "previous_state": "Inverted",
        "tries": 1,
    }
    assert row.inversion_id == was.inversion_id
    with pytest.raises(Conflict, match="in Error already"):
        ledger.fail("op", step="x", error_class="transient", message="m", actor="p", run_id=None)
    ledger.retry("op", actor="operator")
    now = ledger.present("op")
    assert (now.state, now.inversion_id, now.details) == (State.INVERTED, was.inversion_id, was.details)
    with pytest.raises(IllegalTransition, match="only an OP in Error can be retried"):
        ledger.retry("op", actor="operator")


def test_an_error_is_recorded_whatever_its_message_holds(ledger, bring):
    bring(ledger, "op", State.INVERTED)
    text = "line 1\nline 2 \0 \ud800 " + "x" * 5000
    row = ledger.fail("op", step="publish", error_class="transient", message=text, actor="p", run_id=None)
    assert row.details["message"] == "line 1 line 2 ? ? " + "x" * 5000
    assert ledger.present("op").details == row.details


def test_what_can_not_fail_is_told_so(ledger, bring):
    bring(ledger, "op", State.PUBLISHED)
    with pytest.raises(IllegalTransition, match="a Published OP can't go to Error"):
        ledger.fail("op", step="x", error_class="transient", message="m", actor="p", run_id=None)
    with pytest.raises(InvalidRecord, match="take transient or permanent"):
        ledger.fail("op", step="x", error_class="odd", message="m", actor="p", run_id=None)


def test_every_question_about_an_unknown_op_gets_one_sentence(ledger):
    calls = [
        lambda: ledger.present("nobody"),
        lambda: ledger.history("nobody"),
        lambda: ledger.claim("nobody", actor="a"),
        lambda: ledger.release("nobody", actor="a"),
        lambda: ledger.retry("nobody", actor="a"),
        lambda: ledger.reopen("nobody", actor="a", reason="r"),
        lambda: ledger.withdraw("nobody", actor="a", reason="r"),
        lambda: ledger.annotate("nobody", kind="note", actor="a", details={}),
        lambda: ledger.submit_ready("nobody", products="p", commit_hash="c", actor="a"),
    ]
    for call in calls:
        with pytest.raises(UnknownOp, match="no OP nobody; check the id"):
            call()


def test_the_expected_state_guards_an_append(ledger, bring):
    bring(ledger, "op", State.INVERTIBLE)
    with pytest.raises(Conflict, match="believed to be Discovered") as told:
        ledger.append("op", State.NOT_INVERTIBLE, actor="a", cause="c", expected=State.DISCOVERED)
    assert told.value.state == "Invertible"
    with pytest.raises(Conflict, match="believed to be new"):
        ledger.append("op", State.DISCOVERED, actor="a", cause="c", expected=None)
    with pytest.raises(UnknownOp):
        ledger.append("new", State.INVERTIBLE, actor="a", cause="c", expected=State.DISCOVERED)
    ledger.append("new", State.DISCOVERED, actor="a", cause="c", expected=None)


def test_times_are_in_utc_and_never_go_back(ledger, bring):
    since = bring(ledger, "op", State.INVERTIBLE).since
    assert since.tzinfo is UTC
    with pytest.raises(InvalidRecord, match="says no zone"):
        ledger.append("op", State.NOT_INVERTIBLE, actor="a", cause="c", occurred_at=datetime(2030, 1, 1))
    with pytest.raises(InvalidRecord, match="can't have occurred before that"):
        ledger.append(
            "op", State.NOT_INVERTIBLE, actor="a", cause="c", occurred_at=since - timedelta(seconds=1)
        )
    later = datetime.now(UTC) + timedelta(hours=1)
    with pytest.raises(InvalidRecord, match=f"{later:%Y-%m-%d %H:%M:%S}.* is still to come"):
        ledger.append("op", State.NOT_INVERTIBLE, actor="a", cause="c", occurred_at=later)
    here = since.astimezone(timezone(timedelta(hours=5)))
    ledger.append("op", State.NOT_INVERTIBLE, actor="a", cause="c", occurred_at=here)
    now = ledger.present("op")
    assert now.since.isoformat() == since.isoformat()
    assert now.since < now.recorded_at


def test_a_clock_that_is_behind_does_not_stop_an_op(ledger, bring, monkeypatch):
    ahead = bring(ledger, "op", State.INVERTIBLE)

    class Behind(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) - timedelta(hours=1)

    monkeypatch.setattr("dagster_l2.ledger.base.datetime", Behind)
    row = ledger.append("op", State.NOT_INVERTIBLE, actor="a", cause="c")
    assert (row.occurred_at, row.recorded_at) == (ahead.recorded_at, ahead.recorded_at)


@pytest.mark.parametrize("op_id", HOSTILE)
def test_an_id_from_outside_is_only_a_value(ledger, bring, op_id):
    bring(ledger, "bystander", State.DISCOVERED)
    bring(ledger, op_id, State.PUBLISHED)
    assert [row.op_id for row in ledger.history(op_id)] == [op_id] * 6
    assert ledger.present_all()[op_id].state is State.PUBLISHED
    assert ledger.events(op_id)[0][0].op_id == op_id
    with pytest.raises(IllegalTransition) as told:
        ledger.claim(op_id, actor=op_id)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 400
    assert ledger.present("bystander").seq == 1


@pytest.mark.parametrize(
    ("op_id", "said"),
    [("", "empty"), ("  ", "empty"), ("a\0b", "NUL"), ("\ud800", "Unicode"), ("é" * 1001, "2002 bytes")],
)
def test_an_id_that_can_not_be_stored_is_refused_in_one_sentence(ledger, op_id, said):
    with pytest.raises(InvalidRecord, match=said) as told:
        ledger.append(op_id, State.DISCOVERED, actor="a", cause="c")
    str(told.value).encode()
    assert not ledger.present_all()


def test_what_is_not_json_is_refused_and_nothing_is_written(ledger, bring):
    bring(ledger, "op", State.DISCOVERED)
    for details in ({"a": float("nan")}, {"a": object()}, {"a": {1, 2}}, {"a": "half \ud800"}):
        with pytest.raises(InvalidRecord, match="JSON"):
            ledger.append("op", State.INVERTIBLE, actor="a", cause="c", details=details)
    odd = {"text": "NUL \0 quote ' ☀", "list": (1, 2), "none": None, "deep": {"b": [True, 1.5]}}
    row = ledger.append("op", State.INVERTIBLE, actor="a", cause="c", details=odd)
    assert row.details == ledger.present("op").details == {**odd, "list": [1, 2]}


def test_annotations_are_kept_in_order_and_move_nothing(ledger, bring):
    before = bring(ledger, "op", State.WORKING)
    bring(ledger, "other", State.DISCOVERED)
    ledger.annotate("op", kind="note", actor="a", details={"text": "1"})
    ledger.annotate("other", kind="note", actor="a", details={"text": "2"})
    ledger.annotate("op", kind="priority", actor="b", details={"n": 3})
    assert [note.details for note in ledger.annotations("op")] == [{"text": "1"}, {"n": 3}]
    assert [note.op_id for note in ledger.annotations(kind="note")] == ["op", "other"]
    assert [note.actor for note in ledger.annotations("op", "priority")] == ["b"]
    assert ledger.present("op") == before


def test_an_inversion_id_that_is_taken_is_drawn_again(ledger, bring, monkeypatch):
    taken = bring(ledger, "one", State.WORKING).inversion_id
    bring(ledger, "two", State.PREPROCESSED)
    drawn = iter([taken, taken, "inv.FRESH0"])
    monkeypatch.setattr(base, "new_inversion_id", lambda: next(drawn))
    assert ledger.claim("two", actor="eve").inversion_id == "inv.FRESH0"
    assert [row.to_state for row in ledger.history("two")].count(State.WORKING) == 1


def test_inversion_ids_are_drawn_from_many():
    ids = {new_inversion_id() for _ in range(2000)}
    assert len(ids) == 2000
    assert all(re.fullmatch(r"inv\.[A-Z0-9]{6}", number) for number in ids)


def test_all_transitions_come_once_in_order(ledger, bring):
    for number in range(5):
        bring(ledger, f"op{number}", State.WORKING)
    everything = [row for number in range(5) for row in ledger.history(f"op{number}")]
    parts = list(ledger.transitions(chunk=7))
    assert [len(part) for part in parts] == [7, 7, 6]
    assert [row for part in parts for row in part] == everything
    after = everything[15].transition_id
    assert [row for part in ledger.transitions(after) for row in part] == everything[16:]


@pytest.mark.parametrize("address", ["", "mysql://h/d", "sqlite://", "sqlite:///:memory:", "not an address"])
def test_an_address_of_another_kind_is_refused(address):
    with pytest.raises(LedgerUnavailable, match="must be sqlite:///FILE or postgresql"):
        Ledger.open(address)


def test_a_ledger_that_can_not_be_reached_says_where_and_no_password(tmp_path):
    with pytest.raises(LedgerUnavailable, match=r"127\.0\.0\.1/d, schema l2") as told:
        Ledger.open("postgresql+psycopg://u:secret@127.0.0.1:1/d")
    assert "secret" not in str(told.value)
    (tmp_path / "text").write_text("this is no database" * 100)
    with pytest.raises(LedgerUnavailable, match="not a database"):
        Ledger.open(f"sqlite:///{tmp_path / 'text'}")
    with pytest.raises(LedgerUnavailable, match="can't be made"):
        Ledger.open(f"sqlite:///{tmp_path / 'text' / 'l2.sqlite'}")
    with pytest.raises(LedgerUnavailable, match="schema name"):
        Ledger.open("postgresql://u@h/d", schema='l2"; DROP')
