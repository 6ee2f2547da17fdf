"""The words of a job: job, phase, task group, task, batch. Values only; nothing here runs or is stored."""

from __future__ import annotations

import enum
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dagster_l2.base.errors import L2Error
from dagster_l2.batch.source import FailureClass
from dagster_l2.batch.windows import Window


class JobError(L2Error):
    """A job can't be run, found or finished."""


class Stopped(JobError):
    """The work was interrupted; what is finished is kept."""

    exit_code = 130

    def __init__(self, advice: str = "and the next run goes on from there") -> None:
        super().__init__(f"Interrupted; what is finished is kept, {advice}.")


class Phase(enum.StrEnum):
    """The phases of a job, one after the other."""

    INITIAL = "initial"
    RETRY = "retry"
    AGGREGATION = "aggregation"


class Role(enum.StrEnum):
    """What a task does."""

    COORDINATOR = "coordinator"
    WORKER = "worker"
    RETRY = "retry"
    AGGREGATOR = "aggregator"

    @property
    def type(self) -> str:
        """``worker`` for a task that processes a batch, ``system`` for one that serves the job."""
        return "worker" if self in (Role.WORKER, Role.RETRY) else "system"


class Status(enum.StrEnum):
    """The statuses of a task; a job has RUNNING and what follows."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCESS = "SUCCESS"
    FAILED = "FAILED"


INITIAL_GROUP = "initial_batch"
FINAL_GROUP = "final_aggregation"


def retry_group(number: int) -> str:
    """The task group of the n-th retry, from 1."""
    return f"retry_batch_{number}"


def new_job_id(name: str) -> str:
    """An id for one run of a job: its name, the moment, and 32 random bits."""
    return f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(4)}"


@dataclass(frozen=True, slots=True)
class Batch:
    """A slice of a job's windows: data, where a task is execution."""

    batch_id: str
    windows: tuple[Window, ...]


@dataclass(frozen=True, slots=True)
class LeftWindow:
    """A window that a task could not bring home, and what kind of failure and of error that was."""

    window: Window
    failure_class: FailureClass
    error_type: str | None = None

    def to_json(self) -> dict[str, str]:
        """As it lies in the state database."""
        content = {**window_to_json(self.window), "failure_class": self.failure_class.value}
        return content | ({"error_type": self.error_type} if self.error_type else {})

    @classmethod
    def from_json(cls, content: Mapping[str, str]) -> LeftWindow:
        """The reverse of `to_json`."""
        kind = FailureClass(content["failure_class"])
        return cls(window_from_json(content), kind, content.get("error_type"))


def window_to_json(window: Window) -> dict[str, str]:
    """A window as two ISO times."""
    return {"start": window.start.isoformat(), "end": window.end.isoformat()}


def window_from_json(content: Mapping[str, str]) -> Window:
    """The reverse of `window_to_json`."""
    return Window(datetime.fromisoformat(content["start"]), datetime.fromisoformat(content["end"]))


@dataclass(frozen=True, slots=True)
class Task:
    """A unit of execution, as the state database holds it.

    ``seq`` orders the tasks of a job. ``retries`` is the number of the retry it belongs to, ``claims``
    counts its starts that were not given back, ``previous_task_id`` is the task whose failed ``windows``
    it takes up, and ``wait_s`` how long after its making it may start. ``left`` holds the windows that it
    failed to bring.
    """

    task_id: str
    job_id: str
    role: Role
    phase: Phase
    group: str
    seq: int
    batch_id: str | None = None
    status: Status = Status.PENDING
    retries: int = 0
    claims: int = 0
    previous_task_id: str | None = None
    windows: tuple[Window, ...] = ()
    wait_s: float = 0.0
    failure_class: str | None = None
    has_output: bool = False
    left: tuple[LeftWindow, ...] = ()
    error: str | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)


def split(windows: Sequence[Window], batch_size: int, *, first: int = 0, mark: str = "") -> list[Batch]:
    """Cut windows into batches of ``batch_size``, numbered from ``first``."""
    slices = [windows[i : i + batch_size] for i in range(0, len(windows), batch_size)]
    return [Batch(f"batch-{first + n:05d}{mark}", tuple(part)) for n, part in enumerate(slices)]
