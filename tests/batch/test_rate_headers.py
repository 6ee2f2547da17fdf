"""What servers say about their rate is read in every form they use, and nonsense is read as nothing."""

from __future__ import annotations

from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dagster_l2.batch.headers import Advice, Quota, read_advice

NOW = 1_800_000_000.0


@pytest.mark.parametrize(
    ("headers", "advice"),
    [
        ({}, Advice()),
        ({"RateLimit-Limit": "100, 100;w=60"}, Advice(quotas=(Quota(100, 60),))),
        ({"ratelimit-limit": "10, 10;w=1, 50;w=60"}, Advice(quotas=(Quota(10, 1), Quota(50, 60)))),
        ({"RateLimit-Policy": "100;w=60"}, Advice(quotas=(Quota(100, 60),))),
        ({"RateLimit-Policy": '"day";q=5000;w=86400'}, Advice(quotas=(Quota(5000, 86400),))),
        ({"RateLimit": '"default";r=50;t=30'}, Advice(remaining=50, reset_s=30)),
        ({"RateLimit": "limit=100, remaining=7, reset=5"}, Advice(remaining=7, reset_s=5)),
        ({"RateLimit-Remaining": "3", "RateLimit-Reset": "12"}, Advice(remaining=3, reset_s=12)),
        ({"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "7"}, Advice(remaining=0, reset_s=7)),
        ({"X-Rate-Limit-Reset": str(int(NOW) + 90)}, Advice(reset_s=90)),
        ({"X-RateLimit-Reset": str((int(NOW) + 90) * 1000)}, Advice(reset_s=90)),
        ({"X-RateLimit-Reset": str(int(NOW) - 90)}, Advice(reset_s=0)),
        ({"Retry-After": "120"}, Advice(retry_after_s=120)),
        ({"Retry-After": formatdate(NOW + 30, usegmt=True)}, Advice(retry_after_s=30)),
        ({"Retry-After": formatdate(NOW - 30, usegmt=True)}, Advice(retry_after_s=0)),
    ],
)
def test_each_form_is_read(headers: dict[str, str], advice: Advice) -> None:
    assert read_advice(headers, NOW) == advice


def test_a_date_is_measured_by_the_servers_own_clock() -> None:
    # The server's clock goes an hour before ours; half a minute stays half a minute.
    headers = {
        "Date": formatdate(NOW + 3600, usegmt=True),
        "Retry-After": formatdate(NOW + 3630, usegmt=True),
    }
    assert read_advice(headers, NOW).retry_after_s == 30


@pytest.mark.parametrize(
    "text", ["", "soon", "-5", "nan", "inf", "1e9", "0x10", "٣", "9" * 400, "100;w=", ";;,="]
)
@pytest.mark.parametrize(
    "name", ["Retry-After", "RateLimit-Limit", "RateLimit-Policy", "RateLimit-Reset", "RateLimit-Remaining"]
)
def test_nonsense_says_nothing(name: str, text: str) -> None:
    assert read_advice({name: text}, NOW) == Advice()


@pytest.mark.parametrize("text", ["0;w=60", "100;w=0", "100;w=-1", "-1;w=60", '"x";q=nan;w=1'])
def test_a_quota_that_cannot_be_meant_is_none(text: str) -> None:
    assert read_advice({"RateLimit-Policy": text}, NOW).quotas == ()


pieces = st.sampled_from(
    ["100", "w=60", ";", ",", "=", '"', "q=", "r=", "t=", "-1", "1e5", "GMT", " ", "9999999999999"]
)
texts = st.one_of(st.text(max_size=40), st.lists(pieces, max_size=12).map("".join))
names = st.sampled_from(
    ["Retry-After", "RateLimit", "RateLimit-Limit", "X-RateLimit-Reset", "ratelimit-policy", "Date"]
)


@given(st.dictionaries(names, texts))
def test_no_header_breaks_the_reader(headers: dict[str, str]) -> None:
    advice = read_advice(headers, NOW)
    for seconds in (advice.reset_s, advice.retry_after_s):
        assert seconds is None or seconds >= 0
