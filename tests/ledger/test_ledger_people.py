"""What people say about an OP: appended, never changed, moving nothing; the latest of each kind holds."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from dagster_l2.ledger import ASSIGNED, NOTE, PRIORITY, Conflict, InvalidRecord, State, UnknownOp

KINDS = (PRIORITY, ASSIGNED, NOTE)


def test_what_people_say_is_appended_and_moves_nothing(ledger, bring):
    before = bring(ledger, "op", State.PREPROCESSED)
    ledger.prioritize("op", 3, reason="flare", actor="ann")
    ledger.assign("op", "bob", actor="ann")
    ledger.note("op", "seeing was fair", actor="bob")
    ledger.prioritize("op", -9, reason="clouds", actor="cleo")
    ledger.assign("op", None, actor="bob")
    said = [(note.kind, note.actor, note.details) for note in ledger.annotations("op")]
    assert said == [
        ("priority", "ann", {"level": 3, "reason": "flare"}),
        ("assigned", "ann", {"to": "bob"}),
        ("note", "bob", {"text": "seeing was fair"}),
        ("priority", "cleo", {"level": -9, "reason": "clouds"}),
        ("assigned", "bob", {"to": None}),
    ]
    assert ledger.present("op") == before
    assert len(ledger.history("op")) == before.seq


def test_the_latest_of_each_kind_is_given_for_every_op_in_one_query(ledger, bring):
    for op in ("a", "b", "c"):
        bring(ledger, op, State.PREPROCESSED)
    ledger.prioritize("a", 5, reason="flare", actor="ann")
    last = ledger.prioritize("a", 1, reason="less so", actor="ann")
    given_back = [ledger.assign("b", to, actor="ann") for to in ("bob", None)][-1]
    remark = ledger.note("a", "x", actor="ann")
    statements = []
    sa.event.listen(ledger.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
    assert ledger.latest_annotations(KINDS) == {
        "a": {PRIORITY: last, NOTE: remark},
        "b": {ASSIGNED: given_back},
    }
    assert len([text for text in statements if "SELECT" in text]) == 1
    assert ledger.latest_annotations([NOTE], "a") == {"a": {NOTE: remark}}
    assert (ledger.assigned_to("b"), ledger.assigned_to("c")) == (None, None)


def test_who_says_the_same_again_appends_nothing(ledger, bring):
    bring(ledger, "op", State.PREPROCESSED)
    first = [
        ledger.prioritize("op", 2, reason="flare", actor="ann"),
        ledger.assign("op", "bob", actor="ann"),
        ledger.note("op", "checked", actor="ann"),
    ]
    again = [
        ledger.prioritize("op", 2, reason="flare", actor="ann"),
        ledger.assign("op", " bob ", actor="ann"),
        ledger.note("op", "checked", actor="ann"),
    ]
    assert again == first == ledger.annotations("op")
    assert ledger.note("op", "checked", actor="bob") != first[2], "Another person's word is another word."
    ledger.prioritize("op", 0, reason="over", actor="ann")
    back = ledger.prioritize("op", 2, reason="flare", actor="ann")
    assert back.annotation_id > first[0].annotation_id, "It is not the latest any more, so it is said anew."


@pytest.mark.parametrize("level", [-10, 10, 1.0, True, "3", None])
def test_a_priority_that_is_none_is_refused(ledger, bring, level):
    bring(ledger, "op", State.PREPROCESSED)
    with pytest.raises(InvalidRecord, match="whole number from -9 to 9"):
        ledger.prioritize("op", level, reason="flare", actor="ann")
    assert ledger.annotations("op") == []


def test_nothing_is_said_without_words_or_a_name(ledger, bring):
    bring(ledger, "op", State.PREPROCESSED)
    for wrong in (
        lambda: ledger.prioritize("op", 1, reason=" ", actor="ann"),
        lambda: ledger.prioritize("op", 1, reason="flare", actor=""),
        lambda: ledger.note("op", "", actor="ann"),
        lambda: ledger.note("op", "a\0b", actor="ann"),
        lambda: ledger.assign("op", "", actor="ann"),
        lambda: ledger.assign("op", None, actor=" "),
    ):
        with pytest.raises(InvalidRecord):
            wrong()
    assert ledger.annotations("op") == []


def test_an_op_that_the_ledger_does_not_know_is_said_so(ledger):
    for wrong in (
        lambda: ledger.prioritize("op", 1, reason="flare", actor="ann"),
        lambda: ledger.note("op", "x", actor="ann"),
        lambda: ledger.assign("op", "bob", actor="ann"),
    ):
        with pytest.raises(UnknownOp, match="no OP op"):
            wrong()
    assert ledger.annotations() == []


def test_a_claim_is_refused_with_the_name_of_who_claimed_it_whoever_moved_it_last(ledger, bring):
    bring(ledger, "op", State.WORKING, scientist="alice")
    ledger.fail("op", step="verify", error_class="transient", message="m", actor="pipeline", run_id=None)
    ledger.retry("op", actor="olga")
    with pytest.raises(Conflict, match="alice has claimed it"):
        ledger.claim("op", actor="bob")
