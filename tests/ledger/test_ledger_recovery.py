"""Error and the way out: who may be retried by itself, how often, and what a person's retry changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from dagster_l2.ledger import Conflict, Ledger, State, tries


def fail(ledger: Ledger, op_id: str = "op", *, step: str = "publish", error_class: str = "transient") -> int:
    """Let a step fail; the number of tries that the Error tells."""
    row = ledger.fail(op_id, step=step, error_class=error_class, message="away", actor="p", run_id="r")
    return int(row.details["tries"])


def again(ledger: Ledger, limit: int = 3) -> tuple[list[str], list[str]]:
    """What a pass brings back, and what it leaves."""
    done = ledger.retry_transient(limit, actor="pipeline", run_id="r")
    return [row.op_id for row in done.retried], [row.op_id for row in done.exhausted]


def test_a_transient_failure_is_tried_as_often_as_the_limit_says(ledger, bring):
    was = bring(ledger, "op", State.INVERTED)
    assert fail(ledger) == 1
    assert again(ledger) == (["op"], [])
    now = ledger.present("op")
    assert (now.state, now.inversion_id, now.inputs_hash) == (was.state, was.inversion_id, was.inputs_hash)
    assert now.details == {**was.details, "automatic": True}
    assert now.cause == "retried by itself after: publish failed (transient)"
    assert again(ledger) == ([], [])  # nothing more to bring back: a second pass does nothing
    assert fail(ledger) == 2
    assert again(ledger) == (["op"], [])
    assert fail(ledger) == 3
    before = ledger.history("op")
    for _ in range(2):
        assert again(ledger) == ([], ["op"])
    assert ledger.history("op") == before
    assert again(ledger, 4) == (["op"], [])  # a limit that was raised counts what was tried before


def test_a_person_always_may_and_the_counting_begins_anew(ledger, bring):
    bring(ledger, "op", State.INVERTED)
    for number in (1, 2, 3):
        assert fail(ledger) == number
        again(ledger)
    row = ledger.retry("op", actor="ann")
    assert row.cause == "retried by ann after: publish failed (transient)"
    assert "automatic" not in row.details
    assert fail(ledger) == 1
    assert again(ledger) == (["op"], [])
    assert len(ledger.history("op")) == 13


def test_progress_ends_the_counting_and_each_step_is_counted_alone(ledger, bring):
    bring(ledger, "op", State.WORKING)
    assert fail(ledger, step="verify") == 1
    again(ledger)
    assert fail(ledger, step="other") == 1
    again(ledger)
    assert fail(ledger, step="verify") == 2
    again(ledger)
    event = ledger.submit_ready("op", products="p", commit_hash="c", actor="bob")
    ledger.settle(event, lambda _: {"products": []}, run_id=None, actor="p")
    assert fail(ledger, step="verify") == 1
    history = ledger.history("op")
    assert [tries(history[:end], "verify") for end in range(len(history) - 1, len(history) + 1)] == [0, 1]


@pytest.mark.parametrize(("error_class", "limit"), [("permanent", 3), ("transient", 0), ("transient", 1)])
def test_what_is_left_in_error_for_a_person(ledger, bring, error_class, limit):
    bring(ledger, "op", State.INVERTED)
    fail(ledger, error_class=error_class)
    assert again(ledger, limit) == ([], ["op"] if error_class == "transient" else [])
    assert ledger.present("op").state is State.ERROR
    assert ledger.retry("op", actor="ann").to_state is State.INVERTED


def test_the_marker_of_a_retry_by_itself_goes_no_further(ledger, bring):
    """What is copied from such a state says of itself nothing that is not so."""
    bring(ledger, "op", State.WORKING)
    fail(ledger, step="verify")
    again(ledger)
    event = ledger.submit_ready("op", products="p", commit_hash="c", actor="bob")
    ledger.settle(event, lambda _: {"products": []}, run_id=None, actor="p")
    redo = ledger.withdraw("op", actor="bob", reason="bad fit")
    assert "automatic" not in redo.details
    assert redo.details["claimed_by"] == "bob"
    fail(ledger, step="verify")
    again(ledger)
    fail(ledger, step="verify")
    assert "automatic" not in ledger.retry("op", actor="ann").details


def test_one_that_moved_on_has_not_failed(ledger, bring):
    seen = bring(ledger, "op", State.WORKING)
    ledger.release("op", actor="bob")
    call = {"step": "verify", "error_class": "transient", "message": "m", "actor": "p", "run_id": None}
    with pytest.raises(Conflict, match=r"is Preprocessed .* moved on while verify was at it"):
        ledger.fail("op", **call, seen=seen.seq)
    assert ledger.fail("op", **call, seen=seen.seq + 1).to_state is State.ERROR


def test_the_errors_of_now_by_step_and_class(ledger, bring):
    for op_id, step, error_class in (
        ("c", "publish", "transient"),
        ("a", "publish", "permanent"),
        ("b", "verify", "transient"),
        ("gone", "publish", "transient"),
    ):
        bring(ledger, op_id, State.INVERTED)
        fail(ledger, op_id, step=step, error_class=error_class)
    ledger.retry("gone", actor="ann")
    assert [row.op_id for row in ledger.errors()] == ["a", "b", "c"]
    assert [row.op_id for row in ledger.errors(step="publish")] == ["a", "c"]
    assert [row.op_id for row in ledger.errors(error_class="transient")] == ["b", "c"]
    assert [row.details["message"] for row in ledger.errors(step="verify", error_class="permanent")] == []
    assert again(ledger) == (["b", "c"], [])


def test_passes_at_the_same_moment_bring_each_back_once(place, bring):
    """Each Error is left by exactly one step, whichever pass takes it."""
    ops = [f"op{number}" for number in range(6)]
    with place.open() as ledger:
        for op_id in ops:
            bring(ledger, op_id, State.INVERTED)
            fail(ledger, op_id)

        def a_pass(_number: int) -> list[str]:
            with place.open() as own:
                return again(own)[0]

        with ThreadPoolExecutor(4) as pool:
            taken = [op_id for part in pool.map(a_pass, range(4)) for op_id in part]
        assert sorted(taken) == ops
        for op_id in ops:
            assert [row.to_state for row in ledger.history(op_id)][-2:] == [State.ERROR, State.INVERTED]
