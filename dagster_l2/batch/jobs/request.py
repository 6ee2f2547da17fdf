"""What a person asks of a job: the template, the windows, the wishes. Values only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from dagster_l2.batch.decide import Wishes
from dagster_l2.batch.jobs.definition import JobDefinition
from dagster_l2.batch.windows import Window


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a run is to do.

    Parameters
    ----------
    definition, source_params
        The template, and the parameters for its handler (no secrets: they end in files).
    windows
        The whole range, in order; what of it is still to do is decided by the log of attempts.
    format
        What comes out, as a part of the identity of a window.
    sweep_id
        For a source whose records can still change: a window of another sweep is another unit of work.
    job_id
        The id of the job, where it must be known beforehand; it must be new.
    run_id, git_commit, config_file
        Stamped on the attempts and in the job manifest.
    """

    definition: JobDefinition
    windows: Sequence[Window]
    source_params: Mapping[str, Any] = field(default_factory=dict)
    wishes: Wishes = field(default_factory=Wishes)
    format: str = "parquet"
    sweep_id: str | None = None
    job_id: str | None = None
    run_id: str | None = None
    git_commit: str | None = None
    config_file: str | None = None
