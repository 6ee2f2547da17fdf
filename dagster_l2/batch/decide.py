"""What a run does with a window, by the latest attempt at it. Pure: it reads nothing and starts nothing."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from dagster_l2.batch.windows import Window


class Action(enum.StrEnum):
    """What becomes of a window in a run."""

    RUN = "run"
    SKIP_EXISTING = "skip_existing"
    SKIP_TERMINAL = "skip_terminal"
    SKIP_FAILED = "skip_failed"


@dataclass(frozen=True, slots=True)
class LastAttempt:
    """The newest row of a window in the log, as it was found: any text may stand in ``status``."""

    status: str
    job_id: str | None = None
    artifact: str | None = None
    availability_pct: float | None = None
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a person may ask of a run beyond its windows.

    Parameters
    ----------
    retry_failed
        Run windows that failed.
    recheck_empty
        Run windows that were found empty.
    availability_floor
        Percent; a window that got less is run again. None: whatever came is enough.
    limit
        At most so many windows are run; windows that are skipped do not count.
    """

    retry_failed: bool = False
    recheck_empty: bool = False
    availability_floor: float | None = None
    limit: int | None = None


def decide(
    latest: LastAttempt | None, *, is_artifact_intact: bool, could_change: bool, wishes: Wishes
) -> Action:
    """Whether a window is run or skipped, and why.

    Parameters
    ----------
    latest
        The newest attempt; None when there was none.
    is_artifact_intact
        Whether the file that the attempt names is there, with its size and hash.
    could_change
        Whether the window's records could still become others when that attempt was made; what it found
        then is no last word.
    """
    status = latest.status if latest else None
    if latest is None or status not in ("DOWNLOADED", "SKIPPED_NO_DATA", "FAILED"):
        return Action.RUN
    if status == "FAILED":
        return Action.RUN if wishes.retry_failed else Action.SKIP_FAILED
    if could_change:
        return Action.RUN
    if status == "SKIPPED_NO_DATA":
        return Action.RUN if wishes.recheck_empty else Action.SKIP_TERMINAL
    share, floor = latest.availability_pct, wishes.availability_floor
    is_short = floor is not None and share is not None and share < floor
    return Action.SKIP_EXISTING if is_artifact_intact and not is_short else Action.RUN


@dataclass(frozen=True, slots=True)
class Planned:
    """The windows of a run with what becomes of each; ``beyond_limit`` are left for another run."""

    actions: tuple[tuple[Window, Action], ...]
    beyond_limit: tuple[Window, ...] = ()

    def of(self, action: Action) -> list[Window]:
        """The windows with this action, in order."""
        return [window for window, found in self.actions if found is action]


def limited(actions: Iterable[tuple[Window, Action]], limit: int | None) -> Planned:
    """Keep the first ``limit`` windows that are to be run, and every window that is skipped."""
    kept: list[tuple[Window, Action]] = []
    beyond: list[Window] = []
    runs = 0
    for window, action in actions:
        if action is Action.RUN:
            if limit is not None and runs >= limit:
                beyond.append(window)
                continue
            runs += 1
        kept.append((window, action))
    return Planned(tuple(kept), tuple(beyond))
