"""Learning a server's quota from its behaviour alone: how many it let in, and when it lets in again.

A *closure* lasts from the first request turned down to the next one admitted. In it only single requests
knock, at the moments at which one of the usual windows would open. When to keep to what is learned is in
``rate_state``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from dagster_l2.batch.headers import Quota
from dagster_l2.batch.rate_log import GrantLog

WINDOWS_S = (1, 2, 3, 5, 10, 15, 20, 30, 45, 60, 90, 100, 120, 180, 300, 600, 900, 1800, 3600)
"""The windows that servers count in."""

_CALM_ANSWERS = 200
_CALM_WINDOWS = 10
_HELD_WINDOWS, _TRIAL_WINDOWS = 3, 2
_CLOSE_S = 0.15
_GROW_FIRST_S = 30.0
_FINE_S, _FINE_FIRST_S = 5.0, 60.0
_FINE_REQUESTS = 5
_IDLE_S = 120.0
_GROW_LAST_S = 3600.0


def margin_s(seconds: float, stretch: float = 1.0) -> float:
    """Seconds by which a window is taken longer than it is, because requests don't travel equally fast."""
    return min(min(0.01 + 0.02 * seconds, 0.5) * stretch, 0.25 * seconds, 5.0)


def calm_enough(quotas: Sequence[Quota]) -> int:
    """How many answers in a row show that a margin is wider than it must be: ten windows' worth.

    Being turned down costs about a window and a margin its share of every window: so neither costs much.
    """
    fewest = min((quota.requests for quota in quotas), default=_CALM_ANSWERS)
    return min(_CALM_ANSWERS, _CALM_WINDOWS * fewest)


@dataclass(slots=True)
class Guess:
    """A window that would explain the closure: it ``opens`` by its oldest grant, ``clears`` by its last."""

    seconds: float
    requests: int
    opens: float
    clears: float


