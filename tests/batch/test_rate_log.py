"""The log of grants counts like a plain list of moments, and never less once it is tidied."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from dagster_l2.batch.rate_log import GrantLog

moments = st.lists(st.integers(0, 500_000), min_size=1, max_size=80).map(lambda ms: [m / 1000 for m in ms])


@given(moments, st.data())
def test_it_counts_like_a_list(grants: list[float], data: st.DataObject) -> None:
    log, plain = GrantLog(), list(grants)
    for grant in grants:
        log.add(grant)
    for grant in data.draw(st.lists(st.sampled_from(grants), max_size=10, unique_by=id)):
        if grant not in plain:
            continue
        plain.remove(grant)
        log.remove(grant)
        earlier = data.draw(st.none() | st.integers(0, int(grant * 1000)))
        if earlier is not None:  # used before the latest moment at which it counted
            log.add(grant)
            log.move(grant, earlier / 1000)
            plain.append(earlier / 1000)
    after, before = sorted(data.draw(st.lists(st.integers(0, 500_000), min_size=2, max_size=2)))
    after, before = after / 1000, before / 1000
    assert len(log) == len(plain)
    assert log.count(after, before) == sum(after < grant < before for grant in plain)
    plain.sort()
    for number in range(1, len(plain) + 2):
        assert log.last_but(number) == (plain[-number] if number <= len(plain) else None)


@given(moments, st.integers(1, 30))
def test_tidying_forgets_no_grant_early(grants: list[float], number: int) -> None:
    log = GrantLog()
    for grant in grants:
        log.add(grant)
    log.tidy(now=600.0, keep_s=400.0, latest=600.0, most=5)
    kept = sorted(grant for grant in grants if grant >= 200.0)
    assert len(log) == len(kept)
    exact = kept[-number] if number <= len(kept) else None
    counted = log.last_but(number)
    assert (counted is None) == (exact is None)
    if exact is not None and counted is not None:
        assert exact <= counted <= exact + 0.02 * (600 - exact)


def test_a_burst_is_not_held_up_by_its_own_end_a_window_later() -> None:
    log = GrantLog()
    for part in range(100):
        log.add(part / 200)
    log.tidy(now=60.0, keep_s=130.0, latest=61.0)
    assert log.last_but(100) == 0.0


def test_hours_at_full_rate_stay_small() -> None:
    log = GrantLog()
    for second in range(1200):
        for part in range(25):
            log.add(second + part / 25)
        if second % 10 == 0:
            log.tidy(now=second + 1.0, keep_s=3600.0, latest=second + 10.0)
    assert len(log) == 30_000
    assert len(log.as_json()) < 1200


def test_requests_turned_down_are_told_apart() -> None:
    log = GrantLog()
    for grant in (1.0, 2.0, 3.0):
        log.add(grant)
    log.turn_down(2.0)
    assert log.count(0.0, 9.0) == 3
    assert log.count(0.0, 9.0, admitted=True) == 2
    assert log.last_but(2, admitted=True) == 1.0
