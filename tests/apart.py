"""Work done in a copy of the test's process, which may be killed there."""

from __future__ import annotations

import os
from collections.abc import Callable


def apart(work: Callable[[], None]) -> int:
    """Do something in a copy of this process; its exit code, or the signal that ended it, negative."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
