"""The hand-over: who may say ready, what is recorded, and what becomes of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from dagster_l2.ledger import IllegalTransition, InputsChanged, InvalidRecord, NotAllowed, State, Verdict


class Refused(Exception):
    pass


def ready(ledger, op_id="op", **changed):
    call = {"products": "/products", "commit_hash": "abc123", "actor": "bob", **changed}
    return ledger.submit_ready(op_id, **call)


def settle(ledger, event, verify=lambda _event: {"products": [{"name": "a.fits"}]}):
    return ledger.settle(event, verify, run_id="run", actor="sensor", refusals=(Refused,))


def refuse(_event):
    raise Refused("inv_res_mod.fits is\nmissing; hand it over.")


def never(_event):
    raise AssertionError("nothing is verified here")


def test_verified_products_become_the_inversion(ledger, bring, package):
    working = bring(ledger, "op", State.WORKING, scientist="bob")
    event = ready(ledger)
    assert ledger.pending_events() == [event]
    assert ledger.events("op") == [(event, None)]
    outcome = settle(ledger, event)
    assert (outcome.is_accepted, outcome.run_id) == (True, "run")
    now = ledger.present("op")
    assert (now.state, now.inversion_id) == (State.INVERTED, working.inversion_id)
    assert now.details == {
        **package,
        "products": [{"name": "a.fits"}],
        "claimed_by": "bob",
        "event_id": event.event_id,
        "commit": "abc123",
    }
    assert ledger.pending_events() == []
    assert ledger.events("op") == [(event, outcome)]
    assert settle(ledger, event, never) == outcome
    assert len(ledger.history("op")) == 5


def test_refused_products_leave_the_op_working_with_the_reason(ledger, bring):
    before = bring(ledger, "op", State.WORKING)
    event = ready(ledger)
    outcome = settle(ledger, event, refuse)
    assert (outcome.is_accepted, outcome.reason) == (False, "inv_res_mod.fits is missing; hand it over.")
    assert ledger.present("op") == before
    assert ledger.pending_events() == []
    assert settle(ledger, ready(ledger)).is_accepted
    assert [outcome.outcome for _event, outcome in ledger.events("op")] == ["refused", "accepted"]


def test_a_failure_that_is_no_refusal_leaves_the_event_pending(ledger, bring):
    bring(ledger, "op", State.WORKING)
    event = ready(ledger)

    def broken(_event):
        raise OSError("disk gone")

    with pytest.raises(OSError, match="disk gone"):
        settle(ledger, event, broken)
    assert ledger.pending_events() == [event]
    assert settle(ledger, event).is_accepted


def test_nothing_is_recorded_when_the_details_can_not_be_stored(ledger, bring):
    bring(ledger, "op", State.WORKING)
    event = ready(ledger)
    with pytest.raises(InvalidRecord, match="JSON"):
        settle(ledger, event, lambda _event: {"products": [object()]})
    assert ledger.present("op").state is State.WORKING
    assert ledger.pending_events() == [event]


def test_an_event_is_refused_when_its_op_moved_on(ledger, bring):
    inversion = bring(ledger, "op", State.WORKING).inversion_id
    early, late = ready(ledger), ready(ledger)
    settle(ledger, early)
    assert "is Inverted since" in settle(ledger, late, never).reason
    redo = ledger.withdraw("op", actor="bob", reason="redo").inversion_id
    stale = ready(ledger)
    ledger.release("op", actor="bob")
    third = ledger.claim("op", actor="bob").inversion_id
    assert f"on inversion {third}, not {redo}" in settle(ledger, stale, never).reason
    assert len({inversion, redo, third}) == 3


def test_an_op_that_moves_during_the_verification_refuses_the_event(ledger, bring):
    bring(ledger, "op", State.WORKING)
    event = ready(ledger)

    def release_meanwhile(_event):
        ledger.release("op", actor="bob")
        return {"products": []}

    assert "is Preprocessed since" in settle(ledger, event, release_meanwhile).reason
    assert ledger.present("op").state is State.PREPROCESSED


def test_many_that_settle_at_once_record_one_outcome(ledger, bring):
    bring(ledger, "op", State.WORKING)
    event = ready(ledger)
    with ThreadPoolExecutor(8) as pool:
        outcomes = list(pool.map(lambda _n: settle(ledger, event), range(8)))
    assert len(set(map(str, outcomes))) == 1
    assert [row.to_state for row in ledger.history("op")].count(State.INVERTED) == 1


def test_an_event_waits_while_its_op_is_in_error(ledger, bring):
    bring(ledger, "op", State.WORKING)
    event = ready(ledger)
    ledger.fail("op", step="verify", error_class="transient", message="disk", actor="p", run_id=None)
    assert ledger.pending_events() == []
    with pytest.raises(IllegalTransition, match="retry it"):
        settle(ledger, event, never)
    ledger.retry("op", actor="operator")
    assert ledger.pending_events() == [event]
    assert settle(ledger, event).is_accepted


def test_only_the_claimer_or_an_operator_says_ready(ledger, bring):
    bring(ledger, "op", State.WORKING, scientist="bob")
    with pytest.raises(NotAllowed, match="only bob or an operator can hand it over"):
        ready(ledger, actor="eve")
    assert ledger.events("op") == []
    assert ready(ledger, actor="eve", is_operator=True).actor == "eve"


@pytest.mark.parametrize("state", [State.PREPROCESSED, State.INVERTED, State.PUBLISHED, State.ERROR])
def test_ready_is_taken_in_working_alone(ledger, bring, state):
    bring(ledger, "op", state)
    with pytest.raises(IllegalTransition, match=f"is {state} since .*only a Working OP"):
        ready(ledger, is_operator=True)


def test_datasets_are_some_of_the_package(ledger, bring):
    bring(ledger, "op", State.WORKING)
    assert ready(ledger).dataset_ids == ["AAAAA", "BBBBB", "CCCCC"]
    event = ready(ledger, dataset_ids=["CCCCC", "AAAAA", "CCCCC"])
    assert event.dataset_ids == ["AAAAA", "CCCCC"]
    with pytest.raises(InvalidRecord, match="Dataset ZZZZZ is not of the input package of OP op"):
        ready(ledger, dataset_ids=["AAAAA", "ZZZZZ"])
    with pytest.raises(InvalidRecord, match="No dataset is named"):
        ready(ledger, dataset_ids=[])
    settle(ledger, event)
    assert ledger.present("op").details["dataset_ids"] == ["AAAAA", "CCCCC"]


def test_a_flagged_op_is_handed_over_only_with_consent(ledger, bring):
    bring(ledger, "op", State.WORKING)
    ledger.decide([Verdict("op", True, True, True, inputs_hash="h2")], actor="verdict")
    with pytest.raises(InputsChanged, match="changed since they were claimed"):
        ready(ledger)
    event = ready(ledger, inputs_changed_ok=True)
    assert event.details["inputs_changed_ok"] is True
    assert settle(ledger, event).is_accepted


@pytest.mark.parametrize("wrong", [{"products": ""}, {"commit_hash": " "}, {"products": "a\0b"}])
def test_empty_words_are_refused(ledger, bring, wrong):
    bring(ledger, "op", State.WORKING)
    with pytest.raises(InvalidRecord):
        ready(ledger, **wrong)
    assert ledger.pending_events() == []


def test_an_event_the_ledger_never_got_is_refused(ledger, bring):
    from dataclasses import replace

    bring(ledger, "op", State.WORKING)
    event = ready(ledger)
    with pytest.raises(InvalidRecord, match="no science event made-up"):
        settle(ledger, replace(event, event_id="made-up"), never)
    # What counts is what was recorded, not what the caller holds.
    assert settle(ledger, replace(event, inversion_id="inv.FORGED", op_id="other")).is_accepted
