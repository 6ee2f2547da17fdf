"""An interrupt ends a process that waits for what will not come: no lock, no pipe, no answer holds it up."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

PATIENCE_S = 300
WAITS = {
    # The driver waits inside the library, so that no signal handler of Python gets a turn.
    "a lock of the database": """
        import sqlite3
        connection = sqlite3.connect(sys.argv[1], timeout=1e6, isolation_level=None)
        ready()
        connection.execute("BEGIN IMMEDIATE")
    """,
    "a full pipe that nobody reads": """
        ready()
        print("x" * 10_000_000, file=sys.stderr)
    """,
    "a child": """
        import subprocess
        null = subprocess.DEVNULL
        child = subprocess.Popen(["sleep", "1000000"], stdout=null, stderr=null)
        print(child.pid, flush=True)
        ready()
        child.wait()
    """,
}
BEGIN = """
import sys, threading, time
from dagster_l2.cli.interrupt import stop_on_interrupt
def ready():
    frame, line = sys._getframe(1), sys._getframe(1).f_lineno
    def tell():
        # The caller has gone on and stays where it is: in the call that does not come back.
        seen = [line]
        while len(seen) < 5 or len(set(seen[-4:])) > 1 or seen[-1] == line:
            time.sleep(0.05)
            seen.append(frame.f_lineno)
        print("ready", flush=True)
    threading.Thread(target=tell, daemon=True).start()
with stop_on_interrupt() as stop:
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("what", WAITS)
def test_nothing_holds_an_interrupt_up(what: str, number: signal.Signals, tmp_path: Path) -> None:
    file = tmp_path / "state.sqlite"
    holder = sqlite3.connect(file, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + WAITS[what], str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Where the tests run in the background, an interrupt is ignored from birth.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    assert process.stderr is not None
    said = iter(process.stdout.readline, "ready\n")
    children = [int(line) for line in said]
    try:
        process.send_signal(number)
        # The lock is held, the pipe is full and the child lives until after the process has ended.
        assert process.wait(timeout=PATIENCE_S) == 130
        error = process.stderr.read()
        assert what == "a full pipe that nobody reads" or error == (
            "Error: Interrupted; what is finished is kept, run the command again.\n"
        )
    finally:
        process.kill()
        process.wait()
        for child in children:
            os.kill(child, signal.SIGKILL)
        process.stdout.close()
        process.stderr.close()
        holder.close()
