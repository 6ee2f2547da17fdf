"""The limiter as callers meet it: one step down an event, up only while it is the limit; no lie stops it."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Mapping
from email.utils import formatdate

import pytest

from benchmarks.rate_world import DAY_ONE, QuotaServer, Workers, World, simulate
from dagster_l2.base.errors import WrongUse
from dagster_l2.batch.headers import Quota
from dagster_l2.batch.leases import MemoryRates, rate_key
from dagster_l2.batch.rate import Limiter, RateClosed
from dagster_l2.batch.rate_terms import RateSettings

OPEN = RateSettings(initial=10.0, maximum=25.0)


class Clock:
    """A clock that moves when somebody waits."""

    def __init__(self) -> None:
        self.now = DAY_ONE

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += max(seconds, 1e-4)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def limiter(clock: Clock, settings: RateSettings = OPEN, kept: object = None) -> Limiter:
    return Limiter(MemoryRates(clock=clock, kept=kept), settings, sleep=clock.sleep)


def one_by_one(limiter: Limiter, clock: Clock, count: int, headers: Mapping[str, str] | None = None) -> float:
    """Send requests that are all admitted, each after the answer to the one before; gives the seconds."""
    began = clock()
    for _ in range(count):
        granted_at = limiter.acquire()
        clock.now += 0.02
        limiter.succeeded(granted_at, headers or {})
    return clock() - began


# -- decrease -----------------------------------------------------------------------------------------------


def test_all_requests_in_flight_make_one_event(clock: Clock) -> None:
    pace = limiter(clock)
    flight = [pace.acquire() for _ in range(8)]
    for granted_at in reversed(flight):
        clock.now += 0.01
        pace.congested(granted_at, {})
    assert pace.stats().congestion_events == 1
    assert pace.stats().requests_per_second == 5.0
    assert pace.stats().turned_down == 8


def test_a_request_granted_after_the_event_makes_another(clock: Clock) -> None:
    pace = limiter(clock)
    for _ in range(2):
        granted_at = pace.acquire()
        clock.now += 0.1
        pace.congested(granted_at, {})
    assert pace.stats().congestion_events == 2
    assert pace.stats().requests_per_second == 2.5


def test_only_one_knocks_while_the_server_turns_down(clock: Clock) -> None:
    pace = limiter(clock)
    pace.congested(pace.acquire(), {})
    knock = None
    while knock is None:
        clock.sleep(0.1)
        knock, _ = pace.poll()
    clock.sleep(5.0)
    assert pace.poll()[0] is None
    pace.succeeded(knock, {})
    clock.sleep(1.0)
    assert pace.poll()[0] is not None


def test_the_rate_never_falls_under_its_minimum(clock: Clock) -> None:
    pace = limiter(clock, RateSettings(minimum=0.5))
    for _ in range(12):
        granted_at = pace.acquire()
        clock.now += 0.1
        pace.congested(granted_at, {})
    assert pace.stats().requests_per_second == 0.5


# -- increase -----------------------------------------------------------------------------------------------


def test_the_rate_grows_by_one_a_round_trip_while_it_is_the_limit(clock: Clock) -> None:
    pace = limiter(clock, RateSettings(initial=5.0, maximum=9.0))
    one_by_one(pace, clock, 2)
    assert pace.stats().requests_per_second == 6.0
    one_by_one(pace, clock, 20)
    assert pace.stats().requests_per_second == 9.0


def test_answers_of_one_round_trip_count_once(clock: Clock) -> None:
    pace = limiter(clock, RateSettings(initial=5.0))
    flight = [pace.acquire() for _ in range(6)]
    for granted_at in flight:
        pace.succeeded(granted_at, {})
    assert pace.stats().requests_per_second == 6.0


def test_the_rate_does_not_grow_while_nobody_waits_for_it(clock: Clock) -> None:
    pace = limiter(clock, RateSettings(initial=5.0))
    for _ in range(50):
        clock.sleep(0.5)  # slower than the rate: the sender is the limit
        pace.succeeded(pace.acquire(), {})
    assert pace.stats().requests_per_second == 5.0


def test_a_rate_under_one_a_second_is_at_most_doubled(clock: Clock) -> None:
    pace = limiter(clock, RateSettings(initial=0.1, minimum=0.01))
    one_by_one(pace, clock, 2)
    assert pace.stats().requests_per_second == pytest.approx(0.2)


def test_no_second_sees_more_than_the_maximum(clock: Clock) -> None:
    pace = limiter(clock)
    seconds = one_by_one(pace, clock, 500, {"RateLimit-Policy": "1000000;w=1"})
    assert 500 / seconds <= 25.1


# -- Retry-After --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("says", ["30", formatdate(DAY_ONE + 30.0, usegmt=True)])
@pytest.mark.parametrize("lease_s", [0.0, 1.0])
def test_everybody_honours_retry_after(says: str, lease_s: float, clock: Clock) -> None:
    store = MemoryRates(clock=clock, lease_s=lease_s)
    first, second = (Limiter(store, OPEN, sleep=clock.sleep) for _ in range(2))
    granted_at = first.acquire()
    second.succeeded(second.acquire(), {})
    first.congested(granted_at, {"Retry-After": says, "Date": formatdate(DAY_ONE, usegmt=True)})
    told_at = clock()
    clock.sleep(0.3)  # what the second holds is looked at again after a quarter of a second
    assert second.acquire() - told_at >= 30
    assert second.stats().waited_s >= 29


@pytest.mark.parametrize("says", ["999999999", formatdate(DAY_ONE + 1e7, usegmt=True)])
def test_a_pause_is_capped(says: str, clock: Clock) -> None:
    pace = limiter(clock, RateSettings(max_pause_s=120))
    granted_at = pace.acquire()
    pace.congested(granted_at, {"Retry-After": says})
    assert 119 <= pace.acquire() - granted_at <= 125


# -- headers that lie ---------------------------------------------------------------------------------------

LIES = [
    {"RateLimit-Remaining": "0", "RateLimit-Reset": "999999999"},
    {"RateLimit-Remaining": "0", "RateLimit-Reset": "99999", "RateLimit-Limit": "0"},
    {"RateLimit-Policy": "1;w=100000000"},
    {"RateLimit-Limit": "1, 1;w=99999"},
    {"RateLimit-Policy": "0;w=60", "RateLimit-Remaining": "-1"},
    {"X-RateLimit-Reset": "NaN", "X-RateLimit-Remaining": "lots", "RateLimit-Limit": ";;w=,"},
    {"RateLimit-Limit": "100, 100;w=60, 1;w=60", "RateLimit-Remaining": "99", "RateLimit-Reset": "0"},
]


@pytest.mark.parametrize("headers", LIES)
def test_a_lie_beside_every_success_only_slows_down(headers: dict[str, str], clock: Clock) -> None:
    pace = limiter(clock, RateSettings(minimum=0.1))
    # At worst the configured minimum: one in ten seconds.
    assert one_by_one(pace, clock, 20, headers) <= 20 * 10 * 1.2


@pytest.mark.parametrize("headers", LIES)
def test_a_lie_told_once_is_forgotten(headers: dict[str, str], clock: Clock) -> None:
    pace = limiter(clock, RateSettings(minimum=0.01))
    one_by_one(pace, clock, 3, headers)
    one_by_one(pace, clock, 12)
    assert one_by_one(pace, clock, 100) <= 30


def test_a_quota_that_is_too_lax_is_found_out() -> None:
    class Boaster(QuotaServer):
        def answer(self, now: float) -> tuple[bool, dict[str, str]]:
            admitted, _ = super().answer(now)
            return admitted, {"RateLimit-Policy": "1000;w=60"}

    done = simulate(Boaster(Quota(30, 60)), chunks=120)
    assert done.arrived == 120
    assert done.seconds <= 1.15 * 180 + 30


def test_a_wrong_retry_after_slows_only_for_a_while() -> None:
    """A server of 10/s that always says ``Retry-After: 60``: it is honoured, and then outgrown."""

    class Exaggerator(QuotaServer):
        def answer(self, now: float) -> tuple[bool, dict[str, str]]:
            admitted, _ = super().answer(now)
            return admitted, {} if admitted else {"Retry-After": "60"}

    done = simulate(Exaggerator(Quota(10, 1)), chunks=600)
    assert done.arrived == 600
    assert done.turned_down <= 12
    assert done.seconds <= 900  # most of it asked for; what it seemed to allow would take 2400 s


def test_an_outage_is_not_taken_for_a_quota() -> None:
    class Down(QuotaServer):
        def answer(self, now: float) -> tuple[bool, dict[str, str]]:
            if DAY_ONE + 2 <= now <= DAY_ONE + 90:
                return False, {}
            return True, {}

    done = simulate(Down(Quota(1, 1)), chunks=3000)
    assert done.arrived == 3000
    assert done.seconds <= 90 + 60 + 120 + 120  # back, the next trial of more, and the rest at full speed


# -- keeping ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("says", ["headers", "retry_after", "bare"])
def test_the_second_day_begins_with_what_the_first_learned(says: str) -> None:
    first = simulate(QuotaServer(Quota(30, 60), says=says), chunks=90)
    second = simulate(
        QuotaServer(Quota(30, 60), says=says), chunks=60, kept=first.kept, start=DAY_ONE + 86_400
    )
    assert second.turned_down <= (0 if says == "headers" else 1)  # one trial of one more


@pytest.mark.parametrize(
    "kept", [None, 7, "torn", [], {}, {"rate": "fast"}, {"rate": math.nan, "log": [[1]]}]
)
def test_a_garbage_state_begins_anew(kept: object, clock: Clock) -> None:
    pace = limiter(clock, kept=kept)
    assert one_by_one(pace, clock, 5) < 2


def test_a_clock_set_back_costs_at_most_one_window(clock: Clock) -> None:
    settings = RateSettings(initial=5.0, quotas=(Quota(5, 60),))
    pace = limiter(clock, settings)
    one_by_one(pace, clock, 5)
    clock.now -= 86_400
    began = clock()
    assert pace.acquire() - began <= 75


def test_the_history_stays_small(clock: Clock) -> None:
    pace = limiter(clock, RateSettings(initial=1.0, increase=0.01))
    one_by_one(pace, clock, 1500)
    history = pace.stats().history
    assert 100 < len(history) <= 300
    assert [at for at, _ in history] == sorted(at for at, _ in history)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"initial": 1.0, "minimum": 2.0}, "minimum <= initial"),
        ({"maximum": 1.0}, "initial <= maximum"),
        ({"decrease": 1.0}, "factor below 1"),
    ],
)
def test_numbers_that_contradict_each_other_are_refused(settings: dict[str, float], says: str) -> None:
    with pytest.raises(WrongUse, match=says):
        RateSettings(**settings)  # type: ignore[arg-type]


def test_no_secret_is_in_a_key() -> None:
    key = rate_key("https://ann:secret@Udl.example:8443/udl/x?token=secret", "download")
    assert key == "udl.example:8443/download"


# -- threads, on the real clock -----------------------------------------------------------------------------


def test_threads_share_the_rate() -> None:
    pace = Limiter(settings=RateSettings(initial=25.0, quotas=(Quota(10, 0.5),)))
    grants: list[float] = []
    stop = time.monotonic() + 1.6

    def work() -> None:
        while time.monotonic() < stop:
            granted_at = pace.acquire()
            grants.append(granted_at)
            pace.succeeded(granted_at, {})

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recent: deque[float] = deque()
    for grant in sorted(grants):
        recent.append(grant)
        while recent[0] <= grant - 0.5:
            recent.popleft()
        assert len(recent) <= 10
    assert len(grants) >= 25
    assert pace.stats().granted == len(grants) == len(set(grants))


def test_closing_wakes_who_waits() -> None:
    pace = Limiter(settings=RateSettings(initial=0.02))
    pace.acquire()
    raised: list[BaseException] = []

    def wait() -> None:
        try:
            pace.acquire()
        except RateClosed as closed:
            raised.append(closed)

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    began = time.monotonic()
    pace.close()
    for thread in threads:
        thread.join()
    assert len(raised) == 3
    assert time.monotonic() - began < 0.5


def test_a_lease_costs_one_transaction_a_second() -> None:
    world = World()
    limits = RateSettings(initial=25.0)
    pace = Limiter(MemoryRates(clock=world.clock, lease_s=1.0), limits)
    server = QuotaServer(Quota(1000, 1), says="bare")
    crew = Workers(world, server, pace, deque(range(600)), 8)
    world.run(lambda: len(crew.arrived) == 600)
    seconds = world.now - DAY_ONE
    assert seconds <= 600 / 25 * 1.2
    assert pace.stats().transactions <= 1.5 * seconds
