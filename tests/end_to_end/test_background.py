"""A command in a shell's background job, where an interrupt is ignored from birth and SIGTERM may be, too."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest

from tests.end_to_end.kit import COMMAND, PATIENCE_S, Pipeline, Store, generated

pytestmark = pytest.mark.xdist_group("bad_input")


def _ignore() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def test_who_reads_its_output_sees_the_end(l2: Pipeline, tmp_path: Path) -> None:
    """What Dagster starts to mirror the output of a step holds the pipe; it has to be gone at the end."""
    with Store(tmp_path, generated(3, seed=2)).served() as settings:
        process = subprocess.Popen(
            [str(COMMAND), "scan", "--json"],
            env=l2.environment(settings),
            cwd=l2.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=_ignore,
            start_new_session=True,
        )
        try:
            out, error = process.communicate(timeout=PATIENCE_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, error
    assert json.loads(out)["new"] > 0
