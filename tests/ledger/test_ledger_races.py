"""Several writers at once, in threads and in processes: one wins, and the others are told who."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from dagster_l2.ledger import Conflict, IllegalTransition, State, UnknownOp, Verdict

CLAIMER = """
import json, sys
from dagster_l2.ledger import Conflict, Ledger

url, schema, name, ops = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
won, lost = [], []
with Ledger.open(url, schema=schema) as ledger:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(ops):
        try:
            won.append(ledger.claim(f"op{number}", actor=name).op_id)
        except Conflict as told:
            lost.append([told.op_id, told.actor])
print(json.dumps([won, lost]))
"""


def prepare(ledger, ops):
    package = {"dataset_ids": ["A"]}
    ledger.decide([Verdict(f"op{n}", True, True, True, inputs_hash="h") for n in range(ops)], actor="v")
    for n in range(ops):
        ledger.record_preprocessed(f"op{n}", inputs_hash="h", details=package, run_id=None, actor="p")


def test_threads_that_claim_one_op_make_one_winner(ledger, bring):
    bring(ledger, "op", State.PREPROCESSED)
    barrier = threading.Barrier(10)

    def claim(name):
        barrier.wait()
        try:
            return ledger.claim("op", actor=name)
        except Conflict as told:
            return told

    with ThreadPoolExecutor(10) as pool:
        results = list(pool.map(claim, [f"scientist {n}" for n in range(10)]))
    (winner,) = [result for result in results if not isinstance(result, Conflict)]
    losers = [result for result in results if isinstance(result, Conflict)]
    assert len(losers) == 9
    assert {(told.actor, told.since) for told in losers} == {(winner.actor, winner.occurred_at)}
    assert ledger.present("op").claimed_by == winner.actor
    assert len(ledger.history("op")) == 4


def test_processes_that_claim_the_same_ops_make_one_winner_each(ledger, place):
    ops, names = 12, ["ann", "bob", "cem", "dee"]
    prepare(ledger, ops)
    claimers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, place.url, place.schema, name, str(ops)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in names
    ]
    for claimer in claimers:
        assert claimer.stdout.readline() == "ready\n"
    for claimer in claimers:
        claimer.stdin.write("go\n")
        claimer.stdin.flush()
    outputs = [json.loads(claimer.communicate(timeout=120)[0]) for claimer in claimers]
    winner = {op_id: name for name, (won, _lost) in zip(names, outputs, strict=True) for op_id in won}
    assert sum(len(won) for won, _lost in outputs) == ops == len(winner)
    for _won, lost in outputs:
        assert all(winner[op_id] == actor for op_id, actor in lost)
    for op_id, present in ledger.present_all().items():
        assert (present.seq, present.claimed_by) == (4, winner[op_id])
    assert len({present.inversion_id for present in ledger.present_all().values()}) == ops


def test_writers_past_the_ledger_are_stopped_by_the_database_too(ledger, bring, sql, place):
    """Two raw inserts of the same next row: however they interleave, one row is there."""
    bring(ledger, "op", State.INVERTIBLE)
    statement = (
        "INSERT INTO {s}op_transitions (op_id, seq, from_state, to_state, occurred_at, recorded_at, actor,"
        " cause, details) SELECT op_id, 3, 'Invertible', 'Preprocessed', occurred_at, recorded_at, :actor,"
        " 'raw', details FROM {s}op_transitions WHERE op_id = 'op' AND seq = 2"
    )
    barrier = threading.Barrier(6)

    def insert(name):
        barrier.wait()
        try:
            sql(statement, actor=name)
        except Exception as error:  # noqa: BLE001
            return error
        return None

    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(insert, map(str, range(6))))
    assert results.count(None) == 1
    assert [row.seq for row in ledger.history("op")] == [1, 2, 3]


def test_decide_from_several_sides_appends_each_step_once(place):
    verdicts = [Verdict(f"op{n}", True, True, n % 2 == 0, inputs_hash="h") for n in range(20)]
    barrier = threading.Barrier(3)

    def side(_n):
        with place.open() as ledger:
            barrier.wait()
            return ledger.decide(verdicts, actor="v")

    with ThreadPoolExecutor(3) as pool:
        sides = list(pool.map(side, range(3)))
    assert [failure for done in sides for failure in done.failed] == []
    assert sum(sum(done.moves.values()) for done in sides) == 40
    with place.open() as ledger:
        assert {present.seq for present in ledger.present_all().values()} == {2}


def judged(hash_="h1", **said):
    return Verdict("op", True, True, said.get("is_invertible", True), inputs_hash=hash_)


def published(ledger):
    return ledger.published(
        "op", inversion_id=ledger.present("op").inversion_id, details={}, actor="late", run_id=None
    )


# The state, what is begun there, and who moves the OP before it has its turn.
RACES = {
    "claim against a verdict": (
        State.PREPROCESSED,
        lambda ledger: ledger.claim("op", actor="late"),
        lambda ledger: ledger.decide([judged("h2")], actor="winner"),
    ),
    "claim against a claim": (
        State.PREPROCESSED,
        lambda ledger: ledger.claim("op", actor="late"),
        lambda ledger: ledger.claim("op", actor="winner"),
    ),
    "claim against a failure": (
        State.PREPROCESSED,
        lambda ledger: ledger.claim("op", actor="late"),
        lambda ledger: failed(ledger, "winner"),
    ),
    "package against a verdict": (
        State.INVERTIBLE,
        lambda ledger: ledger.record_preprocessed(
            "op", inputs_hash="h1", details={}, run_id=None, actor="late"
        ),
        lambda ledger: ledger.decide([judged(is_invertible=False)], actor="winner"),
    ),
    "publishing against a withdrawal": (
        State.INVERTED,
        published,
        lambda ledger: ledger.withdraw("op", actor="winner", reason="r"),
    ),
    "withdrawal against a failure": (
        State.INVERTED,
        lambda ledger: ledger.withdraw("op", actor="late", reason="r"),
        lambda ledger: failed(ledger, "winner"),
    ),
    "failure against a failure": (
        State.WORKING,
        lambda ledger: failed(ledger, "late"),
        lambda ledger: failed(ledger, "winner"),
    ),
    "retry against a retry": (
        State.ERROR,
        lambda ledger: ledger.retry("op", actor="late"),
        lambda ledger: ledger.retry("op", actor="winner"),
    ),
    "first row against a verdict": (
        None,
        lambda ledger: ledger.append("op", State.DISCOVERED, actor="late", cause="c"),
        lambda ledger: ledger.decide([judged()], actor="winner"),
    ),
}


def failed(ledger, actor):
    return ledger.fail("op", step="s", error_class="permanent", message="m", actor=actor, run_id=None)


@pytest.mark.parametrize("race", RACES)
def test_who_comes_second_is_told_who_was_first_and_when(ledger, place, bring, monkeypatch, race):
    state, begun, moved = RACES[race]
    if state is not None:
        bring(ledger, "op", state)
    writing = ledger._database.writing

    @contextmanager
    def in_its_turn(op_id=None):
        monkeypatch.undo()
        with place.open() as other:
            moved(other)
        with writing(op_id) as connection:
            yield connection

    monkeypatch.setattr(ledger._database, "writing", in_its_turn)
    with pytest.raises(Conflict) as told:
        begun(ledger)
    now = ledger.present("op")
    assert now.actor == "winner"
    assert (told.value.actor, told.value.since, told.value.state) == ("winner", now.since, now.state)
    assert f"is {now.state} since {now.since:%Y-%m-%d %H:%M:%S} UTC (by winner)" in str(told.value)


def test_a_chunk_of_verdicts_that_meets_a_row_on_its_way_is_judged_anew(ledger, place, bring, sql):
    """The row is there but not committed when the chunk is appended."""
    bring(ledger, "op", State.PREPROCESSED)
    verdicts = [judged("h2"), *(Verdict(f"new{n}", True, True, True, inputs_hash="h") for n in range(9))]
    prefix = "" if place.is_sqlite else f'"{place.schema}".'
    row = (
        f"INSERT INTO {prefix}op_transitions (op_id, seq, from_state, to_state, occurred_at, recorded_at,"
        " actor, cause, inversion_id, details) SELECT op_id, seq + 1, to_state, 'Working', occurred_at,"
        " recorded_at, 'bob', 'claimed', 'inv.AAAAAA', details"
        f" FROM {prefix}op_transitions WHERE op_id = 'op' AND seq = 3"
    )
    with ThreadPoolExecutor(1) as pool, place.open() as other:
        with other.engine.connect().execution_options(l2_writing=True) as connection, connection.begin():
            connection.exec_driver_sql(row)
            decided = pool.submit(ledger.decide, verdicts, actor="v")
            with pytest.raises(TimeoutError):
                decided.result(timeout=0.5)  # it waits
        done = decided.result(timeout=60)
    assert done.failed == []
    assert (len(done.moved), done.unchanged + len(done.flagged)) == (9, 1)
    assert ledger.present("op").actor == "bob"


def test_passes_of_verdicts_and_single_steps_never_lock_each_other_out(place, monkeypatch):
    """Two bulk passes that go to and fro over the same OPs, and people at work on them meanwhile."""
    monkeypatch.setattr("dagster_l2.ledger.verdicts._OPS_PER_TRANSACTION", 40)
    ops, over = [f"op{n:03}" for n in range(120)], threading.Event()

    def decide(side):
        with place.open() as ledger:
            for turn in range(6):
                said = [Verdict(op, True, True, (turn + side) % 2 == 0, inputs_hash="h") for op in ops]
                assert ledger.decide(said, actor=f"v{side}").failed == []

    def work(name):
        chance, done = random.Random(name), 0
        with place.open() as ledger:
            while not over.is_set():
                op = chance.choice(ops)
                try:
                    match ledger.present(op).state:
                        case State.INVERTIBLE:
                            ledger.record_preprocessed(
                                op, inputs_hash="h", details={}, run_id=None, actor=name
                            )
                        case State.PREPROCESSED:
                            ledger.claim(op, actor=name)
                        case State.WORKING:
                            ledger.release(op, actor=name, is_operator=True)
                        case _:
                            continue
                    done += 1
                except (Conflict, IllegalTransition, UnknownOp):
                    continue
        return done

    with ThreadPoolExecutor(5) as pool:
        workers = [pool.submit(work, name) for name in ("ann", "bob", "cem")]
        try:
            list(pool.map(decide, range(2)))
        finally:
            over.set()
        assert sum(worker.result() for worker in workers) > 0
    with place.open() as ledger:
        for op in ops:
            assert [row.seq for row in ledger.history(op)] == list(range(1, ledger.present(op).seq + 1))
