"""Random sequences of every operation by several actors, compared after each with a model in plain words.

The model is in ``ledger_model``, written from the design's table and not from the ledger's code.
"""

from __future__ import annotations

import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from ledger_model import OPS, PACKAGE_HASH, PEOPLE, STEPS, Model

from dagster_l2.ledger import InvalidRecord, Ledger, LedgerError, State, Transition, Verdict

PATH = ("Invertible", "Preprocessed", "Working", "Inverted", "Published")
HASHES = st.sampled_from([PACKAGE_HASH, "h2"])
SAID = st.tuples(st.booleans(), st.booleans(), st.booleans(), HASHES)
ALL_GOOD = dict.fromkeys(OPS, (True, True, True, PACKAGE_HASH))
REMARKS: dict[str, Callable[[Ledger, str, str], Any]] = {
    "priority": lambda ledger, op_id, who: ledger.prioritize(op_id, 3, reason="r", actor=who),
    "assigned": lambda ledger, op_id, who: ledger.assign(op_id, "eve", actor=who),
    "note": lambda ledger, op_id, who: ledger.note(op_id, "n", actor=who),
    "other": lambda ledger, op_id, who: ledger.annotate(op_id, kind="other", actor=who, details={}),
}


# Fewer, and the sequences would prove less than they seem to.
WANTED_SHARES = {"Published": 0.3, "re-opened": 0.1, "Error": 0.1, "retried by itself": 0.02}


class Refused(Exception):
    pass


class Broken(Exception):
    pass


