"""Who holds a lease: a name for this process that says whether its bearer can still be alive.

What is leased, and for how long, is in ``tasks``.
"""

from __future__ import annotations

import os
import secrets

from dagster_l2.base.files import this_place


def new_holder() -> str:
    """A name for one worker in this process."""
    return f"{this_place()}/{os.getpid()}/{secrets.token_hex(4)}"


def is_surely_dead(holder: str) -> bool:
    """Whether the holder's process ran here and is no more; False where that can't be known."""
    place, _, rest = holder.rpartition("/")
    place, _, pid = place.rpartition("/")
    if not rest or place != this_place() or not pid.isdigit():
        return False
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
