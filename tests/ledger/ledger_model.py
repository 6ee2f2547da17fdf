"""One observing program in plain words: what the design's table of states says, without a database."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

OPS = ["a", "../b", "c'\n"]
PEOPLE = ["ann", "bob"]
PACKAGE_HASH = "h1"
STEPS = [
    "prepare",
    "claim",
    "release",
    "ready",
    "publish",
    "reopen",
    "withdraw",
    "fail one transient",
    "fail one permanent",
    "fail other transient",
    "retry",
]
WANTED = {
    "prepare": "Invertible",
    "claim": "Preprocessed",
    "release": "Working",
    "ready": "Working",
    "publish": "Inverted",
    "reopen": "Published",
    "withdraw": "Inverted",
    "retry": "Error",
}
LEADS_TO = {
    "prepare": "Preprocessed",
    "claim": "Working",
    "release": "Preprocessed",
    "publish": "Published",
    "reopen": "Invertible",
    "withdraw": "Working",
}
HAS_INVERSION = ("Working", "Inverted", "Published")


@dataclass(frozen=True)
class Row:
    """One step: when it occurred and when it was recorded, as numbers of moments."""

    state: str
    inversion: str | None
    occurred: int
    recorded: int


@dataclass
class Model:
    """One OP."""

    rows: list[Row] = field(default_factory=list)
    claimer: str | None = None
    inversions: list[str] = field(default_factory=list)
    failed: tuple[str, str] | None = None
    tries: dict[str, int] = field(default_factory=dict)
    events: list[tuple[str, str]] = field(default_factory=list)
    remarks: dict[str, list[str]] = field(default_factory=dict)

    @property
    def state(self) -> str | None:
        return self.rows[-1].state if self.rows else None

    @property
    def before(self) -> str | None:
        """The state before the last step."""
        return self.rows[-2].state if len(self.rows) > 1 else None

    @property
    def inversion(self) -> str | None:
        """The latest inversion of all."""
        return self.inversions[-1] if self.inversions else None

    @property
    def inversion_now(self) -> str | None:
        return self.rows[-1].inversion if self.rows else None

    @property
    def claimer_now(self) -> str | None:
        return self.claimer if self.state in ("Working", "Inverted") else None

    @property
    def tries_now(self) -> int | None:
        return self.tries[self.failed[0]] if self.failed else None

    @property
    def is_transient(self) -> bool:
        return self.failed is not None and self.failed[1] == "transient"

    @property
    def pending(self) -> list[str]:
        """The hand-overs that are to be looked at; those of the inversion that failed wait for the retry."""
        waits = self.inversion if self.state == "Error" and self.before == "Working" else None
        return [number for number, inversion in self.events if inversion != waits]

    def is_current(self, inversion: str) -> bool:
        return self.state == "Working" and self.inversion == inversion

    def as_of(self, at: int | None, known_at: int | None) -> Row | None:
        """The last step that had occurred, of those that were recorded."""
        then = [
            row
            for row in self.rows
            if (at is None or row.occurred <= at) and (known_at is None or row.recorded <= known_at)
        ]
        return then[-1] if then else None

    def may(self, step: str, person: str) -> bool:
        if step.startswith("fail"):
            return self.state not in (None, "Published", "Error")
        if self.state != WANTED[step]:
            return False
        return step not in ("release", "ready") or person == self.claimer

    def take(self, step: str, person: str, now: int, inversion: str | None) -> None:
        if step.startswith("fail"):
            _, name, error_class = step.split()
            self.failed = name, error_class
            self.tries[name] = self.tries.get(name, 0) + 1
            self._append("Error", now, now)
        elif step == "retry":
            self.come_back(now, by_itself=False)
        else:
            if step == "claim":
                self.claimer = person
            if step in ("claim", "withdraw"):
                assert inversion not in (None, *self.inversions)
                self.inversions.append(str(inversion))
            self.progress(LEADS_TO[step], now)

    def come_back(self, now: int, *, by_itself: bool) -> None:
        """Back from Error; a person's word begins the counting of tries anew."""
        self.failed = None
        if not by_itself:
            self.tries = {}
        self._append(str(self.before), now, now)

    def progress(self, state: str, now: int, *, occurred: int | None = None) -> None:
        self.tries = {}
        self._append(state, now if occurred is None else occurred, now)

    def settle(self, number: str, is_good: bool, now: int) -> None:
        self.events = [event for event in self.events if event[0] != number]
        if is_good:
            self.progress("Inverted", now)

    def remark(self, kind: str, person: str) -> None:
        """What the same person said last is not said again, except for kinds without rules."""
        said = self.remarks.setdefault(kind, [])
        if kind == "other" or said[-1:] != [person]:
            said.append(person)

    def judge(self, verdict: Any, now: int) -> None:
        datasets, complete, invertible, inputs = verdict or (False, False, False, None)
        if not self.rows:
            if verdict is None:
                return
            self.progress("Discovered", now)
        if self.state == "NotInvertible":
            if datasets and complete and invertible:
                self.progress("Invertible", now)
        elif self.state in ("Discovered", "Invertible", "Preprocessed"):
            waits = self.state == "Discovered" and not complete
            if not datasets or (not invertible and not waits):
                self.progress("NotInvertible", now)
            elif not waits and (
                self.state == "Discovered" or (self.state == "Preprocessed" and inputs != PACKAGE_HASH)
            ):
                self.progress("Invertible", now)

    def _append(self, state: str, occurred: int, recorded: int) -> None:
        carried = self.state if state == "Error" else state
        inversion = self.inversion if carried in HAS_INVERSION else None
        self.rows.append(Row(state, inversion, occurred, recorded))