class Machine(RuleBasedStateMachine):
    """One ledger and its model; ``open_ledger`` gives an empty one, ``reached`` counts over all examples."""

    open_ledger: Callable[[], tuple[Ledger, Callable[[], None]]]
    reached: Counter[str]

    def __init__(self) -> None:
        super().__init__()
        self.ledger, self.remove = type(self).open_ledger()
        self.model = {op_id: Model() for op_id in OPS}
        self.moments: list[datetime] = []
        self.seen: list[Transition] = []
        self.happened: set[str] = set()

    # -- the rules ----------------------------------------------------------------------------------------

    @initialize(
        until=st.tuples(
            *[st.sampled_from([None, "Preprocessed", "Inverted", "Published", "Published"])] * len(OPS)
        )
    )
    def some_have_come_far(self, until: tuple[str | None, ...]) -> None:
        for op_id, state in zip(OPS, until, strict=True):
            if state is not None:
                self.go_on(op_id, PEOPLE[0], state)

    @rule(said=st.dictionaries(st.sampled_from(OPS), SAID))
    def any_verdicts(self, said: dict[str, Any]) -> None:
        self.decide(said)

    @rule(data=st.data())
    def an_allowed_step(self, data: st.DataObject) -> None:
        allowed = [step for step in self.every_step() if self.model[step[1]].may(step[0], step[2])]
        if allowed:
            self.act(*data.draw(st.sampled_from(allowed)))

    @rule(step=st.sampled_from(STEPS), op_id=st.sampled_from(OPS), who=st.sampled_from(PEOPLE))
    def any_step(self, step: str, op_id: str, who: str) -> None:
        self.act(step, op_id, who)

    @rule(op_id=st.sampled_from(OPS), who=st.sampled_from(PEOPLE), until=st.sampled_from(PATH))
    def the_straight_way(self, op_id: str, who: str, until: str) -> None:
        self.go_on(op_id, who, until)

    def go_on(self, op_id: str, who: str, until: str) -> None:
        """Take the steps to a state, so that random ones meet OPs that have come far."""
        plain = self.model[op_id]
        following = {"Invertible": "prepare", "Preprocessed": "claim", "Inverted": "publish"}
        following |= {"Published": "reopen", "Error": "retry"}
        for _ in range(8):
            if plain.state == until:
                break
            if plain.state in following:
                self.act(following[plain.state], op_id, who)
            elif plain.state == "Working":
                self.act("ready", op_id, plain.claimer or who)
                self.settle("good")
            else:
                self.decide(ALL_GOOD)

    @rule(op_id=st.sampled_from(OPS), who=st.sampled_from(PEOPLE), limits=st.lists(st.integers(0, 4)))
    def fails_again_and_again(self, op_id: str, who: str, limits: list[int]) -> None:
        for limit in (*limits, None):
            self.act("fail one transient", op_id, who)
            if limit is not None:
                self.retry_transient_now(limit)

    @rule(outcome=st.sampled_from(["good", "good", "bad", "broken"]))
    def take_hand_overs(self, outcome: str) -> None:
        for op_id, plain in self.model.items():
            if plain.state == "Working":
                self.act("ready", op_id, str(plain.claimer))
        self.settle(outcome)
        self.settle("good")

    @rule(limit=st.integers(0, 4))
    def retry_transient(self, limit: int) -> None:
        self.retry_transient_now(limit)

    def retry_transient_now(self, limit: int) -> None:
        transient = {op_id: plain for op_id, plain in self.model.items() if plain.is_transient}
        again = {op_id for op_id, plain in transient.items() if plain.tries_now < limit}
        done = self.ledger.retry_transient(limit, actor="pipeline", run_id="r")
        assert {row.op_id for row in done.retried} == again
        assert {row.op_id for row in done.exhausted} == transient.keys() - again
        for op_id in again:
            self.model[op_id].come_back(self.now, by_itself=True)
            self.happened.add("retried by itself")
        if transient.keys() - again and limit:
            self.happened.add("tried too often")
        assert self.ledger.retry_transient(limit, actor="pipeline", run_id="r").retried == []

    @rule(kind=st.sampled_from(sorted(REMARKS)), op_id=st.sampled_from(OPS), who=st.sampled_from(PEOPLE))
    def remark(self, kind: str, op_id: str, who: str) -> None:
        plain = self.model[op_id]
        if plain.state is None:
            with pytest.raises(LedgerError):
                REMARKS[kind](self.ledger, op_id, who)
            return
        for _ in range(2):
            REMARKS[kind](self.ledger, op_id, who)
            plain.remark(kind, who)

    @rule(op_id=st.sampled_from(OPS), back=st.integers(0, 5))
    def recorded_late(self, op_id: str, back: int) -> None:
        """What is only recorded now occurred at an earlier moment, but never before the step before it."""
        plain, when = self.model[op_id], len(self.moments) - 1 - back
        following = {None: "Discovered", "Discovered": "NotInvertible", "NotInvertible": "Invertible"}
        following |= {"Invertible": "NotInvertible", "Preprocessed": "NotInvertible"}
        if plain.state not in following or when < 0:
            return
        to_state = following[plain.state]
        call = {"actor": "scan", "cause": "late", "occurred_at": self.moments[when]}
        if plain.rows and when < plain.rows[-1].occurred:
            with pytest.raises(InvalidRecord):
                self.ledger.append(op_id, State(to_state), **call)
            return
        self.ledger.append(op_id, State(to_state), **call)
        plain.progress(to_state, self.now, occurred=when)
        for known_at in (None, self.now - 1):
            self.compare_as_of(when, known_at)

    @rule(at=st.none() | st.integers(0, 99), known_at=st.none() | st.integers(0, 99))
    def look_back(self, at: int | None, known_at: int | None) -> None:
        if self.moments:
            places = [None if n is None else n % len(self.moments) for n in (at, known_at)]
            self.compare_as_of(*places)

    # -- what they do -------------------------------------------------------------------------------------

    @property
    def now(self) -> int:
        """The number of the moment that ends this step."""
        return len(self.moments)

    def every_step(self) -> Iterator[tuple[str, str, str]]:
        return itertools.product(STEPS, OPS, PEOPLE)

    def decide(self, said: dict[str, Any]) -> None:
        verdicts = [Verdict(op_id, d, c, i, inputs_hash=h) for op_id, (d, c, i, h) in said.items()]
        if not verdicts and any(plain.rows for plain in self.model.values()):
            with pytest.raises(LedgerError):
                self.ledger.decide(verdicts, actor="pipeline")
            return
        assert self.ledger.decide(verdicts, actor="pipeline").failed == []
        for op_id, plain in self.model.items():
            plain.judge(said.get(op_id), self.now)
        again = self.ledger.decide(verdicts, actor="pipeline")
        assert (again.moves, again.moved, again.flagged, again.failed) == ({}, [], [], [])

    def act(self, step: str, op_id: str, who: str) -> None:
        plain = self.model[op_id]
        if not plain.may(step, who):
            with pytest.raises(LedgerError):
                self.perform(step, op_id, who)
            return
        row = self.perform(step, op_id, who)
        if step == "ready":
            plain.events.append((row.event_id, row.inversion_id))
            return
        plain.take(step, who, self.now, row.inversion_id)
        if step == "reopen":
            self.happened.add("re-opened")
        if step.startswith("fail"):
            assert row.details["tries"] == plain.tries_now

    def perform(self, step: str, op_id: str, who: str) -> Any:
        ledger = self.ledger
        if step == "prepare":
            details = {"dataset_ids": ["D"]}
            return ledger.record_preprocessed(
                op_id, inputs_hash=PACKAGE_HASH, details=details, run_id=None, actor=who
            )
        if step == "ready":
            return ledger.submit_ready(
                op_id, products="p", commit_hash="c", actor=who, inputs_changed_ok=True
            )
        if step == "publish":
            inversion = self.model[op_id].inversion or "none"
            return ledger.published(op_id, inversion_id=inversion, details={}, actor=who, run_id=None)
        if step.startswith("fail"):
            _, name, error_class = step.split()
            return ledger.fail(op_id, step=name, error_class=error_class, message="m", actor=who, run_id=None)
        if step in ("reopen", "withdraw"):
            return getattr(ledger, step)(op_id, actor=who, reason="r")
        return getattr(ledger, step)(op_id, actor=who)

    def settle(self, outcome: str) -> None:
        """Take the hand-overs as the step of the pipeline does."""

        def verify(_event: object) -> dict[str, Any]:
            if outcome == "good":
                return {"products": []}
            raise Refused("no") if outcome == "bad" else Broken("away")

        waiting = self.ledger.pending_events()
        assert [event.event_id for event in waiting] == sorted_by(
            self.ledger, [number for plain in self.model.values() for number in plain.pending]
        )
        for one in waiting:
            plain = self.model[one.op_id]
            call = {"run_id": None, "actor": "pipeline", "refusals": (Refused,)}
            if one.event_id not in plain.pending:  # an event of the same OP broke a moment ago
                with pytest.raises(LedgerError):
                    self.ledger.settle(one, verify, **call)
            elif plain.is_current(one.inversion_id) and outcome == "broken":
                with pytest.raises(Broken):
                    self.ledger.settle(one, verify, **call)
                self.act("fail verify transient", one.op_id, "pipeline")
            else:
                is_good = plain.is_current(one.inversion_id) and outcome == "good"
                assert self.ledger.settle(one, verify, **call).is_accepted is is_good
                plain.settle(one.event_id, is_good, self.now)

    # -- what must hold -----------------------------------------------------------------------------------

    @invariant()
    def the_ledger_is_as_the_model(self) -> None:
        self.moments.append(datetime.now(UTC))
        rows = [row for part in self.ledger.transitions() for row in part]
        assert rows[: len(self.seen)] == self.seen, "an old row changed"
        self.seen = rows
        for op_id, plain in self.model.items():
            mine = [row for row in rows if row.op_id == op_id]
            assert [str(row.to_state) for row in mine] == [row.state for row in plain.rows]
            assert [row.seq for row in mine] == list(range(1, len(mine) + 1))
            assert [row.from_state for row in mine] == [None, *(row.to_state for row in mine[:-1])][
                : len(mine)
            ]
            assert [row.inversion_id for row in mine] == [row.inversion for row in plain.rows]
            assert [row.occurred_at for row in mine] == sorted(row.occurred_at for row in mine)
        present = self.ledger.present_all()
        assert {op_id: self.plainly(now) for op_id, now in present.items()} == {
            op_id: (plain.state, plain.inversion_now, plain.claimer_now, plain.tries_now)
            for op_id, plain in self.model.items()
            if plain.rows
        }

    def plainly(self, now: Any) -> tuple[str, str | None, str | None, int | None]:
        return str(now.state), now.inversion_id, now.claimed_by, now.details.get("tries")

    def compare_as_of(self, at: int | None, known_at: int | None) -> None:
        """What was true at one moment, as far as it was known at another."""
        then = {
            op_id: row
            for op_id, plain in self.model.items()
            if (row := plain.as_of(at, known_at)) is not None
        }
        found = self.ledger.present_all(
            at=None if at is None else self.moments[at],
            known_at=None if known_at is None else self.moments[known_at],
        )
        assert {op_id: (str(now.state), now.inversion_id) for op_id, now in found.items()} == {
            op_id: (row.state, row.inversion) for op_id, row in then.items()
        }

    def teardown(self) -> None:
        try:
            for number in range(0, len(self.moments), 5):
                self.compare_as_of(number, None)
                self.compare_as_of(None, number)
            for op_id, plain in self.model.items():
                if plain.rows:
                    assert self.ledger.history(op_id) == [row for row in self.seen if row.op_id == op_id]
                    assert self.ledger.present(op_id) == self.ledger.present_all()[op_id]
                for kind in REMARKS:
                    found = [note.actor for note in self.ledger.annotations(op_id, kind)]
                    assert found == plain.remarks.get(kind, [])
            self.happened |= {row.state for plain in self.model.values() for row in plain.rows}
            for name in sorted(self.happened):
                event(f"reached {name}")
            self.reached.update(["examples", *self.happened])
        finally:
            self.ledger.close()
            self.remove()


