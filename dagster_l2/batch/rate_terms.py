"""The words of a rate: what bounds it, a slot for one request, the answer to it.

Only data; what is made of it is in ``rate_state``.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field

from dagster_l2.base.errors import WrongUse
from dagster_l2.batch.headers import Advice, Quota


@dataclass(frozen=True, slots=True)
class RateSettings:
    """What bounds a rate.

    Parameters
    ----------
    initial, minimum, maximum
        Requests per second. ``maximum`` holds whatever a server says; ``minimum`` is how slow we get by our
        own conclusions and by what answers say beside a success, so that a lie can't stop us.
    increase
        Requests per second won by a round trip in which the rate was the limit (at most a doubling).
    decrease
        Factor of a congestion event.
    max_pause_s
        Longest time that one Retry-After is honoured.
    max_window_s
        Longest window of a quota that is believed from a header.
    quotas
        Quotas that are known beforehand; no window ever holds more grants than they allow.

    Raises
    ------
    WrongUse
        When the numbers contradict each other.
    """

    initial: float = 5.0
    increase: float = 1.0
    decrease: float = 0.5
    minimum: float = 1 / 60
    maximum: float = 25.0
    max_pause_s: float = 900.0
    max_window_s: float = 3600.0
    quotas: tuple[Quota, ...] = ()

    def __post_init__(self) -> None:
        if not 0 < self.minimum <= self.initial <= self.maximum < math.inf:
            raise WrongUse(
                f"A rate needs 0 < minimum <= initial <= maximum, not {self.minimum:g}, {self.initial:g},"
                f" {self.maximum:g} requests/s; correct them."
            )
        if not 0 < self.decrease < 1 or not 0 <= self.increase < math.inf:
            raise WrongUse(
                f"A rate grows by adding and shrinks by a factor below 1, not by {self.increase:g} and"
                f" {self.decrease:g}; correct them."
            )


class Bound(enum.StrEnum):
    """What a request waits for."""

    RATE = "rate"
    QUOTA = "quota"
    LEARNED = "learned"
    PAUSE = "pause"
    CLOSED = "closed"


class Kind(enum.StrEnum):
    """Why a request is let go."""

    NORMAL = "normal"
    KNOCK = "knock"  # the only one while the server turns requests down
    MORE = "more"  # one more than the learned quota


@dataclass(frozen=True, slots=True)
class Slot:
    """The permission for one request, to be used in ``[at, until]`` and never later."""

    at: float
    until: float
    epoch: int
    bound: Bound = Bound.RATE
    kind: Kind = Kind.NORMAL


@dataclass(frozen=True, slots=True)
class Answer:
    """How the request of a slot went. ``waited``: it was ready before its slot was."""

    slot: Slot
    granted_at: float
    admitted: bool
    waited: bool = False
    advice: Advice = field(default_factory=Advice)
