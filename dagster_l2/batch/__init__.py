"""Windows, attempts and the run over them: how records are fetched in pieces without losing any.

It knows no service and no Dagster; ``sources`` says what to fetch, ``lake`` how a file comes to count.
"""

from dagster_l2.batch.attempts import ATTEMPT_SCHEMA, Attempt, Attempts, AttemptStatus, read_attempts
from dagster_l2.batch.engine import Stored, Summary, WindowRun, new_job_id
from dagster_l2.batch.windows import DAY, Window, plan_windows

__all__ = [
    "ATTEMPT_SCHEMA",
    "DAY",
    "Attempt",
    "AttemptStatus",
    "Attempts",
    "Stored",
    "Summary",
    "Window",
    "WindowRun",
    "new_job_id",
    "plan_windows",
    "read_attempts",
]