def sorted_by(ledger: Ledger, numbers: list[str]) -> list[str]:
    """Events in the order in which they came in."""
    came = [event for op_id in OPS for event, _ in ledger.events(op_id) if event.event_id in numbers]
    return [event.event_id for event in sorted(came, key=lambda event: event.received_at)]


def run(
    open_ledger: Callable[[], tuple[Ledger, Callable[[], None]]], examples: int, steps: int
) -> dict[str, float]:
    counts: Counter[str] = Counter()

    class OnThisDatabase(Machine):
        reached = counts

    OnThisDatabase.open_ledger = staticmethod(open_ledger)
    run_state_machine_as_test(
        OnThisDatabase,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
    return {name: count / counts["examples"] for name, count in counts.items()}


def test_on_sqlite_the_ledger_does_what_the_model_does(tmp_path: Path) -> None:
    template, numbers = tmp_path / "template.sqlite", itertools.count()
    Ledger.open(f"sqlite:///{template}").close()

    def fresh() -> tuple[Ledger, Callable[[], None]]:
        path = tmp_path / f"{next(numbers)}.sqlite"
        shutil.copyfile(template, path)
        return Ledger.open(f"sqlite:///{path}"), lambda: path.unlink()

    shares = run(fresh, examples=30, steps=25)
    assert all(shares.get(name, 0.0) >= share for name, share in WANTED_SHARES.items()), shares


def test_on_postgresql_the_ledger_does_what_the_model_does(postgres_url: str) -> None:
    """Each sequence has a database of its own, copied from one that is prepared."""
    admin = sa.create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    numbers = itertools.count()

    def address(name: str) -> str:
        return sa.make_url(postgres_url).set(database=name).render_as_string(hide_password=False)

    def execute(statement: str) -> None:
        with admin.connect() as connection:
            connection.exec_driver_sql(statement)

    def fresh() -> tuple[Ledger, Callable[[], None]]:
        name = f"ledger_model_{next(numbers)}"
        execute(f"CREATE DATABASE {name} TEMPLATE ledger_model STRATEGY wal_log")
        return Ledger.open(address(name)), lambda: execute(f"DROP DATABASE {name} WITH (FORCE)")

    execute("CREATE DATABASE ledger_model")
    Ledger.open(address("ledger_model")).close()
    try:
        run(fresh, examples=12, steps=20)
    finally:
        execute("DROP DATABASE ledger_model WITH (FORCE)")
        admin.dispose()
