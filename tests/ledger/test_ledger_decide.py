"""Verdicts into the ledger: what moves, what is flagged, what stays; saying it again does nothing."""

from __future__ import annotations

import pytest

from dagster_l2.ledger import InvalidRecord, LedgerUnavailable, State, Verdict

S = State


def verdict(op_id="op", *, datasets=True, complete=True, invertible=True, hash_="h1", **more):
    failed = () if invertible else ("fe_i_630", "health")
    return Verdict(op_id, datasets, complete, invertible, failed, ("r0 low",), hash_, "7", **more)


def decide(ledger, *verdicts):
    return ledger.decide(verdicts, actor="verdict", run_id="run")


def test_a_new_op_is_discovered_and_judged_in_one_pass(ledger):
    done = decide(
        ledger,
        verdict("good"),
        verdict("bad", invertible=False),
        verdict("early", complete=False),
        verdict("empty", datasets=False, hash_=None),
    )
    assert done.moves == {
        (None, S.DISCOVERED): 4,
        (S.DISCOVERED, S.INVERTIBLE): 1,
        (S.DISCOVERED, S.NOT_INVERTIBLE): 2,
    }
    assert done.moved == ["bad", "early", "empty", "good"]
    states = {op_id: present.state for op_id, present in ledger.present_all().items()}
    assert states == {
        "bad": S.NOT_INVERTIBLE,
        "early": S.DISCOVERED,
        "empty": S.NOT_INVERTIBLE,
        "good": S.INVERTIBLE,
    }
    bad = ledger.present("bad")
    assert bad.details == {"failed_criteria": ["fe_i_630", "health"], "warnings": ["r0 low"]}
    assert (bad.cause, bad.inputs_hash, bad.rule_version) == ("failed criteria: fe_i_630, health", "h1", "7")
    assert "no current datasets" in ledger.present("empty").cause


# state it is in, the verdict, where it must stand afterwards
TABLE = [
    (S.DISCOVERED, {"complete": False}, S.DISCOVERED),
    (S.DISCOVERED, {"complete": False, "invertible": False}, S.DISCOVERED),
    (S.DISCOVERED, {}, S.INVERTIBLE),
    (S.DISCOVERED, {"invertible": False}, S.NOT_INVERTIBLE),
    (S.DISCOVERED, {"datasets": False, "complete": False}, S.NOT_INVERTIBLE),
    (S.INVERTIBLE, {}, S.INVERTIBLE),
    (S.INVERTIBLE, {"hash_": "h2"}, S.INVERTIBLE),
    (S.INVERTIBLE, {"complete": False}, S.INVERTIBLE),
    (S.INVERTIBLE, {"invertible": False}, S.NOT_INVERTIBLE),
    (S.INVERTIBLE, {"datasets": False}, S.NOT_INVERTIBLE),
    (S.NOT_INVERTIBLE, {"invertible": False, "hash_": "h2"}, S.NOT_INVERTIBLE),
    (S.NOT_INVERTIBLE, {"complete": False}, S.NOT_INVERTIBLE),
    (S.NOT_INVERTIBLE, {"datasets": False}, S.NOT_INVERTIBLE),
    (S.NOT_INVERTIBLE, {}, S.INVERTIBLE),
    (S.PREPROCESSED, {}, S.PREPROCESSED),
    (S.PREPROCESSED, {"hash_": "h2"}, S.INVERTIBLE),
    (S.PREPROCESSED, {"invertible": False}, S.NOT_INVERTIBLE),
    (S.PREPROCESSED, {"datasets": False}, S.NOT_INVERTIBLE),
    *((state, {"invertible": False, "hash_": "h2"}, state) for state in (S.WORKING, S.INVERTED, S.PUBLISHED)),
    *((state, {"datasets": False, "hash_": None}, state) for state in (S.WORKING, S.INVERTED, S.PUBLISHED)),
    (S.ERROR, {}, S.ERROR),
    (S.ERROR, {"invertible": False, "datasets": False}, S.ERROR),
]


