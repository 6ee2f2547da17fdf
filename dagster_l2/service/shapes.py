"""The shapes of questions and answers, with examples: what the OpenAPI description is made of.

Answers have what is named here and may have more; the names are those of the commands' ``--json``.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from dagster_l2.ledger import PRIORITY_LEVELS, State

OP = "eid_1_118_opAvoqBr_R001.82591.13964206"
INVERSION = "inv.K3X9QZ"
_MOMENT = "2026-11-21T09:30:00Z"

Sentence = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$")]


class _Answer(BaseModel):
    model_config = ConfigDict(extra="allow")


class _Order(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Refusal(_Answer):
    """Why not, in one sentence."""

    error: str = Field(
        examples=[f"OP {OP} is Working since 2026-11-21 09:30:00 UTC (by bob): bob has claimed it."]
    )
    kind: str = Field(examples=["refused"])


class Health(_Answer):
    """Whether the service can do its work."""

    status: str = Field(examples=["well"])


class Program(_Answer):
    """An OP: its state of now, and what gold knows of it. Times are UTC."""

    op_id: str = Field(examples=[OP])
    state: State
    since: datetime = Field(description="When it came into this state.", examples=[_MOMENT])
    recorded_at: datetime = Field(
        description="When that was recorded; what since= looks at.", examples=[_MOMENT]
    )
    inversion_id: str | None = Field(examples=[INVERSION])
    claimed_by: str | None = Field(examples=["bob"])
    inputs_changed: bool
    proposal_id: str | None = Field(examples=["pid_1_118"])
    instruments: list[str] | None = Field(examples=[["VISP"]])
    dataset_count: int | None
    start_time: datetime | None = Field(description="Of the observation.", examples=[_MOMENT])
    fried_parameter_median_m: float | None = Field(description="Metres.", examples=[0.12])


class Programs(_Answer):
    """A page of OPs, by id."""

    items: list[Program]
    total: int = Field(description="How many there are on all pages.", examples=[1])
    next_after: str | None = Field(description="What to give as after= for the next page; null: no more.")
    as_of: datetime = Field(description="What to give as since= the next time.", examples=[_MOMENT])


class Step(_Answer):
    """One step of the history of an OP."""

    seq: int
    from_state: State | None
    to_state: State
    occurred_at: datetime
    ended_at: datetime | None
    actor: str
    cause: str
    inversion_id: str | None
    details: dict[str, Any]


class Inversion(_Answer):
    """One inversion of an OP."""

    inversion_id: str = Field(examples=[INVERSION])
    op_id: str = Field(examples=[OP])
    state: State = Field(description="The last one that it was in.")
    ended_at: datetime | None = Field(description="When the OP left it; null: it is in it now.")
    instrument_program_id: str | None
    claimed_by: str | None
    claimed_at: datetime | None
    inverted_at: datetime | None
    published_at: datetime | None
    dataset_ids: list[str]
    spectral_lines: list[str]
    commit: str | None


class InversionWithSteps(Inversion):
    """One inversion with the steps of its OP that were about it."""

    steps: list[Step]


class ProgramInFull(_Answer):
    """Everything about one OP."""

    op_id: str = Field(examples=[OP])
    state: dict[str, Any]
    people: dict[str, Any] = Field(description="Assignment, priority, notes.")
    observing_program: dict[str, Any] | None
    verdict: dict[str, Any] = Field(description="The verdict with its reasons in words.")
    criteria: list[dict[str, Any]] = Field(description="Measured values and thresholds, with units.")
    datasets: list[dict[str, Any]]
    package: dict[str, Any] | None = Field(description="The input package.")
    hand_overs: list[dict[str, Any]]
    history: list[Step]
    inversions: list[Inversion]


class Waiting(_Answer):
    """An OP that waits for a person or a step."""

    rank: int = Field(examples=[1])
    op_id: str = Field(examples=[OP])
    state: State
    responsible: str = Field(examples=["scientist"])
    reason: str = Field(examples=["waits to be claimed"])
    days_in_state: float
    is_overdue: bool
    priority_score: float
    priority: int
    claimed_by: str | None
    assigned_to: str | None


class Queue(_Answer):
    """A page of the queue, best first."""

    items: list[Waiting]
    total: int = Field(examples=[1])
    overdue: dict[str, int] = Field(
        description="Overdue OPs of all pages by who is responsible.", examples=[{"bob": 2}]
    )


class Moved(_Answer):
    """The step that an order made."""

    op_id: str = Field(examples=[OP])
    state: State
    inversion_id: str | None = Field(examples=[INVERSION])
    actor: str = Field(examples=["bob"])
    occurred_at: datetime = Field(examples=[_MOMENT])
    details: dict[str, Any]


class Said(_Answer):
    """What a person said of an OP."""

    op_id: str = Field(examples=[OP])
    kind: str = Field(examples=["note"])
    actor: str = Field(examples=["bob"])
    recorded_at: datetime = Field(examples=[_MOMENT])


class Event(_Answer):
    """A ready event; what becomes of it is among the hand-overs of the OP."""

    event_id: str = Field(examples=["0b8f5c0e-6f5a-4c2e-9a53-0f6f3c8f4f0a"])
    op_id: str = Field(examples=[OP])
    inversion_id: str = Field(examples=[INVERSION])
    received_at: datetime = Field(examples=[_MOMENT])


class Approved(_Answer):
    """An approval; the next hand-over run publishes."""

    op_id: str = Field(examples=[OP])
    inversion_id: str | None = Field(examples=[INVERSION])
    state: State
    approved_by: str = Field(examples=["olga"])


class Documents(_Answer):
    """Documents of inverted OPs, as the metadata store aggregates them."""

    documents: list[dict[str, Any]]
    next_since: str | None = Field(examples=[_MOMENT])


class Ready(_Order):
    """These products are ready."""

    products: str = Field(
        min_length=1,
        max_length=2000,
        description="Folder or address, as the pipeline sees it.",
        examples=["/inv/op"],
    )
    commit: str = Field(
        pattern=r"^[0-9a-fA-F]{7,64}$", description="Of the inversion software.", examples=["3f2c9ab"]
    )
    datasets: list[str] | None = Field(
        None, max_length=1000, description="What was inverted; all of the package unless given."
    )
    inversion_id: str | None = Field(
        None, max_length=200, description="Of which inversion; the present one unless given."
    )
    inputs_changed_ok: bool = Field(False, description="Hand over although the inputs have changed.")
    checksums: dict[str, Sha256] | None = Field(
        None,
        max_length=1000,
        description="SHA-256 by name of file; a file that is another when it is verified is refused.",
        examples=[{"inv_res_mod.fits": "0" * 64}],
    )


class Reopen(_Order):
    """Why it is opened again."""

    reason: Sentence = Field(examples=["the wavelength calibration was wrong"])


class Withdraw(_Order):
    """Why the products are taken back."""

    reason: Sentence = Field(examples=["a wrong initial model"])


class Assign(_Order):
    """Who should take it."""

    to: Sentence | None = Field(description="A name; null takes the assignment back.", examples=["bob"])


class Note(_Order):
    """A remark."""

    text: Sentence = Field(examples=["seeing was fair"])


class Priority(_Order):
    """How urgent, and why."""

    level: int = Field(ge=PRIORITY_LEVELS[0], le=PRIORITY_LEVELS[-1], strict=True, examples=[3])
    reason: Sentence = Field(examples=["flare"])
