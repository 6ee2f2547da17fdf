"""Writers that die at any moment: nothing that was acknowledged is lost, nothing is there twice or half."""

from __future__ import annotations

import collections
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from dagster_l2.ledger import CAN_FAIL, EDGES, HAS_INVERSION, State, Verdict

WRITERS, APPENDS, OPS = 8, 500, 50

# Takes a step from wherever the OP is, as the others do; a line in its log for each one acknowledged.
WRITER = """
import random, sys
from dagster_l2.ledger import CAN_FAIL, Conflict, IllegalTransition, Ledger, State, successors

url, schema, name, log, appends, ops = *sys.argv[1:5], int(sys.argv[5]), int(sys.argv[6])
chance = random.Random(name)
with Ledger.open(url, schema=schema) as ledger, open(log, "w", buffering=1) as acknowledged:
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(appends):
        while True:
            op_id = f"op{chance.randrange(ops)}"
            present = ledger.present(op_id)
            if present.state is State.ERROR:
                to_state = present.previous_state
            else:
                to_state = chance.choice(successors(present.state))
            mark = f"{name} {number}"
            try:
                row = ledger.append(op_id, to_state, expected=present.state, actor=name, cause=mark)
                break
            except (Conflict, IllegalTransition):
                continue
        acknowledged.write(f"{row.transition_id} {op_id} {row.seq} {mark}\\n")
"""


def start(script: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def go(*processes: subprocess.Popen[str]) -> None:
    """Wait until all are ready, then let all begin."""
    for process in processes:
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()


def replay(history) -> None:
    """Follow the rules of the design through one OP's history, without the ledger's own code."""
    edges = {(edge.from_state, edge.to_state) for edge in EDGES}
    state = before_error = inversion = None
    last = None
    for seq, row in enumerate(history, start=1):
        assert (row.seq, row.from_state) == (seq, state)
        assert (state, row.to_state) in edges
        assert state is not State.ERROR or row.to_state is before_error
        assert row.occurred_at <= row.recorded_at
        assert last is None or (last.occurred_at <= row.occurred_at and last.recorded_at <= row.recorded_at)
        if row.to_state is State.WORKING and state is not State.ERROR:
            assert row.inversion_id not in (None, inversion)
        elif row.to_state in HAS_INVERSION or row.to_state is State.ERROR:
            assert row.inversion_id == inversion
        else:
            assert row.inversion_id is None
        before_error, state, inversion, last = state, row.to_state, row.inversion_id, row
        assert before_error is None or state is not State.ERROR or before_error in CAN_FAIL


def test_half_of_the_writers_killed_at_any_moment_lose_and_double_nothing(ledger, place, tmp_path):
    for number in range(OPS):
        ledger.append(f"op{number}", State.DISCOVERED, actor="scan", cause="found")
    logs = [tmp_path / f"writer{number}.log" for number in range(WRITERS)]
    writers = [
        start(WRITER, place.url, place.schema, f"writer{number}", log, APPENDS, OPS)
        for number, log in enumerate(logs)
    ]
    go(*writers)
    doomed = writers[::2]
    for writer, moment in zip(doomed, sorted(random.random() for _writer in doomed), strict=True):
        # Each at another moment of its work: by what it has written, not by the clock of a busy machine.
        log = logs[writers.index(writer)]
        wanted = int(moment * APPENDS * 0.5) + random.randrange(20)
        while lines(log) < wanted and writer.poll() is None:
            time.sleep(random.random() / 100)
        writer.send_signal(signal.SIGKILL)
    for writer in writers:
        writer.communicate(timeout=120)
    assert [writer.returncode for writer in writers] == [-signal.SIGKILL, 0] * (WRITERS // 2)

    histories = [ledger.history(f"op{number}") for number in range(OPS)]
    for history in histories:
        replay(history)
    rows = [row for history in histories for row in history if row.actor != "scan"]
    claims = [row.inversion_id for row in rows if row.to_state is State.WORKING]
    of_one_op = {(row.inversion_id, row.op_id) for row in rows if row.inversion_id}
    assert len({inversion for inversion, _op in of_one_op}) == len(of_one_op) <= len(claims)
    there = collections.Counter(f"{row.transition_id} {row.op_id} {row.seq} {row.cause}" for row in rows)
    acknowledged = [line for log in logs for line in whole_lines(log)]
    assert len(acknowledged) >= APPENDS * WRITERS // 2
    assert [line for line in acknowledged if there[line] != 1] == []
    assert max(collections.Counter(row.cause for row in rows).values()) == 1
    # Unacknowledged is at most the one append that each killed writer was in.
    assert 0 <= len(rows) - len(acknowledged) <= len(doomed)


def lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def whole_lines(log: Path) -> list[str]:
    """Without a last line that the kill cut short: the append of that one may or may not be told."""
    return log.read_text().split("\n")[:-1]


DECIDER = """
import sys
from dagster_l2.ledger import Ledger, Verdict

url, schema, ops = sys.argv[1], sys.argv[2], int(sys.argv[3])
verdicts = [Verdict(f"op{n:05}", True, True, True, inputs_hash="h") for n in range(ops)]
with Ledger.open(url, schema=schema) as ledger:
    print("ready", flush=True)
    sys.stdin.readline()
    ledger.decide(verdicts, actor="killed")
"""


def test_a_pass_of_verdicts_that_is_killed_goes_on_where_it_was(ledger, place, sql):
    ops = 20_000
    decider = start(DECIDER, place.url, place.schema, ops)
    go(decider)
    while not sql("SELECT 1 FROM {s}op_transitions LIMIT 1"):
        time.sleep(0.001)
    decider.kill()
    decider.communicate(timeout=60)
    assert decider.returncode == -signal.SIGKILL
    ((left,),) = sql("SELECT count(DISTINCT op_id) FROM {s}op_transitions")
    assert 0 < left < ops
    verdicts = [Verdict(f"op{n:05}", True, True, True, inputs_hash="h") for n in range(ops)]
    done = ledger.decide(verdicts, actor="second")
    assert (len(done.moved), done.unchanged, done.failed) == (ops - left, left, [])
    assert sql("SELECT seq, to_state, count(*) FROM {s}op_transitions GROUP BY 1, 2 ORDER BY 1") == [
        (1, "Discovered", ops),
        (2, "Invertible", ops),
    ]