@dataclass(slots=True)
class Closure:
    """The server turns requests down; what was known when it began, and what was tried since."""

    since: float
    tried: float
    guesses: list[Guess] = field(default_factory=list)

    @classmethod
    def begin(cls, log: GrantLog, turned_down_at: float, opened_at: float) -> Self:
        """Guess at windows from the grants before the one turned down, as far back as the door was open."""
        guesses = []
        for seconds in WINDOWS_S:
            after = max(turned_down_at - seconds, opened_at - 0.001)
            if log.count(after, turned_down_at, admitted=True) >= _FINE_REQUESTS and seconds <= _FINE_S:
                # Requests don't travel equally fast: the oldest that was counted may have been sent earlier.
                after = max(after - margin_s(seconds), opened_at - 0.001)
            ends = log.ends(after, turned_down_at)
            if ends:
                requests = log.count(after, turned_down_at, admitted=True)
                more = seconds + margin_s(seconds)
                guesses.append(Guess(float(seconds), requests, ends[0] + more, ends[1] + more))
        return cls(since=turned_down_at, tried=turned_down_at, guesses=guesses)

    def refuse(self, until: float) -> None:
        """The server said that it admits nothing until then."""
        self.tried = max(self.tried, until)

    def turned_down(self, at: float, log: GrantLog) -> None:
        """A request knocked in vain."""
        for guess in self.guesses:
            more = guess.seconds + margin_s(guess.seconds)
            ends = log.ends(at - more, at)
            # Those on their way when the closure began have taken the places that came free.
            if ends and guess.opens <= at and log.count(at - more, at, admitted=True) >= guess.requests:
                guess.opens, guess.clears = ends[0] + more, ends[1] + more
        self.tried = max(self.tried, at)

    def next_opening(self) -> float:
        """The next moment at which one of the windows would let a request in."""
        moments = (m for guess in self.guesses for m in (guess.opens, guess.clears) if m > self.tried)
        return min(moments, default=math.inf)

    def explain(self, admitted_at: float) -> Quota | None:
        """The quota that explains best that a request was let in now and none at ``tried``.

        Best is a window that opens between the two; then one that was opening when the last one failed (the
        server's window began amid our grants); then one that should have opened later (the server's window
        began before our grants).
        """

        def opened(guess: Guess) -> bool:
            # One that knocked a moment after the opening may have met another that was let in before it.
            close = self.tried < guess.opens + _CLOSE_S and admitted_at < guess.opens + 3 * _CLOSE_S
            is_due = guess.opens <= admitted_at + margin_s(guess.seconds)
            return is_due and (self.tried < guess.opens or close)

        rounds: tuple[Iterator[Guess], ...] = (
            (g for g in self.guesses if opened(g)),
            (g for g in self.guesses if g.opens <= self.tried < g.clears),
            (g for g in self.guesses if g.opens > self.tried),
        )
        for guesses in rounds:
            for guess in guesses:
                return Quota(guess.requests, guess.seconds)
        return None

    def as_json(self) -> dict[str, Any]:
        """The closure as it is kept."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> Self:
        """Read what `as_json` gave."""
        guesses = [Guess(**guess) for guess in content["guesses"]]
        return cls(since=float(content["since"]), tried=float(content["tried"]), guesses=guesses)


@dataclass(slots=True)
class Learned:
    """A quota learned from behaviour, and when one request more than it allows is tried.

    A guess that was too low, or a server that lied once, must not hold us back for ever: each request more
    that is admitted doubles the step. It may have fallen into the next window, where windows are fixed, so a
    larger number is on trial until some windows of it were admitted. One that does not hold is given up,
    doubles the time to the next trial, and has the next ones go by single steps.
    """

    requests: int
    seconds: float
    grow_at: float
    step: int = 1
    failures: int = 0
    has_held: bool = False
    proven: int = 0
    """What to go back to when the number on trial does not hold; 0: none is on trial."""

    @classmethod
    def begin(cls, quota: Quota, now: float) -> Self:
        """Start from a guess."""
        fresh = cls(quota.requests, quota.seconds, now)
        fresh.grow_at += fresh.first_s
        return fresh

    @property
    def quota(self) -> Quota:
        """What is kept to."""
        return Quota(self.requests, self.seconds)

    @property
    def is_fine(self) -> bool:
        """Whether one request of the window is little, and being turned down costs more: about a window."""
        return self.seconds <= _FINE_S and self.requests >= _FINE_REQUESTS

    @property
    def first_s(self) -> float:
        """How long it is kept to before more is tried."""
        return _FINE_FIRST_S if self.is_fine else max(self.seconds, _GROW_FIRST_S)

    def rested(self, seconds: float) -> None:
        """Nothing was asked for so long: only time in use says that a quota holds."""
        if max(_IDLE_S, 2 * self.seconds) < seconds < math.inf:
            self.grow_at += seconds

    def comes_to_hold(self, calm: int) -> bool:
        """Whether it holds for the first time, with so many admitted in a row."""
        if self.has_held or calm < _HELD_WINDOWS * self.requests:
            return False
        self.has_held = True
        return True

    @property
    def is_testing(self) -> bool:
        """Whether no more may be tried until the number on trial has held: after a failure, one by one."""
        return bool(self.proven and self.failures)

    def grow(self, now: float) -> None:
        """One more than the quota was admitted: now a larger number is on trial."""
        self.proven = self.proven or self.requests
        if self.requests >= 2 * self.proven:
            self.proven = 0  # even two fixed windows would not have let in so many
        self.requests += self.step
        self.step *= 1 if self.failures else 2
        self.grow_at = now

    def holds_on_trial(self, calm: int, now: float) -> None:
        """So many were admitted in a row since the number was put on trial."""
        if calm >= _TRIAL_WINDOWS * self.requests:
            self.proven, self.failures, self.grow_at = 0, min(self.failures, 1), now

    def not_grown(self, now: float) -> None:
        """More than the quota was turned down."""
        wait = self.first_s * 2.0 ** min(self.failures + 1, 30)
        self.requests = self.proven or self.requests
        self.step, self.failures, self.proven = 1, self.failures + 1, 0
        self.grow_at = now + min(wait, max(_GROW_LAST_S, 4 * self.seconds))
