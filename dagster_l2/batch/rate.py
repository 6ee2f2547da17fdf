"""Waiting for the permission to send: the limiter that the workers of a process share.

It keeps a small lease of slots and tells what the answers said. Which slots there are is decided in
``rate_state``; ``leases`` holds the state that all processes share.
"""

from __future__ import annotations

import math
import secrets
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Self, TypeVar

from dagster_l2.base.errors import L2Error
from dagster_l2.base.telemetry import count
from dagster_l2.batch.clock import SYSTEM_CLOCK, Clock
from dagster_l2.batch.headers import Quota, read_advice
from dagster_l2.batch.leases import Desk, Held, MemoryRates, RateStore
from dagster_l2.batch.rate_terms import Answer, Kind, RateSettings, Slot
from dagster_l2.batch.source import FailureClass

T = TypeVar("T")

_LOOK_S = 0.25
_LONGEST_WAIT_S = 1.0
_USE_WITHIN_S = 0.05
_CLOSE_S = 1.0
_MOST_OPEN = 10_000


class RateClosed(L2Error):
    """The limiter was closed while a request waited; the run is being stopped."""

    failure_class = FailureClass.PASSING
    stops_job = True


@dataclass(frozen=True, slots=True)
class RateStats:
    """What a limiter did, and where the shared rate stands.

    ``history`` holds up to a few hundred points (seconds of the epoch, requests per second) of the shared
    rate; ``waited_s`` is the sum over all requests of this limiter.
    """

    granted: int
    admitted: int
    turned_down: int
    waited_s: float
    congestion_events: int
    transactions: int
    requests_per_second: float
    quota: Quota | None
    pause_until: float | None
    history: tuple[tuple[float, float], ...]


@dataclass(slots=True)
class _Shared:
    """What the last transaction saw."""

    epoch: int = 0
    rate: float = 0.0
    quota: Quota | None = None
    pause_until: float = -math.inf
    told: tuple[Quota, ...] = ()
    history: tuple[tuple[float, float], ...] = ()
    next_at: float = -math.inf


@dataclass(slots=True)
class _Count:
    granted: int = 0
    admitted: int = 0
    turned_down: int = 0
    waited_s: float = 0.0
    transactions: int = 0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=200))


