"""Several writers at once, in threads and in processes: one wins, and the others are told who."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

from dagster_l2.ledger import Conflict, State, Verdict

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
