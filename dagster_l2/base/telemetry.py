"""What is going on, for logs and counts: the job, task, batch and window at hand, and who counts requests.

It travels with the context of the thread that works. How a log line looks is in ``logs``; nothing is written
here.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

_MOST_STEPS = 240
_RATE_OVER_S = 20.0

RETRY_CAUSES = (
    "turned_down",
    "timeout",
    "no_connection",
    "broken_off",
    "server_error",
    "invalid_answer",
    "other",
)
"""Why a request was sent again; counted as ``retries_<cause>``."""

_ids: contextvars.ContextVar[Mapping[str, str]] = contextvars.ContextVar("ids", default={})  # noqa: B039
_tallies: contextvars.ContextVar[tuple[Tally, ...]] = contextvars.ContextVar("tallies", default=())


@contextmanager
def at_work_on(**ids: object) -> Iterator[None]:
    """Let every log line inside the block bear these ids: job, task, batch, window, chunk."""
    token = _ids.set({**_ids.get(), **{name: str(value) for name, value in ids.items() if value is not None}})
    try:
        yield
    finally:
        _ids.reset(token)


def ids_at_hand() -> Mapping[str, str]:
    """What this thread is at work on."""
    return _ids.get()


class Tally:
    """Counts by name; safe for threads. Those named in ``over_time`` are kept by the second, too."""

    over_time = ("api_requests", "turned_down")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._seconds: dict[str, Counter[int]] = defaultdict(Counter)

    def add(self, name: str, number: float = 1) -> None:
        """Count."""
        with self._lock:
            self._counts[name] += number  # type: ignore[assignment]  # seconds are no whole numbers
            if name in self.over_time:
                self._seconds[name][int(time.time())] += int(number)

    def counts(self) -> dict[str, float]:
        """What was counted, by name."""
        with self._lock:
            return {
                name: round(n, 3) if isinstance(n, float) else n for name, n in sorted(self._counts.items())
            }

    def series(self) -> dict[str, Any] | None:
        """What was counted over time, see `merged_series`; None when there was nothing."""
        with self._lock:
            if not self._seconds:
                return None
            moments = [second for counts in self._seconds.values() for second in counts]
            start = min(moments)
            content: dict[str, Any] = {"start_s": start, "step_s": 1}
            for name in self.over_time:
                counts = self._seconds.get(name, Counter())
                content[name] = [counts.get(second, 0) for second in range(start, max(moments) + 1)]
        return merged_series([content])


def merged_series(series: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Add up counts over time: ``start_s`` (epoch), ``step_s``, and a list of counts for each name.

    Steps are as many seconds as leave at most 240 of them; None when there is nothing to add up.
    """
    parts = [part for part in series if part]
    if not parts:
        return None
    start = min(int(part["start_s"]) for part in parts)
    end = max(int(part["start_s"]) + int(part["step_s"]) * _length(part) for part in parts)
    step = max(int(part["step_s"]) for part in parts)
    start -= start % step
    while (end - start) > step * _MOST_STEPS:
        step *= 2
        start -= start % step
    out: dict[str, Any] = {"start_s": start, "step_s": step}
    for name in Tally.over_time:
        counts = [0] * -(-(end - start) // step)
        for part in parts:
            for i, number in enumerate(part.get(name, ())):
                counts[(int(part["start_s"]) + i * int(part["step_s"]) - start) // step] += number
        out[name] = counts
    return out


def _length(part: Mapping[str, Any]) -> int:
    return max((len(part.get(name, ())) for name in Tally.over_time), default=0)


class Speed:
    """How fast work goes, from what was told of it in the last seconds; safe for threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: deque[tuple[float, int]] = deque()

    def of(self, done: int, total: int, what: str) -> str:
        """The rate, in ``what`` per second, and how long the rest will take, where that can be known."""
        with self._lock:
            now = time.monotonic()
            while len(self._told) > 1 and now - self._told[0][0] > _RATE_OVER_S:
                self._told.popleft()
            self._told.append((now, done))
            then, before = self._told[0]
        rate = (done - before) / (now - then) if now > then else 0.0
        if not rate:
            return f"0.0 {what}/s"
        left = round((total - done) / rate)
        return f"{rate:.1f} {what}/s, {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"


@contextmanager
def tallying() -> Iterator[Tally]:
    """Count what happens inside the block, in this thread and those that `carried` starts."""
    tally = Tally()
    token = _tallies.set((*_tallies.get(), tally))
    try:
        yield tally
    finally:
        _tallies.reset(token)


def count(name: str, number: float = 1) -> None:
    """Count for all who are tallying; nobody may be."""
    for tally in _tallies.get():
        tally.add(name, number)


def carried(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call with the present ids and tallies, for a thread of its own."""
    context = contextvars.copy_context()
    return lambda: context.run(call)


def sums(counts: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Add up the numbers of several counts; what is no number is left out."""
    total: Counter[str] = Counter()
    for one in counts:
        total.update({name: n for name, n in one.items() if isinstance(n, int | float)})
    return {name: round(n, 3) if isinstance(n, float) else n for name, n in total.items()}
