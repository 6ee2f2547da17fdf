"""The local store told to misbehave: rules that say when, and which way.

The rules only decide; what a fault does to an answer is in ``answers``.
"""

from __future__ import annotations

import dataclasses
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

KINDS = (
    "status",
    "slow",
    "html",
    "cut",
    "graphql_errors",
    "rate",
    "wrong_count",
    "crash_after_create",
    "empty",
)

_CREATE = "createL2InversionInventory"


@dataclass(frozen=True)
class Rule:
    """One way to misbehave.

    Parameters
    ----------
    kind
        ``status``: any HTTP status. ``slow``: answer after ``seconds``. ``html``: a web page with 200.
        ``cut``: half the body under its full Content-Length. ``graphql_errors``: errors inside 200.
        ``rate``: more than ``n`` requests in ``seconds`` get 429. ``wrong_count``: the record count is off by
        ``n``. ``crash_after_create``: the create is committed and the connection dropped. ``empty``: the
        store answers well and holds nothing.
    times
        How many matching requests it spoils; None: all.
    skip
        How many matching requests pass first.
    match
        Only requests that contain this text: in the JSON body of a POST, in path and query of a GET.
    status, headers
        Of ``status`` and ``rate``, for instance 429 with ``Retry-After``.
    body
        Of ``html`` and ``status`` instead of the built-in one; an empty text sends no body.
    seconds, n
        See ``kind``.
    message
        Of ``graphql_errors``.
    with_data
        ``graphql_errors`` with the real data beside them.
    chunked
        ``cut`` in a chunked body, which has no length and then lacks its end.
    exit
        ``crash_after_create`` ends the whole process, too.
    """

    kind: str
    times: int | None = None
    skip: int = 0
    match: str = ""
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | None = None
    seconds: float = 1.0
    n: int = 1
    message: str = "The store failed inside."
    with_data: bool = False
    chunked: bool = False
    exit: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"The fault {self.kind!r} is not known; known are {', '.join(KINDS)}.")
        hints = get_type_hints(Rule)
        for item in dataclasses.fields(self):
            kinds = get_args(hints[item.name]) or (hints[item.name],)
            allowed = Mapping if item.name == "headers" else kinds
            value = getattr(self, item.name)
            value = float(value) if item.name == "seconds" and isinstance(value, int) else value
            if not isinstance(value, allowed):
                raise ValueError(f"{item.name} of the fault {self.kind!r} cannot be {value!r}.")
        if not 100 <= self.status <= 599:
            raise ValueError(f"The status {self.status} of a fault is no HTTP status.")
        if self.kind == "crash_after_create" and not self.match:
            object.__setattr__(self, "match", _CREATE)

    @classmethod
    def from_json(cls, content: object) -> Rule:
        """Read a rule from JSON.

        Raises
        ------
        ValueError
            One sentence that says what is wrong with it.
        """
        if not isinstance(content, dict) or "kind" not in content:
            raise ValueError("A fault is a JSON object with a kind.")
        unknown = set(content) - {item.name for item in dataclasses.fields(cls)}
        if unknown:
            raise ValueError(f"A fault has no {', '.join(sorted(map(str, unknown)))}.")
        return cls(**content)


@dataclass
class _Counter:
    matched: int = 0
    fired: int = 0
    recent: deque[float] = field(default_factory=deque)


class Faults:
    """The rules in force; safe to change while the server runs."""

    def __init__(self, rules: Iterable[Rule] = ()) -> None:
        self._lock = threading.Lock()
        self._rules: list[tuple[Rule, _Counter]] = []
        self.set(rules)

    def set(self, rules: Iterable[Rule]) -> None:
        """Replace all rules; their counting starts anew."""
        fresh = [(rule, _Counter()) for rule in rules]
        with self._lock:
            self._rules = fresh

    def add(self, kind: str, **options: Any) -> None:
        """Add a rule; see `Rule` for the options."""
        rule = Rule(kind, **options)
        with self._lock:
            self._rules.append((rule, _Counter()))

    def clear(self) -> None:
        """Behave again."""
        self.set(())

    def as_json(self) -> list[dict[str, Any]]:
        """The rules in force, with how often each matched and fired."""
        with self._lock:
            return [
                {**dataclasses.asdict(rule), "matched": counter.matched, "fired": counter.fired}
                for rule, counter in self._rules
            ]

    def strike(self, request: str) -> list[Rule]:
        """The rules that spoil this request, in their order; counts it against each."""
        with self._lock:
            return [rule for rule, counter in self._rules if _fires(rule, counter, request)]


def _fires(rule: Rule, counter: _Counter, request: str) -> bool:
    if rule.match not in request:
        return False
    counter.matched += 1
    if counter.matched <= rule.skip or (rule.times is not None and counter.fired >= rule.times):
        return False
    if rule.kind == "rate" and _has_room(rule, counter):
        return False
    counter.fired += 1
    return True


def _has_room(rule: Rule, counter: _Counter) -> bool:
    now = time.monotonic()
    while counter.recent and counter.recent[0] <= now - rule.seconds:
        counter.recent.popleft()
    if len(counter.recent) >= rule.n:
        return False
    counter.recent.append(now)
    return True
