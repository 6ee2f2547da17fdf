"""What the ledger hands out and takes in, as plain frozen records.

No storage; the keys of ``details`` by state are the contract that other rooms read:
Preprocessed ``package, instrument_program_id, dataset_ids, spectral_lines, buckets``; Working the same and
``claimed_by``; Inverted the same and ``event_id, commit, products``; Published ``bucket, dataset_ids,
spectral_lines``; Invertible and NotInvertible ``failed_criteria, warnings``; Error ``step, class, message,
previous_state, tries``. What came back from Error by itself has ``automatic`` beside
the rest; what a verdict moved has ``basis``: the files and the rules that it was made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

from dagster_l2.ledger.states import State

Details = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Transition:
    """One row of the history of an OP; times are aware and in UTC."""

    transition_id: int
    op_id: str
    seq: int
    from_state: State | None
    to_state: State
    occurred_at: datetime
    recorded_at: datetime
    actor: str
    cause: str
    inputs_hash: str | None
    rule_version: str | None
    inversion_id: str | None
    run_id: str | None
    details: Details


@dataclass(frozen=True, slots=True)
class Stay:
    """The time an OP spent in a state: the step into it, and when the next one ended it (None: not yet)."""

    step: Transition
    ended_at: datetime | None

    @property
    def duration(self) -> timedelta | None:
        """How long it lasted; None while it lasts."""
        return None if self.ended_at is None else self.ended_at - self.step.occurred_at


@dataclass(frozen=True, slots=True)
class Present:
    """Where an OP stands: its latest transition, and whether its inputs changed since they were claimed."""

    op_id: str
    state: State
    since: datetime
    seq: int
    actor: str
    cause: str
    inputs_hash: str | None
    rule_version: str | None
    inversion_id: str | None
    previous_state: State | None
    details: Details
    recorded_at: datetime
    inputs_changed: bool = False

    @property
    def claimed_by(self) -> str | None:
        """The scientist who claimed it, in Working and Inverted."""
        return self.details.get("claimed_by")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the warehouse says of one OP at this moment.

    ``details`` goes into the transition; when it has ``dataset_ids``, a flag of changed inputs says which
    came and went.
    """

    op_id: str
    has_datasets: bool
    is_complete: bool
    is_invertible: bool
    failed_criteria: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    inputs_hash: str | None = None
    rule_version: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class FailedVerdict:
    """A verdict that could not be recorded, and why, in one sentence."""

    op_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class Decisions:
    """What one pass of verdicts did.

    ``moves`` counts transitions by (from, to); ``moved`` and ``flagged`` name the OPs; ``unchanged`` counts
    the OPs of verdicts and ledger that nothing was appended for.
    """

    moves: dict[tuple[State | None, State], int]
    moved: list[str]
    flagged: list[str]
    unchanged: int
    failed: list[FailedVerdict]


@dataclass(frozen=True, slots=True)
class Retries:
    """What went back from Error by itself, and the Errors of those that were tried too often for that."""

    retried: list[Transition]
    exhausted: list[Transition]


@dataclass(frozen=True, slots=True)
class ScienceEvent:
    """A scientist's word that products of an inversion are ready."""

    event_id: str
    op_id: str
    inversion_id: str
    products: str
    commit_hash: str
    dataset_ids: list[str]
    actor: str
    received_at: datetime
    details: Details


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a science event; ``reason`` says why one was refused."""

    event_id: str
    outcome: Literal["accepted", "refused"]
    reason: str | None
    recorded_at: datetime
    actor: str
    run_id: str | None
    details: Details

    @property
    def is_accepted(self) -> bool:
        """Whether the products became the OP's inversion."""
        return self.outcome == "accepted"


@dataclass(frozen=True, slots=True)
class Annotation:
    """A remark on an OP that moves nothing, such as the flag ``inputs_changed``."""

    annotation_id: int
    op_id: str
    kind: str
    actor: str
    recorded_at: datetime
    details: Details


@dataclass(frozen=True, slots=True)
class ReadyWord:
    """What somebody says by one of the doors: these products are ready.

    Parameters
    ----------
    event_id
        Drawn by whoever says it; the same word said again bears the same.
    inversion_id
        Which inversion they are of; None: the OP's present one.
    dataset_ids
        What was inverted, of the input package's datasets; None: all of them.
    sent_at
        When it was said; of two words on one inversion the later one counts.
    checksums
        SHA-256 by name of file, as the one who says it computed them; None: not said.
    """

    event_id: str
    op_id: str
    products: str
    commit_hash: str
    actor: str
    inversion_id: str | None = None
    dataset_ids: tuple[str, ...] | None = None
    inputs_changed_ok: bool = False
    sent_at: datetime | None = None
    checksums: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Delivery:
    """How something came in: ``door`` is its kind (command, file, queue, service), ``source`` names it there.

    The same delivery met again (after a crash) bears the same ``delivery_id``.
    """

    delivery_id: str
    door: str
    source: str


ReceiptOutcome = Literal[
    "taken", "duplicate", "malformed", "unknown_op", "wrong_inversion", "out_of_order", "refused"
]


@dataclass(frozen=True, slots=True)
class Receipt:
    """One row of the inbox: what came in, by which door, and what became of it there."""

    receipt_id: int
    delivery_id: str
    door: str
    source: str
    event_id: str | None
    op_id: str | None
    inversion_id: str | None
    outcome: ReceiptOutcome
    reason: str | None
    received_at: datetime
    actor: str | None
    details: Details

    @property
    def is_taken(self) -> bool:
        """Whether it became a science event."""
        return self.outcome == "taken"


@dataclass(frozen=True, slots=True)
class InversionStep:
    """One thing that was done with an inversion; ``subject`` is the science event or the inversion itself."""

    record_id: int
    op_id: str
    inversion_id: str
    subject: str
    step: str
    recorded_at: datetime
    actor: str
    run_id: str | None
    details: Details


@dataclass(frozen=True, slots=True)
class RaisedAlert:
    """What people are to be told; ``delivered`` says by which ways it went out, and when."""

    alert_id: int
    cause: str
    kind: str
    raised_at: datetime
    details: Details
    delivered: dict[str, datetime]
