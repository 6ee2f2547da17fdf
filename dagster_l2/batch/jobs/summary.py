"""What a run over windows came to, in numbers that add up. Counting only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dagster_l2.batch.decide import Action


@dataclass(frozen=True, slots=True)
class RunSummary:
    """``planned = downloaded + skipped_existing + skipped_no_data + failed``; ``attempted`` stands apart.

    ``interrupted`` of the failed ones were only not finished; ``beyond_limit`` are not planned at all.
    """

    run_id: str | None
    job_id: str | None
    planned: int
    attempted: int
    downloaded: int
    skipped_existing: int
    skipped_no_data: int
    failed: int
    interrupted: int = 0
    beyond_limit: int = 0
    output: Path | None = None

    @property
    def exit_code(self) -> int:
        """0 all well, 1 something failed."""
        return 1 if self.failed else 0


def summarize(
    *,
    run_id: str | None,
    job_id: str | None,
    statuses: Sequence[str | None],
    skipped: Mapping[Action, int],
    output: Path | None,
) -> RunSummary:
    """Count windows: the last status of those that were run, and why the others were not."""
    downloaded = statuses.count("DOWNLOADED")
    empty = statuses.count("SKIPPED_NO_DATA")
    broken = statuses.count("FAILED")
    open_ = len(statuses) - downloaded - empty - broken
    existing = skipped.get(Action.SKIP_EXISTING, 0)
    terminal = skipped.get(Action.SKIP_TERMINAL, 0)
    given_up = skipped.get(Action.SKIP_FAILED, 0)
    return RunSummary(
        run_id=run_id,
        job_id=job_id,
        planned=len(statuses) + existing + terminal + given_up,
        attempted=sum(status is not None for status in statuses),
        downloaded=downloaded,
        skipped_existing=existing,
        skipped_no_data=empty + terminal,
        failed=broken + open_ + given_up,
        interrupted=open_,
        beyond_limit=skipped.get(Action.RUN, 0),
        output=output,
    )
