"""Every step between two states: allowed or refused, by the ledger and by the database alone."""

from __future__ import annotations

import itertools

import pytest
import sqlalchemy as sa

from dagster_l2.ledger import EDGES, IllegalTransition, State, UnknownOp, mermaid

# Written out from the design, so that a change of the table of edges is seen here.
DESIGN = {
    None: {"Discovered"},
    "Discovered": {"Invertible", "NotInvertible", "Error"},
    "Invertible": {"NotInvertible", "Preprocessed", "Error"},
    "NotInvertible": {"Invertible", "Error"},
    "Preprocessed": {"NotInvertible", "Invertible", "Working", "Error"},
    "Working": {"Preprocessed", "Inverted", "Error"},
    "Inverted": {"Working", "Published", "Error"},
    "Published": {"Invertible"},
    "Error": {"Discovered", "Invertible", "NotInvertible", "Preprocessed", "Working", "Inverted"},
}
WITHOUT_ERROR = [state for state in State if state is not State.ERROR]


def test_the_edges_are_those_of_the_design():
    found = {}
    for edge in EDGES:
        found.setdefault(edge.from_state, set()).add(str(edge.to_state))
    assert found == DESIGN


def test_the_database_holds_the_same_edges(sql):
    rows = sql("SELECT from_state, to_state FROM {s}op_edges")
    assert set(rows) == {(start or "", end) for start, ends in DESIGN.items() for end in ends}


@pytest.mark.parametrize("start", WITHOUT_ERROR)
def test_from_each_state_only_its_edges_are_taken(ledger, bring, start):
    for end in State:
        op_id = f"{start} to {end}"
        bring(ledger, op_id, start)
        if end in DESIGN[start]:
            assert ledger.append(op_id, end, actor="a", cause="c").to_state is end
            assert ledger.present(op_id).state is end
        else:
            with pytest.raises(IllegalTransition, match=rf"is {start} since .* not to {end}"):
                ledger.append(op_id, end, actor="a", cause="c")
            assert ledger.present(op_id).state is start


def test_a_history_begins_with_discovered(ledger):
    for end in WITHOUT_ERROR[1:]:
        with pytest.raises(UnknownOp, match="no OP new"):
            ledger.append("new", end, actor="a", cause="c")
    assert ledger.append("new", State.DISCOVERED, actor="a", cause="c").seq == 1


@pytest.mark.parametrize("before", [state for state in WITHOUT_ERROR if state is not State.PUBLISHED])
def test_a_retry_returns_to_the_state_before_the_error_and_to_no_other(ledger, bring, before):
    was = bring(ledger, "op", before)
    ledger.fail("op", step="scan", error_class="transient", message="m", actor="a", run_id="r")
    for end in State:
        if end is not before:
            with pytest.raises(IllegalTransition):
                ledger.append("op", end, actor="a", cause="c")
    ledger.retry("op", actor="a")
    now = ledger.present("op")
    assert (now.state, now.inversion_id, now.inputs_hash, now.details) == (
        before,
        was.inversion_id,
        was.inputs_hash,
        was.details,
    )


INSERT = """
    INSERT INTO {s}op_transitions (op_id, seq, from_state, to_state, occurred_at, recorded_at, actor, cause,
        inversion_id, details)
    SELECT op_id, seq + 1, to_state, :end, occurred_at, recorded_at, 'sql', 'sql', :inversion, :details
    FROM {s}op_transitions WHERE op_id = :op ORDER BY seq DESC LIMIT 1
"""


@pytest.mark.parametrize("start", WITHOUT_ERROR)
def test_the_database_alone_refuses_a_step_that_is_no_edge(ledger, bring, sql, start):
    present = bring(ledger, "op", start)
    for end in [*State, "Nowhere", "discovered", ""]:
        if end in DESIGN[start]:
            continue
        for inversion in {None, present.inversion_id, "inv.NEW000"}:
            with pytest.raises(sa.exc.IntegrityError, match="l2-edge"):
                sql(INSERT, details="{}", end=str(end), op="op", inversion=inversion)
    assert ledger.present("op").seq == present.seq


@pytest.mark.parametrize("before", [State.DISCOVERED, State.NOT_INVERTIBLE, State.WORKING, State.INVERTED])
def test_the_database_alone_refuses_a_retry_to_another_state(ledger, bring, sql, before):
    inversion = bring(ledger, "op", before).inversion_id
    ledger.fail("op", step="scan", error_class="permanent", message="m", actor="a", run_id=None)
    for end, number in itertools.product(State, {None, inversion}):
        if end is not before:
            with pytest.raises(sa.exc.IntegrityError, match="l2-edge"):
                sql(INSERT, details="{}", end=end, op="op", inversion=number)
    sql(INSERT, details="{}", end=before, op="op", inversion=inversion)
    assert ledger.present("op").state is before


def test_the_diagram_draws_every_edge():
    text = mermaid()
    assert text.startswith("stateDiagram-v2\n")
    for start, ends in DESIGN.items():
        for end in ends - {"Error"}:
            if start != "Error":
                assert f"{start or '[*]'} --> {end}: " in text
    assert "Inverted" in text.split("note right of Error")[1]
