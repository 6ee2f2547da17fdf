"""What a server's answer says about its rate: Retry-After, the IETF ``ratelimit`` drafts, ``x-ratelimit-*``.

Only reading: what cannot be meant is left out, whatever is wrong with it. How far it is believed is
decided in ``rate_state``.
"""

from __future__ import annotations

import email.utils
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC

_EPOCH_S = 1e9
_EPOCH_MS = 1e12
_MOST_REQUESTS = 10**7
_LONGEST = 500
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,9})?\Z")


@dataclass(frozen=True, slots=True, order=True)
class Quota:
    """So many requests in any window of so many seconds."""

    requests: int
    seconds: float

    def __post_init__(self) -> None:
        if self.requests < 1 or not (0 < self.seconds < math.inf):
            raise ValueError(f"A quota of {self.requests} requests per {self.seconds} s can't be meant.")

    @property
    def rate(self) -> float:
        """Requests per second in the long run."""
        return self.requests / self.seconds


@dataclass(frozen=True, slots=True)
class Advice:
    """What one answer says; times in seconds from the answer, None where it says nothing usable."""

    quotas: tuple[Quota, ...] = ()
    remaining: int | None = None
    reset_s: float | None = None
    retry_after_s: float | None = None


def read_advice(headers: Mapping[str, str], now: float) -> Advice:
    """Read the headers of an answer; ``now`` (seconds of the epoch) stands in for a missing ``Date``."""
    told = {str(name).lower(): str(value)[:_LONGEST] for name, value in headers.items()}
    date = _date(told.get("date"))
    moment = now if date is None else date
    quotas: list[Quota] = []
    for name in ("ratelimit-policy", "ratelimit-limit", "x-ratelimit-policy", "x-ratelimit-limit"):
        quotas += _quotas(told.get(name, ""))
    remaining = _first(told, "remaining")
    reset = _seconds(_first(told, "reset"), moment)
    for item, parameters in _items(told.get("ratelimit", "")):
        values = {**parameters, **dict([item.split("=", 1)] if "=" in item else [])}
        remaining = values.get("r", values.get("remaining", remaining))
        reset = _first_known(_seconds(values.get("t", values.get("reset")), moment), reset)
    left = _number(remaining)
    return Advice(
        quotas=tuple(dict.fromkeys(quotas)),
        remaining=None if left is None else min(int(left), _MOST_REQUESTS),
        reset_s=reset,
        retry_after_s=_retry_after(told.get("retry-after"), moment),
    )


def _first(told: Mapping[str, str], what: str) -> str | None:
    for prefix in ("ratelimit-", "x-ratelimit-", "x-rate-limit-"):
        if f"{prefix}{what}" in told:
            return told[f"{prefix}{what}"]
    return None


def _first_known(value: float | None, other: float | None) -> float | None:
    return other if value is None else value


def _items(text: str) -> Iterator[tuple[str, dict[str, str]]]:
    """The items of a structured list with their parameters: ``100;w=60, "burst";q=5;w=1``."""
    for part in text.split(","):
        item, *rest = (piece.strip() for piece in part.split(";"))
        pairs = (piece.split("=", 1) for piece in rest if "=" in piece)
        yield item, {name.strip().lower(): value.strip().strip('"') for name, value in pairs}


def _quotas(text: str) -> Iterator[Quota]:
    for item, parameters in _items(text):
        requests = _number(parameters.get("q", item))
        window = _number(parameters.get("w"))
        if requests is not None and window and 1 <= requests <= _MOST_REQUESTS:
            yield Quota(int(requests), window)


def _number(text: str | None) -> float | None:
    text = (text or "").strip()
    return float(text) if _NUMBER.match(text) else None


def _seconds(text: str | None, moment: float) -> float | None:
    """Seconds to go; a number too large for that is a moment of the epoch, in seconds or milliseconds."""
    value = _number(text)
    if value is not None and value >= _EPOCH_S:
        value = max(0.0, (value / 1000 if value >= _EPOCH_MS else value) - moment)
    return value


def _date(text: str | None) -> float | None:
    if not text:
        return None
    try:
        moment = email.utils.parsedate_to_datetime(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _retry_after(text: str | None, moment: float) -> float | None:
    seconds = _number(text)
    if seconds is not None:
        return seconds
    date = _date(text)
    return None if date is None else max(0.0, date - moment)
