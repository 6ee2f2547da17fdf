"""Random sequences of all operations against a plain model: states agree, rows stay, decide rests.

The model below is written from the design's table, not from the ledger's code.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from dagster_l2.ledger import Ledger, LedgerError, Verdict

OPS = ["a", "../b", "c'\n"]
PEOPLE = ["ann", "bob"]
STEPS = ["prepare", "claim", "release", "accept", "refuse", "publish", "reopen", "withdraw", "fail", "retry"]
HASHES = st.sampled_from(["h1", "h2"])
VERDICTS = st.dictionaries(
    st.sampled_from(OPS), st.tuples(st.booleans(), st.booleans(), st.booleans(), HASHES)
)
ALL_GOOD = st.just(dict.fromkeys(OPS, (True, True, True, "h1")))


@dataclass
class Model:
    """One OP in plain words."""

    states: list[str] = field(default_factory=list)
    package: str | None = None
    claimer: str | None = None
    inversions: int = 0

    @property
    def state(self) -> str | None:
        return self.states[-1] if self.states else None

    def judge(self, verdict) -> None:
        datasets, complete, invertible, inputs = verdict or (False, False, False, None)
        if not self.states:
            if verdict is None:
                return
            self.states.append("Discovered")
        if self.state == "NotInvertible":
            if datasets and complete and invertible:
                self.states.append("Invertible")
        elif self.state in ("Discovered", "Invertible", "Preprocessed"):
            waits = self.state == "Discovered" and not complete
            if not datasets or (not invertible and not waits):
                self.states.append("NotInvertible")
            elif not waits and (
                self.state == "Discovered" or (self.state == "Preprocessed" and inputs != self.package)
            ):
                self.states.append("Invertible")

    def may(self, step: str, person: str) -> bool:
        wanted = {
            "prepare": "Invertible",
            "claim": "Preprocessed",
            "release": "Working",
            "accept": "Working",
            "refuse": "Working",
            "publish": "Inverted",
            "reopen": "Published",
            "withdraw": "Inverted",
            "retry": "Error",
        }
        if step == "fail":
            return self.state not in (None, "Published", "Error")
        if self.state != wanted[step]:
            return False
        return step not in ("release", "accept", "refuse") or person == self.claimer

    def take(self, step: str, person: str) -> None:
        if step == "claim":
            self.claimer = person
        if step in ("claim", "withdraw"):
            self.inversions += 1
        if step == "prepare":
            self.package = "h1"
        after = {
            "prepare": "Preprocessed",
            "claim": "Working",
            "release": "Preprocessed",
            "accept": "Inverted",
            "publish": "Published",
            "reopen": "Invertible",
            "withdraw": "Working",
            "fail": "Error",
        }
        if step == "retry":
            self.states.append(self.states[-2])
        elif step in after:
            self.states.append(after[step])


class Refused(Exception):
    pass


def perform(ledger: Ledger, step: str, op_id: str, person: str) -> None:
    def verify(_event):
        if step == "refuse":
            raise Refused("no")
        return {"products": []}

    if step == "prepare":
        details = {"dataset_ids": ["D"]}
        ledger.record_preprocessed(op_id, inputs_hash="h1", details=details, run_id=None, actor=person)
    elif step in ("accept", "refuse"):
        handed = ledger.submit_ready(
            op_id, products="p", commit_hash="c", actor=person, inputs_changed_ok=True
        )
        ledger.settle(handed, verify, run_id=None, actor=person, refusals=(Refused,))
    elif step == "publish":
        inversion = ledger.present(op_id).inversion_id or "none"
        ledger.published(op_id, inversion_id=inversion, details={}, actor=person, run_id=None)
    elif step == "fail":
        ledger.fail(op_id, step="s", error_class="transient", message="m", actor=person, run_id=None)
    elif step in ("reopen", "withdraw"):
        getattr(ledger, step)(op_id, actor=person, reason="r")
    else:
        getattr(ledger, step)(op_id, actor=person)


def compare(ledger: Ledger, model: dict[str, Model]) -> None:
    present = ledger.present_all()
    assert {op_id: str(now.state) for op_id, now in present.items()} == {
        op_id: plain.state for op_id, plain in model.items() if plain.states
    }
    for op_id, now in present.items():
        history = ledger.history(op_id)
        assert [str(row.to_state) for row in history] == model[op_id].states
        assert [row.seq for row in history] == list(range(1, len(history) + 1))
        assert [row.from_state for row in history] == [None, *(row.to_state for row in history[:-1])]
        assert [row.occurred_at for row in history] == sorted(row.occurred_at for row in history)
        assert len({row.inversion_id for row in history} - {None}) == model[op_id].inversions
        assert ledger.present(op_id) == now


def draw_step(data, model: dict[str, Model]):
    """Mostly a step the model allows, so that sequences get far; sometimes any step, or verdicts."""
    kind = data.draw(st.sampled_from(["verdicts", "all good", "any", *["allowed"] * 6]))
    every = [(step, op_id, person) for op_id in OPS for step in STEPS for person in PEOPLE]
    if kind == "allowed":
        every = [(step, op_id, person) for step, op_id, person in every if model[op_id].may(step, person)]
    if kind in ("any", "allowed") and every:
        return data.draw(st.sampled_from(every))
    return "decide", data.draw(VERDICTS if kind == "verdicts" else ALL_GOOD), "verdict"


def run(ledger: Ledger, data) -> None:
    model = {op_id: Model() for op_id in OPS}
    seen: list[object] = []
    for _number in range(data.draw(st.integers(5, 40))):
        step, subject, person = draw_step(data, model)
        if step == "decide":
            check_decide(ledger, model, subject)
        elif model[subject].may(step, person):
            perform(ledger, step, subject, person)
            model[subject].take(step, person)
        else:
            with pytest.raises(LedgerError):
                perform(ledger, step, subject, person)
        rows = [row for part in ledger.transitions() for row in part]
        assert rows[: len(seen)] == seen
        seen = rows
    for plain in model.values():
        event(f"reached {plain.state}")
    compare(ledger, model)


def check_decide(ledger: Ledger, model: dict[str, Model], said) -> None:
    verdicts = [Verdict(op_id, d, c, i, inputs_hash=h) for op_id, (d, c, i, h) in said.items()]
    if not verdicts and any(plain.states for plain in model.values()):
        with pytest.raises(LedgerError):
            ledger.decide(verdicts, actor="verdict")
        return
    assert ledger.decide(verdicts, actor="verdict").failed == []
    for op_id, plain in model.items():
        plain.judge(said.get(op_id))
    again = ledger.decide(verdicts, actor="verdict")
    assert (again.moves, again.moved, again.flagged, again.failed) == ({}, [], [], [])


SLOW = (HealthCheck.too_slow, HealthCheck.function_scoped_fixture)


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(st.data())
def test_on_sqlite_the_ledger_does_what_the_model_does(data):
    with tempfile.TemporaryDirectory() as folder, Ledger.open(f"sqlite:///{folder}/l2.sqlite") as ledger:
        run(ledger, data)


@settings(max_examples=12, deadline=None, suppress_health_check=SLOW)
@given(st.data())
def test_on_postgresql_the_ledger_does_what_the_model_does(postgres_url, data):
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("DROP SCHEMA IF EXISTS ledger_model CASCADE")
    engine.dispose()
    with Ledger.open(postgres_url, schema="ledger_model") as ledger:
        run(ledger, data)
