"""One window on its way through a worker: its chunks, what failed, and the counts of a batch. Values only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from dagster_l2.base.telemetry import Tally
from dagster_l2.batch.attempts import Attempt
from dagster_l2.batch.jobs.chunks import StoredChunk
from dagster_l2.batch.jobs.model import JobError
from dagster_l2.batch.source import Chunk, FailureClass
from dagster_l2.batch.windows import Window


class ItemGone(JobError):
    """Every item of a window is gone for good."""


@dataclass
class WindowWork:
    """One window on its way."""

    window: Window
    attempt: Attempt
    chunks: list[Chunk]
    stored: dict[Chunk, StoredChunk] = field(default_factory=dict)
    gone: set[Chunk] = field(default_factory=set)
    failures: list[tuple[FailureClass, Exception]] = field(default_factory=list)
    expected: int | None = None

    @property
    def received(self) -> int:
        """Records that the source sent."""
        return sum(chunk.received for chunk in self.stored.values())

    def expected_records(self) -> int | None:
        """What the source expects of the window, else what it counted chunk by chunk."""
        if self.expected is not None:
            return self.expected
        counts = [chunk.expected for chunk in self.stored.values()]
        known = [count for count in counts if count is not None]
        return sum(known) if len(known) == len(self.chunks) else None

    @property
    def failure_class(self) -> FailureClass | None:
        """None when the window is complete; passing when another try may bring some of it."""
        if self.failures:
            classes = {kind for kind, _error in self.failures}
            return FailureClass.PASSING if FailureClass.PASSING in classes else FailureClass.PERMANENT
        return FailureClass.GONE if self.gone and not self.received else None

    @property
    def error(self) -> Exception:
        """Why the window is not complete."""
        if self.failures:
            return next(error for kind, error in self.failures if kind is self.failure_class)
        return ItemGone(f"All of {self.window} that the source had is gone for good.")


def stops_job(error: BaseException) -> bool:
    """Whether an error is about whoever runs the job and about no item: nothing failed, the job waits."""
    return bool(getattr(error, "stops_job", False))


def failure_class_of(error: BaseException) -> FailureClass:
    """The class that an error states; what states none is a defect, and permanent."""
    try:
        return FailureClass(getattr(error, "failure_class", FailureClass.PERMANENT))
    except ValueError:
        return FailureClass.PERMANENT


def batch_metrics(works: Sequence[WindowWork], tally: Tally) -> dict[str, Any]:
    """What a task did, for its manifest; the tally is what source and limiter counted meanwhile."""
    series = tally.series()
    stored = [chunk for work in works for chunk in work.stored.values()]
    causes: dict[str, int] = {}
    for work in works:
        for kind, _error in work.failures:
            causes[kind] = causes.get(kind, 0) + 1
    return {
        "windows": len(works),
        "items": len(stored),
        "items_reused": sum(chunk.is_reused for chunk in stored),
        "items_gone": sum(len(work.gone) for work in works),
        "items_failed": causes,
        "records": sum(chunk.received for chunk in stored),
        "rejected": sum(len(chunk.rejected) for chunk in stored),
        "bytes": sum(chunk.bytes for chunk in stored if not chunk.is_reused),
        **tally.counts(),
        **({"over_time": series} if series else {}),
    }
