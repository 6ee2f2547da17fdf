"""A server with a quota and workers that ask it, on a clock that only this world moves.

The limiter is the real one; latencies are drawn from a seed.
"""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from dagster_l2.batch.headers import Quota
from dagster_l2.batch.leases import MemoryRates
from dagster_l2.batch.rate import Limiter
from dagster_l2.batch.rate_terms import RateSettings

LATENCY_S = (0.05, 0.3)
"""A request and its answer together."""

UPWARD = 0.1
"""The part of the latency before the server counts the request; the rest is its work and the way back."""

DAY_ONE = 1_800_000_000.0


@dataclass
class QuotaServer:
    """Admits so many requests in its window and turns the others down.

    ``kind``: ``sliding`` looks back from each request; ``fixed`` counts from moments of the clock (``phase``
    seconds after a whole window). ``says``: ``headers`` (drafts, and Retry-After), ``retry_after``, ``bare``,
    or ``lying`` (headers of ten times the quota, all of it left, and to come again at once).
    """

    quota: Quota
    kind: str = "sliding"
    says: str = "headers"
    phase: float = 0.0
    admitted: deque[float] = field(default_factory=deque)
    turned_down: int = 0
    most: int = 0

    def answer(self, now: float) -> tuple[bool, dict[str, str]]:
        """Admit or not, and the headers."""
        window, requests = self.quota.seconds, self.quota.requests
        start = now - window
        if self.kind == "fixed":
            start = math.floor((now - self.phase) / window) * window + self.phase - 1e-9
        while self.admitted and self.admitted[0] <= start:
            self.admitted.popleft()
        admit = len(self.admitted) < requests
        if admit:
            self.admitted.append(now)
        else:
            self.turned_down += 1
        reset = (self.admitted[0] if self.kind == "sliding" else start) + window - now
        wait = str(max(1, math.ceil(reset)))
        headers: dict[str, str] = {}
        if self.says == "lying":
            much, wait = 10 * requests, "0"
            headers = {
                "RateLimit-Limit": f"{much}, {much};w={window:g}",
                "RateLimit-Remaining": str(much),
                "RateLimit-Reset": wait,
            }
        if self.says == "headers":
            headers = {
                "RateLimit-Limit": f"{requests}, {requests};w={window:g}",
                "RateLimit-Remaining": str(requests - len(self.admitted)),
                "RateLimit-Reset": wait,
            }
        if not admit and self.says != "bare":
            headers["Retry-After"] = wait
        return admit, headers


@dataclass
class Outcome:
    """How a day went."""

    arrived: int
    seconds: float
    turned_down: int
    grants: list[float]
    kept: object


class World:
    """Time, and what is due."""

    def __init__(self, seed: int = 1, start: float = DAY_ONE) -> None:
        self.now = start
        self.random = random.Random(seed)
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def clock(self) -> float:
        return self.now

    def after(self, seconds: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._due, (self.now + max(seconds, 0.0), next(self._order), do))

    def run(self, until: Callable[[], bool], longest_s: float = 10 * 86400.0) -> None:
        """Let time pass until that holds, or nothing is due any more."""
        end = self.now + longest_s
        while self._due and not until() and self.now < end:
            self.now, _, do = heapq.heappop(self._due)
            do()


class Workers:
    """The workers of one process: each takes an item, waits for its turn, sends, asks again after a 429.

    ``late_s``: by how much the waiting may take longer than asked for, as it does on a busy machine.
    ``way_s``: how long a request is on its way to the server, instead of its part of the latency.
    """

    def __init__(
        self,
        world: World,
        server: QuotaServer,
        limiter: Limiter,
        items: deque[int],
        count: int,
        late_s: float = 0.0,
        way_s: tuple[float, float] | None = None,
    ) -> None:
        self.world, self.server, self.limiter, self.items = world, server, limiter, items
        self.way_s = way_s
        self.arrived: list[int] = []
        self.grants: list[float] = []
        self.is_dead = False
        self.late_s = late_s
        self._queue: deque[int] = deque()
        self._waited: set[int] = set()
        self._wake = math.inf
        for _ in range(count):
            self._take()

    def _take(self) -> None:
        if self.items:
            self._queue.append(self.items.popleft())
            self.world.after(0.0, self._ask)

    def _ask(self) -> None:
        self._wake = math.inf
        while self._queue and not self.is_dead:
            item = self._queue[0]
            granted_at, wait = self.limiter.poll(waited=item in self._waited)
            if granted_at is None:
                self._waited.update(self._queue)
                # Microseconds lie below what a clock of this size can hold apart.
                wait = max(wait, 1e-5) + self.world.random.uniform(0.0, self.late_s)
                if self.world.now + wait < self._wake:
                    self._wake = self.world.now + wait
                    self.world.after(wait, self._ask)
                return
            self._queue.popleft()
            self._waited.discard(item)
            self._send(item, granted_at)

    def _send(self, item: int, granted_at: float) -> None:
        self.grants.append(granted_at)
        latency = self.world.random.uniform(*LATENCY_S)
        way = UPWARD * latency if self.way_s is None else self.world.random.uniform(*self.way_s)

        def arrive() -> None:
            admitted, headers = self.server.answer(self.world.now)
            self.world.after((1 - UPWARD) * latency, lambda: answer(admitted, headers))

        def answer(admitted: bool, headers: dict[str, str]) -> None:
            if self.is_dead:
                return
            if admitted:
                self.limiter.succeeded(granted_at, headers)
                self.arrived.append(item)
                self._take()
            else:
                self.limiter.congested(granted_at, headers)
                self._queue.append(item)
            self._ask()

        self.world.after(way, arrive)


def simulate(
    server: QuotaServer,
    *,
    chunks: int = 288,
    workers: int = 4,
    processes: int = 1,
    lease_s: float = 0.0,
    late_s: float = 0.0,
    way_s: tuple[float, float] | None = None,
    settings: RateSettings | None = None,
    kept: object = None,
    seed: int = 1,
    start: float = DAY_ONE,
) -> Outcome:
    """One day of chunks; the workers may belong to several processes that share the rate by leases."""
    world = World(seed, start)
    store = MemoryRates(clock=world.clock, kept=kept, lease_s=lease_s)
    items = deque(range(chunks))
    crews = [
        Workers(
            world,
            server,
            Limiter(store, settings or RateSettings()),
            items,
            workers // processes,
            late_s,
            way_s,
        )
        for _ in range(processes)
    ]

    def arrived() -> int:
        return sum(len(crew.arrived) for crew in crews)

    world.run(lambda: arrived() == chunks)
    grants = [grant for crew in crews for grant in crew.grants]
    return Outcome(arrived(), world.now - start, server.turned_down, grants, store.as_json())


def ideal_s(quota: Quota, *, chunks: int = 288, workers: int = 4) -> float:
    """The fastest that a client can be that lets no window see more than the quota.

    A window's worth at once, a window's wait, and so on; the last ones through the workers at mean latency.
    """
    waits, rest = divmod(chunks - 1, quota.requests)
    return waits * quota.seconds + math.ceil((rest + 1) / workers) * sum(LATENCY_S) / 2
