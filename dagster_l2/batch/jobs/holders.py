"""Who holds a lease: a name for this process that says whether its bearer can still be alive.

What is leased, and for how long, is in ``tasks``.
"""

from __future__ import annotations

import os
import secrets
import socket
from pathlib import Path


def _place() -> str:
    # Two containers may bear one host name; their processes are told apart by the kernel's own number.
    try:
        space = str(Path("/proc/self/ns/pid").readlink())
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        space, boot = "", ""
    return f"{socket.gethostname()}/{boot}/{space}"


def new_holder() -> str:
    """A name for one worker in this process."""
    return f"{_place()}/{os.getpid()}/{secrets.token_hex(4)}"


def is_surely_dead(holder: str) -> bool:
    """Whether the holder's process ran here and is no more; False where that can't be known."""
    place, _, rest = holder.rpartition("/")
    place, _, pid = place.rpartition("/")
    if not rest or place != _place() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