class Limiter:
    """The pace of all requests to one server; safe for threads. Implements `batch.source.Pace`.

    Parameters
    ----------
    store
        Where the rate lies: `MemoryRates` for this process alone, `DatabaseRates` for all.
    settings
        The bounds; all who share a rate should hand over the same.
    clock
        What it waits by; the same as that of ``store``.
    sleep
        Stands in for the waiting, in tests.

    Raises
    ------
    RateClosed
        From `acquire`, after `close`.
    RateUnavailable
        When the shared state can't be used.
    """

    def __init__(
        self,
        store: RateStore | None = None,
        settings: RateSettings | None = None,
        *,
        clock: Clock = SYSTEM_CLOCK,
        sleep: Callable[[float], object] | None = None,
    ) -> None:
        self.store: RateStore = store if store is not None else MemoryRates()
        self.settings = settings or RateSettings()
        self.holder = secrets.token_hex(8)
        self._closed = threading.Event()
        self._news = threading.Event()
        self._sleep = sleep or partial(clock.wait, self._news)
        self._turn = threading.Lock()
        self._lock = threading.RLock()
        self._waiting = 0
        self._slots: deque[Slot] = deque()
        self._unused: list[Slot] = []
        self._used: list[tuple[Slot, float]] = []
        self._answers: list[Answer] = []
        self._open: OrderedDict[float, tuple[Slot, bool]] = OrderedDict()
        self._ask_at = -math.inf
        self._looked_at = -math.inf
        self._shared = _Shared(rate=self.settings.initial)
        self._count = _Count()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def acquire(self) -> float:
        """Wait until one request may be sent; gives the moment of the grant on the shared clock."""
        began = self.store.clock()
        with self._lock:
            self._waiting += 1
        try:
            queued = not self._turn.acquire(blocking=False)
            if queued:
                self._turn.acquire()
            try:
                return self._wait_for_grant(began, queued)
            finally:
                self._turn.release()
        finally:
            with self._lock:
                self._waiting -= 1

    def _wait_for_grant(self, began: float, waited: bool) -> float:
        while not self._closed.is_set():
            self._news.clear()
            granted_at, wait = self.poll(waited=waited)
            if granted_at is not None:
                with self._lock:
                    self._count.waited_s += max(granted_at - began, 0.0)
                count("tokens")
                count("token_wait_s", max(granted_at - began, 0.0))
                return granted_at
            waited = True
            self._sleep(min(wait, _LONGEST_WAIT_S))
        raise RateClosed("The download is being stopped; its next run goes on where it ended.")

    def poll(self, *, waited: bool = False) -> tuple[float | None, float]:
        """Ask without waiting: the moment of the grant, or None and the seconds after which to ask again.

        ``waited`` says that the request was ready before: only then does a success show that the rate was
        the limit.
        """
        with self._lock:
            granted_at, wait = self._take(waited)
            if granted_at is None and not self._slots and self._may_ask():
                self._ask()
                granted_at, wait = self._take(waited)
            return granted_at, wait

    def succeeded(self, granted_at: float, headers: Mapping[str, str]) -> None:
        """Tell that the request granted then was answered."""
        self._tell(granted_at, headers, admitted=True)

    def congested(self, granted_at: float, headers: Mapping[str, str]) -> None:
        """Tell that the request granted then was turned down for load.

        It is not a failure of the item: the caller asks again (`acquire`) and counts no try.
        """
        self._tell(granted_at, headers, admitted=False)

    def close(self) -> None:
        """Let no more requests go, wake those that wait, and give back what was leased."""
        self._closed.set()
        self._news.set()
        # A database that does not answer must not hold up an interrupt; its log counts our lease as used.
        if not self._lock.acquire(timeout=_CLOSE_S):
            return
        try:
            self._unused += self._slots
            self._slots.clear()
            if self._unused or self._used or self._answers:
                self._transact(_nothing)
        finally:
            self._lock.release()

    def stats(self) -> RateStats:
        """What was granted and waited for here, and where the shared rate stood at the last transaction."""
        with self._lock:
            count, shared = self._count, self._shared
            return RateStats(
                granted=count.granted,
                admitted=count.admitted,
                turned_down=count.turned_down,
                waited_s=count.waited_s,
                congestion_events=shared.epoch,
                transactions=count.transactions,
                requests_per_second=shared.rate,
                quota=shared.quota,
                pause_until=shared.pause_until if shared.pause_until > 0 else None,
                history=shared.history,
            )

    # -- under the lock -----------------------------------------------------------------------------------

    def _take(self, waited: bool) -> tuple[float | None, float]:
        now = self.store.clock()
        while self._slots and self._slots[0].until < now:
            self._unused.append(self._slots.popleft())
        if not self._slots:
            return None, max(self._ask_at - now, 0.0)
        if self._slots[0].at > now + self.store.lease_s + _LONGEST_WAIT_S:
            self._drop_slots()  # the clock has been set back
            return None, 0.0
        if self._slots[0].at > now:
            return None, self._slots[0].at - now
        if self._is_outdated(now):
            return None, 0.0
        now = self.store.clock()
        while now in self._open:  # a grant's moment names it, so no two are equal
            now = math.nextafter(now, math.inf)
        slot = self._slots.popleft()
        if now > slot.until:
            self._unused.append(slot)
            return None, 0.0
        self._used.append((slot, now))
        self._open[now] = (slot, waited)
        if len(self._open) > _MOST_OPEN:
            self._open.popitem(last=False)  # its caller never told how it went
        self._count.granted += 1
        self._count.recent.append(now)
        return now, 0.0

    def _may_ask(self) -> bool:
        left = self._ask_at - self.store.clock()
        return not 0 < left <= _LONGEST_WAIT_S  # farther off only when the clock has been set back

    def _is_outdated(self, now: float) -> bool:
        """Whether another process has met congestion or a pause since our slots were given out."""
        if not self.store.lease_s or now - self._looked_at < _LOOK_S:
            return False
        self._looked_at = now
        seen = self.store.epoch()
        if seen is None or (seen[0] == self._slots[0].epoch and seen[1] <= now):
            return False
        self._drop_slots()
        return True

    def _drop_slots(self) -> None:
        self._unused += self._slots
        self._slots.clear()
        self._ask_at = -math.inf

    def _ask(self) -> None:
        """Settle what was leased and take a new lease."""
        slots, next_at, now = self._transact(self._lend)
        self._slots.extend(slots)
        self._looked_at = now
        # With slots in hand the next question is due when they are used up, else when there may be some.
        first = max(next_at - self.store.lease_s, now + (0.01 if self.store.lease_s else 0.0))
        self._ask_at = -math.inf if slots else min(first, now + _LONGEST_WAIT_S)

    def _lend(self, desk: Desk) -> tuple[list[Slot], float, float]:
        state, settings, now = desk.state, self.settings, desk.now
        if not self.store.lease_s:
            return *state.plan(settings, now, late_s=_USE_WITHIN_S), now
        late_s = state.late_s(settings, max(0.25 * self.store.lease_s, 0.01))
        # While the rate still grows a lease is short, so that it can grow by the round trip.
        is_growing = not state.told and state.learned is None and state.rate < settings.maximum
        share_s = self.store.lease_s * (0.25 if is_growing else 1.0)
        recent = sum(1 for moment in self._count.recent if moment > now - share_s)
        # In a short window all must get their share of each, in turns that few workers can keep up with.
        short = [quota.rate for quota in state.quotas(settings) if quota.seconds <= 5 * share_s]
        others = desk.other_holders()
        if short and others:
            share_s *= 0.4
        fair = math.ceil(min([state.rate, *short]) * share_s / (1 + others))
        want = max(1, min(fair, self._waiting + recent))
        slots, next_at = state.plan(settings, now, want=want, horizon_s=self.store.lease_s, late_s=late_s)
        if slots:
            desk.lent = Held(len(slots), now, slots[-1].until)
        return slots, next_at, now

    def _tell(self, granted_at: float, headers: Mapping[str, str], *, admitted: bool) -> None:
        with self._lock:
            slot, waited = self._open.pop(granted_at, (None, False))
            if slot is None:
                return
            advice = read_advice(headers, self.store.clock())
            answer = Answer(slot, granted_at, admitted, waited, advice)
            self._answers.append(answer)
            if admitted:
                self._count.admitted += 1
            else:
                self._count.turned_down += 1
            if self._is_urgent(answer):
                self._ask_at = -math.inf
                if not admitted or slot.kind is not Kind.NORMAL:
                    self._drop_slots()
                self._transact(_nothing)
                self._news.set()

    def _is_urgent(self, answer: Answer) -> bool:
        """Whether the others should know before the next lease."""
        if not self.store.lease_s or not answer.admitted or answer.slot.kind is not Kind.NORMAL:
            return True
        return bool(answer.advice.quotas) and answer.advice.quotas != self._shared.told

    def _transact(self, work: Callable[[Desk], T]) -> T:
        settings = self.settings
        unused, used, answers = self._unused, self._used, self._answers

        def all_of_it(desk: Desk) -> tuple[T, _Shared]:
            state = desk.state
            for slot in unused:
                state.give_back(slot)
            for slot, granted_at in used:
                state.used(slot, granted_at)
            for answer in answers:
                state.answer(settings, answer, desk.now)
            desk.returned = not self._slots
            done = work(desk)
            quota = next(iter(state.quotas(settings)), None)
            shared = _Shared(
                state.epoch, state.rate, quota, state.pause_until, state.told, tuple(state.history)
            )
            return done, shared

        done, self._shared = self.store.change(settings, self.holder, all_of_it)
        self._unused, self._used, self._answers = [], [], []
        self._count.transactions += 1
        return done


def _nothing(_desk: Desk) -> None:
    """Only settle."""