@pytest.mark.parametrize(("state", "said", "wanted"), TABLE)
def test_where_each_verdict_brings_each_state(ledger, bring, state, said, wanted):
    before = bring(ledger, "op", state)
    done = decide(ledger, verdict(**said))
    assert ledger.present("op").state is wanted
    assert done.moves == ({} if wanted is state else {(state, wanted): 1})
    assert ledger.present("op").seq == before.seq + (wanted is not state)
    again = decide(ledger, verdict(**said))
    assert (again.moves, again.flagged, again.unchanged) == ({}, [], 1)


@pytest.mark.parametrize("state", list(State))
def test_an_op_that_left_the_store_is_not_invertible_or_flagged(ledger, bring, state):
    before = bring(ledger, "gone", state)
    done = decide(ledger, verdict("other"))
    now = ledger.present("gone")
    if state in (S.DISCOVERED, S.INVERTIBLE, S.PREPROCESSED):
        assert now.state is S.NOT_INVERTIBLE
        assert "not among the observing programs" in now.cause
        assert now.details == {"failed_criteria": [], "warnings": []}
    else:
        assert (now.state, now.seq) == (state, before.seq)
        assert now.inputs_changed == (state in (S.WORKING, S.INVERTED, S.PUBLISHED))
        assert done.flagged == (["gone"] if now.inputs_changed else [])
    assert decide(ledger, verdict("other")).unchanged == 2


def test_no_verdict_at_all_moves_nothing_and_says_so(ledger, bring):
    assert decide(ledger).unchanged == 0
    bring(ledger, "op", S.INVERTIBLE)
    with pytest.raises(InvalidRecord, match="ledger has 1 OPs, so nothing was moved"):
        decide(ledger)
    assert ledger.present("op").state is S.INVERTIBLE


@pytest.mark.parametrize("state", [S.WORKING, S.INVERTED, S.PUBLISHED])
def test_changed_inputs_are_flagged_once_and_taken_back(ledger, bring, state):
    bring(ledger, "op", state)

    def flags():
        return [note.details for note in ledger.annotations("op", "inputs_changed")]

    assert decide(ledger, verdict()).flagged == []
    changed = verdict(hash_="h2", details={"dataset_ids": ["AAAAA", "BBBBB", "DDDDD"]})
    assert decide(ledger, changed).flagged == ["op"]
    assert decide(ledger, changed).flagged == []
    assert ledger.present("op").inputs_changed
    assert ledger.present_all()["op"].inputs_changed
    assert flags() == [
        {
            "inputs_hash": "h2",
            "claimed_inputs_hash": "h1",
            "restored": False,
            "changes": {"added": ["DDDDD"], "removed": ["CCCCC"]},
            "run_id": "run",
        }
    ]
    assert decide(ledger, verdict(hash_="h3")).flagged == ["op"]
    assert decide(ledger, verdict(hash_="h1")).flagged == ["op"]
    assert (flags()[-1]["restored"], flags()[-1]["inputs_hash"]) == (True, "h1")
    assert not ledger.present("op").inputs_changed
    assert decide(ledger, verdict(hash_="h1")).flagged == []
    assert len(flags()) == 3


def test_a_flag_is_about_the_package_that_was_claimed(ledger, bring):
    bring(ledger, "op", S.WORKING)
    decide(ledger, verdict(hash_="h2"))
    ledger.fail("op", step="x", error_class="transient", message="m", actor="a", run_id=None)
    assert ledger.present("op").inputs_changed
    ledger.retry("op", actor="a")
    ledger.release("op", actor="bob")
    assert not ledger.present("op").inputs_changed
    decide(ledger, verdict(hash_="h2"))
    ledger.record_preprocessed("op", inputs_hash="h2", details={}, run_id=None, actor="p")
    ledger.claim("op", actor="bob")
    assert not ledger.present("op").inputs_changed
    assert decide(ledger, verdict(hash_="h2")).flagged == []
    assert decide(ledger, verdict(hash_="h1")).flagged == ["op"]


def test_a_bad_verdict_is_reported_alone(ledger, bring):
    bring(ledger, "known", S.INVERTIBLE)
    done = decide(
        ledger,
        verdict("a", details={"x": float("inf")}),
        verdict("b\0"),
        verdict("c", hash_=17),
        verdict("twice"),
        verdict("twice", invertible=False),
        verdict("x" * 3000),
        verdict("known", invertible=False),
        verdict("z"),
    )
    assert {failure.op_id for failure in done.failed} == {"a", "b\0", "c", "twice", "x" * 3000}
    assert all(failure.reason.endswith((".", "source.")) for failure in done.failed)
    assert done.moved == ["known", "z"]
    assert set(ledger.present_all()) == {"known", "z"}


