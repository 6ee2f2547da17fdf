"""Where OPs stood: what was true at a moment, what was known at a moment, and how long states lasted."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta

import pytest

from dagster_l2.ledger import InvalidRecord, State, UnknownOp, Verdict

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


@pytest.fixture
def told_late(ledger):
    """Two OPs whose steps occurred in January, a day after the other, and were recorded just now."""
    steps = [State.DISCOVERED, State.INVERTIBLE, State.PREPROCESSED, State.WORKING]
    for number, state in enumerate(steps):
        for op_id in ("early", "late"):
            if op_id == "late" and number == len(steps) - 1:
                continue
            moment = FIRST + number * DAY + (DAY / 2 if op_id == "late" else timedelta())
            ledger.append(op_id, state, actor=f"actor {number}", cause="c", occurred_at=moment)
    return ledger


def expected(steps, at, known_at):
    """The states as of then, from the histories alone."""
    return {
        step.op_id: step.to_state
        for step in steps
        if (at is None or step.occurred_at <= at) and (known_at is None or step.recorded_at <= known_at)
    }


def test_every_moment_gives_the_state_that_the_history_had_then(told_late):
    steps = [step for op_id in ("early", "late") for step in told_late.history(op_id)]
    happened = sorted({step.occurred_at for step in steps})
    recorded = sorted({step.recorded_at for step in steps})
    ats = [None, happened[0] - TICK, *happened]
    knowns = [None, recorded[0] - TICK, *recorded]
    different = set()
    for at, known_at in itertools.product(ats, knowns):
        wanted = expected(steps, at, known_at)
        presents = told_late.present_all(at=at, known_at=known_at)
        assert {op_id: present.state for op_id, present in presents.items()} == wanted
        counts = told_late.count_states(at=at, known_at=known_at)
        assert counts == {state: list(wanted.values()).count(state) for state in set(wanted.values())}
        for op_id, present in presents.items():
            assert told_late.present(op_id, at=at, known_at=known_at) == present
        different.add(tuple(sorted(wanted.items())))
    assert len(different) == 8


def test_what_is_true_and_what_is_known_are_two_questions(told_late):
    noon = FIRST + 1.6 * DAY
    assert told_late.present("late", at=noon).state is State.INVERTIBLE
    with pytest.raises(
        UnknownOp, match=r"as known at 2026-01-02 14:24:00 UTC; its history begins at 2026-01-01"
    ):
        told_late.present("late", known_at=noon)
    assert told_late.present_all(known_at=noon) == {}
    assert told_late.count_states(known_at=noon) == {}


def test_an_op_that_was_not_there_yet_is_not_one_that_never_was(told_late):
    before = FIRST - DAY
    with pytest.raises(
        UnknownOp, match="had no OP early at 2025-12-31 00:00:00 UTC; its history begins at 2026"
    ):
        told_late.present("early", at=before)
    with pytest.raises(UnknownOp, match="has no OP nobody; check the id"):
        told_late.present("nobody", at=before)


def test_any_zone_is_taken_and_none_is_refused(told_late):
    from zoneinfo import ZoneInfo

    hawaii = FIRST.astimezone(ZoneInfo("Pacific/Honolulu"))
    assert told_late.present("early", at=hawaii).state is State.DISCOVERED
    for name in ("at", "known_at"):
        for ask in (
            lambda time: told_late.present("early", **time),
            lambda time: told_late.present_all(**time),
        ):
            with pytest.raises(InvalidRecord, match="says no zone; give it in UTC"):
                ask({name: datetime(2026, 1, 1)})


def test_the_flag_of_changed_inputs_is_the_one_of_then(ledger, bring):
    bring(ledger, "op", State.WORKING, hash_="h1")
    changed = Verdict("op", has_datasets=True, is_complete=True, is_invertible=True, inputs_hash="h2")
    ledger.decide([changed], actor="pipeline")
    (flag,) = ledger.annotations("op", "inputs_changed")
    for name in ("at", "known_at"):
        before, after = {name: flag.recorded_at - TICK}, {name: flag.recorded_at}
        assert not ledger.present("op", **before).inputs_changed
        assert not ledger.present_all(**before)["op"].inputs_changed
        assert ledger.present("op", **after).inputs_changed
        assert ledger.present_all(**after)["op"].inputs_changed
    assert ledger.present("op").inputs_changed


def test_a_history_tells_how_long_each_state_lasted(told_late):
    stays = told_late.stays("early")
    assert [stay.step for stay in stays] == told_late.history("early")
    assert [stay.duration for stay in stays] == [DAY, DAY, DAY, None]
    assert [stay.ended_at for stay in stays] == [
        *(step.occurred_at for step in told_late.history("early")[1:]),
        None,
    ]
    with pytest.raises(UnknownOp):
        told_late.stays("nobody")
