"""The rate towards one server, as a pure state on the caller's clock: who may send when, what answers teach.

Additive increase and multiplicative decrease, and on top of it every quota that is configured, told by
headers or learned. It knows no thread, no process and no database; ``leases`` shares it, ``rate`` waits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from dagster_l2.batch.headers import Quota
from dagster_l2.batch.rate_learning import WINDOWS_S, Closure, Learned, calm_enough, margin_s
from dagster_l2.batch.rate_log import GrantLog
from dagster_l2.batch.rate_terms import Answer, Bound, Kind, RateSettings, Slot

_PROBE_LOST_S, _DEAR_S = 60.0, 5.0
_MISSING_ANSWERS, _MANY = 5, 5
_MOST_STRETCH, _HISTORY = 12.0, 300
_SHORT_S, _EVEN = 5.0, 0.4


@dataclass
class RateState:
    """All that is known about one server's rate. Times are seconds of one clock, shared by all who use it."""

    rate: float
    epoch: int = 0
    grown_at: float = -math.inf
    threshold: float = 0.0
    last_slot: float = -math.inf
    pause_until: float = -math.inf
    opened_at: float = -math.inf
    probe_until: float = -math.inf
    ceiling: float = math.inf
    cautious_until: float = -math.inf
    stretch: float = 1.0
    calm: int = 0
    explained: bool = False
    told: tuple[Quota, ...] = ()
    told_missing: int = 0
    budget: tuple[float, int, float] | None = None  # granted at, left, until
    learned: Learned | None = None
    closure: Closure | None = None
    log: GrantLog = field(default_factory=GrantLog)
    tidied_at: float = -math.inf
    history: list[tuple[float, float]] = field(default_factory=list)

    # -- asking -------------------------------------------------------------------------------------------

    def plan(
        self,
        settings: RateSettings,
        now: float,
        *,
        want: int = 1,
        horizon_s: float = 0.0,
        late_s: float = 0.0,
    ) -> tuple[list[Slot], float]:
        """Give out up to ``want`` slots until ``now + horizon_s``, and the moment of the one after them."""
        self._tidy(settings, now, horizon_s + late_s)
        slots: list[Slot] = []
        while True:
            at, bound, kind = self._next(settings, now)
            if len(slots) >= want or at > now + horizon_s:
                return slots, at
            slot = Slot(at, at + late_s, self.epoch, bound, kind)
            self.log.add(slot.until)
            if self.learned is not None:
                self.learned.rested(at - self.last_slot)
            self.last_slot = at
            if kind is not Kind.NORMAL:
                self.probe_until = at + _PROBE_LOST_S
            slots.append(slot)

    def late_s(self, settings: RateSettings, longest: float) -> float:
        """How much later than its moment a slot may be used: a small part of the shortest window."""
        quotas = self.quotas(settings)
        return min([longest, *(max(0.04 * quota.seconds, 0.002) for quota in quotas)])

    def quotas(self, settings: RateSettings) -> list[Quota]:
        """Every quota that is kept to."""
        return [*settings.quotas, *self.told, *([self.learned.quota] if self.learned else [])]

    def give_back(self, slot: Slot) -> None:
        """Take back a slot that was not and will not be used."""
        self.log.remove(slot.until)
        if slot.kind is not Kind.NORMAL:
            self.probe_until = -math.inf

    def _next(self, settings: RateSettings, now: float) -> tuple[float, Bound, Kind]:
        limits = list(self._limits(settings, now))
        at, bound = max(limits, key=lambda limit: limit[0])
        if self.closure is not None:
            return max(at, now), bound, Kind.KNOCK
        if bound is Bound.LEARNED and self._may_try_more(now, at):
            at, bound = max(
                (limit for limit in limits if limit[1] is not Bound.LEARNED), key=lambda limit: limit[0]
            )
            return max(at, now), bound, Kind.MORE
        return max(at, now), bound, Kind.NORMAL

    def _may_try_more(self, now: float, next_at: float) -> bool:
        """Whether one more than the learned quota shows anything: well inside the window, not at its end."""
        learned = self.learned
        if learned is None or learned.is_testing or not learned.grow_at <= now >= self.probe_until:
            return False
        return next_at - now > 2 * margin_s(learned.seconds, self.stretch) + 0.25 * learned.seconds

    def _limits(self, settings: RateSettings, now: float) -> Iterator[tuple[float, Bound]]:
        """The earliest moment of the next request by each rule."""
        yield self.pause_until, Bound.PAUSE
        if self.closure is None:
            yield self.last_slot + max(1 / self.rate, self._even_s(settings)), Bound.RATE
        else:
            # One knocks at a time; the next when the last is answered, when the rate or a window says so.
            knock = min(self.last_slot + 1 / self.rate, self.closure.next_opening())
            yield max(knock, self.last_slot + 1 / settings.maximum, self.probe_until), Bound.CLOSED
        for quota in (*settings.quotas, *self.told):
            full = self.log.last_but(quota.requests)
            if full is not None:
                yield full + quota.seconds + margin_s(quota.seconds, self.stretch), Bound.QUOTA
        if self.budget is not None and not self.told and not settings.quotas:
            # Whole seconds of a reset are too coarse for one who knows the window itself.
            since, left, until = self.budget
            if now < until and self.log.count(since, math.inf) >= left:
                yield until, Bound.QUOTA
        if self.learned and self.closure is None:
            full = self.log.last_but(self.learned.requests, admitted=True)
            if full is not None:
                seconds = self.learned.seconds
                yield full + seconds + margin_s(seconds, self.stretch), Bound.LEARNED

    def _even_s(self, settings: RateSettings) -> float:
        """The distance at which requests go evenly through a part of a short window.

        All at once they would leave places unused whenever all workers are busy, a delay that is carried on
        into every later window; through all of it, the last few of a day would take a window's time.
        """
        quotas = self.quotas(settings)
        return max((_EVEN / quota.rate for quota in quotas if quota.seconds <= _SHORT_S), default=0.0)

    # -- answers ------------------------------------------------------------------------------------------

    def used(self, slot: Slot, granted_at: float) -> None:
        """Note when a slot was used, which is not later than it was counted."""
        self.log.move(slot.until, granted_at)

    def answer(self, settings: RateSettings, answer: Answer, now: float) -> None:
        """Learn from the answer to one request."""
        if answer.slot.kind is not Kind.NORMAL:
            self.probe_until = -math.inf
        if answer.admitted:
            self._admitted(settings, answer, now)
        else:
            self._turned_down(settings, answer, now)
        self._hear(settings, answer, now)

    def _admitted(self, settings: RateSettings, answer: Answer, now: float) -> None:
        slot, at = answer.slot, answer.granted_at
        if self.closure is not None:
            if slot.epoch == self.epoch:
                self._open(settings, at, now)
            return
        self.explained = False
        self.calm += 1
        learned = self.learned
        if learned and learned.comes_to_hold(self.calm):
            # It holds us by itself now, so the rate need not feel its way.
            self._set_rate(settings, settings.maximum, now)
        if self.stretch > 1 and self.calm >= calm_enough(self.quotas(settings)):
            self.stretch, self.calm = max(1.0, 0.9 * self.stretch), 0
        if learned and learned.proven:
            learned.holds_on_trial(self.calm, now)
        if learned and slot.kind is Kind.MORE:
            learned.grow(now)
            self.calm = 0
            if learned.quota.rate >= settings.maximum:
                self.learned = None
        limiting = answer.waited and slot.bound is Bound.RATE
        if limiting and slot.epoch == self.epoch and at > self.grown_at and self._may_grow(settings, now):
            # Not more than doubled: at 1 request a minute, one more a second would be sixty times as fast.
            self._set_rate(settings, self.rate + min(settings.increase, self.rate), now)
            self.grown_at = now

    def _may_grow(self, settings: RateSettings, now: float) -> bool:
        """Whether to go faster; near the rate that was turned down last, only seldom when that is dear."""
        near = self.rate + settings.increase > 0.8 * self.ceiling
        return self.rate < settings.maximum and not (near and now < self.cautious_until)

    def _open(self, settings: RateSettings, at: float, now: float) -> None:
        closure = self.closure
        if closure is not None and not self._foresaw(closure):
            quota = closure.explain(at)
            if quota is not None:
                known = any(q.rate <= quota.rate for q in (*settings.quotas, *self.told))
                wanted = not known and settings.minimum <= quota.rate < settings.maximum
                self.learned = Learned.begin(quota, now) if wanted else None
        self.closure, self.opened_at, self.grown_at = None, at, now
        self._set_rate(settings, max(self.threshold, self.rate, self._known_rate()), now)

    def _known_rate(self) -> float:
        """Requests per second of the learned quota, 0 without one."""
        return self.learned.quota.rate if self.learned else 0.0

    def _foresaw(self, closure: Closure) -> bool:
        """Whether what was learned before says itself that the server was closed until about now."""
        learned = self.learned
        if learned is None:
            return False
        span = learned.seconds + margin_s(learned.seconds, self.stretch)
        if self.log.count(closure.since - span, closure.since, admitted=True) < 0.9 * learned.requests - 1:
            return False
        oldest = self.log.ends(closure.since - span, closure.since)
        slack = max(3 * margin_s(learned.seconds), 0.1 * learned.seconds, 0.3)
        return oldest is None or closure.tried <= oldest[0] + span + slack

    def _turned_down(self, settings: RateSettings, answer: Answer, now: float) -> None:
        slot, at = answer.slot, answer.granted_at
        self.log.turn_down(at)
        wait = answer.advice.retry_after_s
        if wait is None and answer.advice.remaining == 0:
            wait = answer.advice.reset_s
        if wait is not None:
            wait = min(wait, settings.max_pause_s)
            self.pause_until = max(self.pause_until, now + wait)
        if slot.kind is Kind.MORE and self.closure is None:
            if self.learned:
                self.learned.not_grown(now)
            return
        if slot.epoch == self.epoch:
            if self.closure is None:
                self.ceiling = self.rate
            if wait is not None and wait >= _DEAR_S:
                self.cautious_until = now + 10 * wait
            self._congested(settings, at, now)
        elif self.closure is not None and at < self.closure.since:
            self.closure = Closure.begin(self.log, at, self.opened_at)
        if self.closure is not None and wait is not None and wait > 1:
            # Whole seconds are rounded up by the server, so it may open up to a second earlier.
            self.closure.refuse(at + wait - 1.0)

    def _congested(self, settings: RateSettings, at: float, now: float) -> None:
        """One congestion event: everything granted before it is known belongs to it, by the epoch."""
        self.epoch += 1
        self.calm = 0
        explained = self.closure is None and not self.explained and self._is_explained(settings, at, now)
        # What a learned quota explains has corrected it, and it goes on holding us.
        least = min(self._known_rate(), self.rate) if explained else 0.0
        self._set_rate(settings, max(self.rate * settings.decrease, least), now)
        if explained:
            self.explained = True
        elif self.closure is None:
            self.threshold = self.rate
            self.closure = Closure.begin(self.log, at, self.opened_at)
        else:
            self.closure.turned_down(at, self.log)

    def _is_explained(self, settings: RateSettings, at: float, now: float) -> bool:
        """Whether a known quota was all but used up; corrects its margin, or the number of a learned one."""
        for quota in (*settings.quotas, *self.told):
            span = quota.seconds + 2 * margin_s(quota.seconds, self.stretch)
            if self.log.count(at - span, at) >= max(1.0, 0.9 * quota.requests - 1):
                self._stretch()
                return True
        learned = self.learned
        if learned is None:
            return False
        if learned.proven:
            learned.not_grown(now)
            return True
        span = learned.seconds + margin_s(learned.seconds, self.stretch)
        count = self.log.count(at - span, at, admitted=True)
        wider = learned.seconds + 3 * margin_s(learned.seconds, self.stretch)
        if self.log.count(at - wider, at, admitted=True) >= learned.requests:
            # Just within the quota: the requests travelled unequally fast; when that repeats, it is too many.
            if not learned.has_held and learned.requests >= _MANY:
                learned.requests -= 1
            elif self.stretch > (1 if learned.requests >= _MANY else 2):
                learned.requests -= 1
                self.stretch /= 1.5
            else:
                self._stretch()
            return True
        if count >= max(1.0, 0.9 * learned.requests - 1):
            learned.requests = count
            return True
        return False

    def _stretch(self) -> None:
        self.stretch = min(self.stretch * 1.5, _MOST_STRETCH)

    def _hear(self, settings: RateSettings, answer: Answer, now: float) -> None:
        """Take over what the headers say, as far as it can't stop us or make us too fast."""
        advice = answer.advice
        believed = tuple(
            quota
            for quota in advice.quotas
            if quota.seconds <= settings.max_window_s and quota.rate >= settings.minimum
        )
        if believed:
            self.told_missing = 0
            if not self.told and min(quota.rate for quota in believed) < settings.maximum:
                # The quota holds us now, so the rate need not feel its way.
                self.learned = None
                self._set_rate(settings, settings.maximum, now)
            self.told = believed
        elif self.told and answer.admitted:
            self.told_missing += 1
            if self.told_missing >= _MISSING_ANSWERS:
                self._set_rate(settings, min(self.rate, *(quota.rate for quota in self.told)), now)
                self.told, self.told_missing = (), 0
        newest = self.budget is None or answer.granted_at >= self.budget[0]
        if newest and advice.remaining is not None and advice.reset_s is not None:
            wait = min(advice.reset_s, 1 / settings.minimum)
            self.budget = (answer.granted_at, advice.remaining, now + wait)

    # -- keeping ------------------------------------------------------------------------------------------

    def _set_rate(self, settings: RateSettings, rate: float, now: float) -> None:
        rate = min(max(rate, settings.minimum), settings.maximum)
        if rate != self.rate:
            self.rate = rate
            self.history.append((round(now, 3), round(rate, 6)))
            if len(self.history) > _HISTORY:
                # Every second point of the older half goes: the recent past stays exact.
                self.history[: _HISTORY // 2] = self.history[: _HISTORY // 2 : 2]

    def _tidy(self, settings: RateSettings, now: float, ahead_s: float) -> None:
        """Forget what no rule needs, and mend what a clock that was set back has left in the future."""
        # Another holder's slots lie as far ahead as its horizon, which may be wider than this one's.
        latest = now + max(ahead_s, 10.0)
        self.last_slot = min(self.last_slot, latest)
        self.pause_until = min(self.pause_until, now + settings.max_pause_s)
        self.probe_until = min(self.probe_until, latest + _PROBE_LOST_S)
        self.grown_at = min(self.grown_at, latest)
        if self.closure is None and now - self.tidied_at < 1.0 and now >= self.tidied_at:
            return
        self.tidied_at = now
        quotas = [*settings.quotas, *self.told]
        keep = max((2 * quota.seconds for quota in quotas), default=0.0)
        if not quotas:
            keep = 2 * self.learned.seconds if self.learned else WINDOWS_S[-1]
        self.log.tidy(now, keep + 10.0, latest)

    def as_json(self) -> dict[str, Any]:
        """The state as it is kept."""
        content = {name: _plain(value) for name, value in vars(self).items() if name in _PLAIN}
        return content | {
            "told": [[quota.requests, quota.seconds] for quota in self.told],
            "budget": list(self.budget) if self.budget else None,
            "learned": asdict(self.learned) if self.learned else None,
            "closure": self.closure.as_json() if self.closure else None,
            "log": self.log.as_json(),
            "history": [list(point) for point in self.history],
        }

    @classmethod
    def begin(cls, settings: RateSettings) -> Self:
        """A state that knows nothing."""
        return cls(rate=settings.initial)

    @classmethod
    def from_json(cls, content: object, settings: RateSettings) -> Self:
        """Read what `as_json` gave; what can't be read begins anew."""
        try:
            return cls._from_json(content, settings)
        except (TypeError, ValueError, KeyError, IndexError, AttributeError):
            return cls.begin(settings)

    @classmethod
    def _from_json(cls, content: Any, settings: RateSettings) -> Self:
        plain = {name: content[name] for name in _PLAIN}
        for name, value in plain.items():
            if value is None:
                plain[name] = math.inf if name == "ceiling" else -math.inf
        state = cls(
            **plain,
            told=tuple(Quota(int(n), float(seconds)) for n, seconds in content["told"]),
            budget=tuple(content["budget"]) if content["budget"] else None,
            learned=Learned(**content["learned"]) if content["learned"] else None,
            closure=Closure.from_json(content["closure"]) if content["closure"] else None,
            log=GrantLog([[int(a), int(b), int(c)] for a, b, c in content["log"]]),
            history=[(float(at), float(rate)) for at, rate in content["history"]],
        )
        state.rate = min(max(float(state.rate), settings.minimum), settings.maximum)
        return state


_PLAIN = (
    *("rate", "epoch", "grown_at", "threshold", "last_slot", "pause_until", "opened_at", "probe_until"),
    *("ceiling", "cautious_until", "stretch", "calm", "explained", "told_missing", "tidied_at"),
)


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isinf(value) else value
