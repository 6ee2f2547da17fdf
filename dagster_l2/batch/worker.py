"""The worker as a process of its own: ``python -m dagster_l2.batch.worker <batch file>``.

It needs nothing but its batch file; secrets come from the environment of what makes the source. The work is
in ``jobs``.
"""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from types import FrameType

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.batch.jobs.runner import work_on_batch


def main(arguments: list[str]) -> int:
    """Do one batch; the exit code is that of the commands."""
    stop = threading.Event()

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    try:
        if len(arguments) != 1:
            raise WrongUse("Name one batch file: python -m dagster_l2.batch.worker FILE.")
        work_on_batch(Path(arguments[0]), stop=stop.is_set)
    except L2Error as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
