"""The history of every OP against the state machine, as a function of its rows; no database.

The rules are those that the guards enforce when a row is appended, told again from the edges: what went
past the guards shows here. Reading the rows is ``check``'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, TypeAlias

from dagster_l2.ledger.states import HAS_INVERSION, NEW_INVERSION, State, is_edge

_UTC_TEXT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00\Z")
_STATES = {state.value: state for state in State}
_KEEPS = (*HAS_INVERSION, State.ERROR)

Moment: TypeAlias = Any
"""A time as its column gives it: on SQLite a text that sorts like times, if nobody put in another."""


class Step(NamedTuple):
    """What of a transition the state machine is about, as it is stored."""

    op_id: str
    seq: int
    from_state: str | None
    to_state: str
    occurred_at: Moment
    recorded_at: Moment
    inversion_id: str | None
    has_details: bool


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it must be, in one sentence; a remark is one that need not be mended."""

    sentence: str
    op_id: str | None = None
    seq: int | None = None
    is_remark: bool = False


class Replay:
    """Replays rows that come ordered by OP and ``seq``, and counts them.

    Only the last two rows are kept, so that it takes any number of them. That an inversion id belongs to
    one OP takes a look at all rows at once and is not found here.
    """

    def __init__(self) -> None:
        self.ops = 0
        self.steps = 0
        self._latest: Step | None = None

    def run(self, steps: Iterable[Step]) -> Iterator[Finding]:
        """What is wrong with these rows, which follow on those of the last call."""
        for step in steps:
            latest = self._latest if self._latest is not None and self._latest.op_id == step.op_id else None
            self.ops += latest is None
            self.steps += 1
            for sentence in (*_order(step, latest), *_edge(step, latest), *_inversion(step, latest)):
                yield Finding(sentence, step.op_id, step.seq)
            for sentence, is_remark in _times(step, latest):
                yield Finding(sentence, step.op_id, step.seq, is_remark)
            if not step.has_details:
                yield Finding("its details are not JSON", step.op_id, step.seq)
            self._latest = step


def _order(step: Step, latest: Step | None) -> Iterator[str]:
    before = latest.seq if latest is not None and isinstance(latest.seq, int) else 0
    if step.seq != before + 1:
        yield f"its seq follows {before}, so rows are missing" if before else "rows before it are missing"


def _edge(step: Step, latest: Step | None) -> Iterator[str]:
    present = None if latest is None else latest.to_state
    if step.from_state != present:
        yield f"it leaves {step.from_state}, but the OP was in {present}"
    for state in (step.from_state, step.to_state):
        if state is not None and state not in _STATES:
            yield f"{state!a} is no state"
            return
    start = None if step.from_state is None else _STATES[step.from_state]
    if not is_edge(start, _STATES[step.to_state]):
        yield f"there is no step from {step.from_state} to {step.to_state}"
    elif start is State.ERROR and latest is not None and step.to_state != latest.from_state:
        yield f"it returns from Error to {step.to_state}, but the Error came from {latest.from_state}"


def _times(step: Step, latest: Step | None) -> Iterator[tuple[str, bool]]:
    """Sentences on the times, and whether each is only a remark.

    The first revision didn't guard ``recorded_at``, so a row that was written then may stand.
    """
    moments = (step.occurred_at, step.recorded_at)
    for name, moment in zip(("occurred_at", "recorded_at"), moments, strict=True):
        if not _is_time(moment):
            yield f"its {name} {moment!a} is no UTC time", False
    if not all(map(_is_time, moments)):
        return
    if latest is not None and _is_time(latest.occurred_at) and step.occurred_at < latest.occurred_at:
        yield f"it occurred at {step.occurred_at}, before the one before it ({latest.occurred_at})", False
    if latest is not None and _is_time(latest.recorded_at) and step.recorded_at < latest.recorded_at:
        yield f"it was recorded at {step.recorded_at}, before the one before it ({latest.recorded_at})", True
    if step.occurred_at > step.recorded_at:
        yield f"it occurred at {step.occurred_at}, after it was recorded ({step.recorded_at})", True


def _is_time(moment: Moment) -> bool:
    return isinstance(moment, datetime) or (isinstance(moment, str) and _UTC_TEXT.match(moment) is not None)


def _inversion(step: Step, latest: Step | None) -> Iterator[str]:
    if step.to_state == State.WORKING and step.from_state in NEW_INVERSION:
        if not step.inversion_id:
            yield "it enters Working without an inversion id"
    elif step.to_state in _KEEPS:
        kept = None if latest is None else latest.inversion_id
        if step.inversion_id != kept:
            yield f"its inversion id is {step.inversion_id}, but the OP's was {kept}"
    elif step.inversion_id is not None:
        yield f"it has the inversion id {step.inversion_id}, but {step.to_state} has none"