def test_a_record_the_database_refuses_is_reported_alone(ledger, bring, sql, place):
    """A rule of the database that the ledger does not foresee, here one that closes a single OP."""
    bring(ledger, "op", S.INVERTIBLE)
    if place.is_sqlite:
        sql(
            "CREATE TRIGGER closed BEFORE INSERT ON op_transitions WHEN NEW.op_id = 'op'"
            " BEGIN SELECT RAISE(ABORT, 'closed for the day'); END"
        )
    else:
        sql("ALTER TABLE {s}op_transitions ADD CONSTRAINT closed CHECK (op_id <> 'op') NOT VALID")
    done = decide(ledger, verdict("op", invertible=False), verdict("new"))
    assert [failure.op_id for failure in done.failed] == ["op"]
    assert "closed" in done.failed[0].reason
    assert (ledger.present("op").state, ledger.present("new").state) == (S.INVERTIBLE, S.INVERTIBLE)


def test_one_bad_verdict_among_many_keeps_no_other_back(ledger, sql, place, monkeypatch):
    """The database refuses one row of a transaction of many; the others of it go in with it taken out."""
    monkeypatch.setattr("dagster_l2.ledger.verdicts._OPS_PER_TRANSACTION", 64)
    closed = "op077"
    if place.is_sqlite:
        sql(
            f"CREATE TRIGGER closed BEFORE INSERT ON op_transitions WHEN NEW.op_id = '{closed}'"
            " BEGIN SELECT RAISE(ABORT, 'closed for the day'); END"
        )
    else:
        sql(f"ALTER TABLE {{s}}op_transitions ADD CONSTRAINT closed CHECK (op_id <> '{closed}')")
    ops = [f"op{number:03}" for number in range(150)]
    done = decide(ledger, *(verdict(op_id) for op_id in ops), verdict("op\0"), verdict("\ud800"))
    assert {failure.op_id for failure in done.failed} == {closed, "op\0", "\ud800"}
    assert done.moved == sorted(set(ops) - {closed})
    assert done.moves == {(None, S.DISCOVERED): 149, (S.DISCOVERED, S.INVERTIBLE): 149}
    assert {present.seq for present in ledger.present_all().values()} == {2}
    assert decide(ledger, *(verdict(op_id) for op_id in ops)).unchanged == 149


def test_details_are_stored_in_bulk_as_they_are_one_by_one(ledger):
    details = {"text": "é \U0001f31e", "number": 1.5e-7, "list": [1, None, {"b": 1, "a": 2}], "none": None}
    decide(ledger, verdict("one", details=details), verdict("two", details=details))
    row = ledger.append("three", S.DISCOVERED, actor="a", cause="c", details=details)
    said = {"failed_criteria": [], "warnings": ["r0 low"]}
    assert [ledger.present(op_id).details for op_id in ("one", "two")] == [{**details, **said}] * 2
    assert row.details == ledger.present("three").details == details
    broken = decide(
        ledger, verdict("one"), verdict("two"), verdict("three"), verdict("half", details={"x": "\ud83d"})
    )
    assert [failure.op_id for failure in broken.failed] == ["half"]


def test_a_database_that_is_gone_stops_the_pass(ledger, sql, place):
    sql("ALTER TABLE {s}op_annotations RENAME TO elsewhere")
    with pytest.raises(LedgerUnavailable):
        decide(ledger, verdict())


def test_another_writer_in_between_is_judged_anew(ledger, bring, monkeypatch):
    """What decide read at first is out of date by the time it writes: the fresh state counts."""
    bring(ledger, "op", S.PREPROCESSED)
    read = ledger._standings

    def claimed_meanwhile():
        states = read()
        ledger.claim("op", actor="bob")
        return states

    monkeypatch.setattr(ledger, "_standings", claimed_meanwhile)
    done = decide(ledger, verdict(hash_="h2"))
    assert (done.moves, done.flagged, done.failed) == ({}, ["op"], [])
    assert ledger.present("op").state is S.WORKING
