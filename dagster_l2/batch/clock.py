"""The clock that a downloader reads and waits by: the system's, or the same one going faster.

With a faster one a benchmark plays hours against a real server in minutes. Nothing else makes one.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Clock:
    """Seconds; all who read the same values of ``speed``, ``since`` and ``ahead_s`` agree about the time.

    Parameters
    ----------
    speed
        How many of its seconds pass in one of the system's.
    since
        The moment (seconds of the epoch) from which on it goes so fast.
    ahead_s
        By how much it was ahead of the system's clock at that moment.
    """

    speed: float = 1.0
    since: float = 0.0
    ahead_s: float = 0.0

    def at(self, moment: float) -> float:
        """What it says at a moment of the system's clock; both in seconds of the epoch."""
        return self.since + (moment - self.since) * self.speed + self.ahead_s

    def now(self) -> float:
        """Seconds of the epoch."""
        return self.at(time.time())

    def monotonic(self) -> float:
        """Seconds from some moment on, however the system's clock is set meanwhile."""
        return time.monotonic() * self.speed

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for the event, so many of its own seconds at most; whether it is set."""
        return event.wait(seconds / self.speed)


SYSTEM_CLOCK = Clock()
