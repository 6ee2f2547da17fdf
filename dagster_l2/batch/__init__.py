"""Windows, attempts and jobs over them: how records are fetched in pieces without losing any.

It knows no service and no Dagster; ``sources`` says what to fetch, ``lake`` how a file comes to count.
"""

from dagster_l2.batch.attempts import (
    ATTEMPT_SCHEMA,
    Attempt,
    Attempts,
    AttemptStatus,
    latest_attempts,
    read_attempts,
    unit_id,
)
from dagster_l2.batch.clock import SYSTEM_CLOCK, Clock
from dagster_l2.batch.coverage import Covered, coverage
from dagster_l2.batch.decide import Action, LastAttempt, Planned, Wishes, decide
from dagster_l2.batch.job_export import export_job_tasks, job_tasks_table
from dagster_l2.batch.job_tables import batch_items, batch_jobs, batch_tasks
from dagster_l2.batch.jobs.cleaning import Leftover, finished_folders, old_scratch
from dagster_l2.batch.jobs.coordinator import Jobs
from dagster_l2.batch.jobs.definition import (
    JobDefinition,
    JobDefinitionInvalid,
    load_definition,
    parse_definition,
)
from dagster_l2.batch.jobs.items import Item, Items
from dagster_l2.batch.jobs.keeping import kept_jobs, take_jobs
from dagster_l2.batch.jobs.listing import JobInShort, jobs_in_short
from dagster_l2.batch.jobs.model import JobError, Phase, Role, Status, Stopped, Task, new_job_id
from dagster_l2.batch.jobs.request import JobRequest
from dagster_l2.batch.jobs.results import read_notes
from dagster_l2.batch.jobs.runner import open_engine
from dagster_l2.batch.jobs.summary import RunSummary
from dagster_l2.batch.jobs.tasks import JobState
from dagster_l2.batch.leases import DatabaseRates, rate_key
from dagster_l2.batch.merge import Merged, MergeError, Order, merge_files
from dagster_l2.batch.rate import Limiter, RateStats
from dagster_l2.batch.rate_tables import rate_leases, rate_limits
from dagster_l2.batch.rate_terms import RateSettings
from dagster_l2.batch.readable import readable
from dagster_l2.batch.source import Chunk, FailureClass, FetchedChunk, Pace, Source
from dagster_l2.batch.tables import batch_attempts
from dagster_l2.batch.windows import DAY, Window, plan_windows

STATE_TABLES = (batch_attempts, batch_jobs, batch_tasks, batch_items, rate_limits, rate_leases)
"""The room's tables in the state database; only the first is append-only."""

__all__ = [
    "ATTEMPT_SCHEMA",
    "DAY",
    "STATE_TABLES",
    "SYSTEM_CLOCK",
    "Action",
    "Attempt",
    "AttemptStatus",
    "Attempts",
    "Chunk",
    "Clock",
    "Covered",
    "DatabaseRates",
    "FailureClass",
    "FetchedChunk",
    "Item",
    "Items",
    "JobDefinition",
    "JobDefinitionInvalid",
    "JobError",
    "JobInShort",
    "JobRequest",
    "JobState",
    "Jobs",
    "LastAttempt",
    "Leftover",
    "Limiter",
    "MergeError",
    "Merged",
    "Order",
    "Pace",
    "Phase",
    "Planned",
    "RateSettings",
    "RateStats",
    "Role",
    "RunSummary",
    "Source",
    "Status",
    "Stopped",
    "Task",
    "Window",
    "Wishes",
    "batch_attempts",
    "batch_items",
    "batch_jobs",
    "batch_tasks",
    "coverage",
    "decide",
    "export_job_tasks",
    "finished_folders",
    "job_tasks_table",
    "jobs_in_short",
    "kept_jobs",
    "latest_attempts",
    "load_definition",
    "merge_files",
    "new_job_id",
    "old_scratch",
    "open_engine",
    "parse_definition",
    "plan_windows",
    "rate_key",
    "rate_leases",
    "rate_limits",
    "read_attempts",
    "read_notes",
    "readable",
    "take_jobs",
    "unit_id",
]
