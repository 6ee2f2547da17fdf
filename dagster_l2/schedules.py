"""When what runs by itself: a table, so that it is read in one place and reviewed as code."""

from __future__ import annotations

import dagster as dg

from dagster_l2.jobs import pass_job
from dagster_l2.settings import Settings


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedules of an installation."""
    return [
        dg.ScheduleDefinition(
            name="pass_schedule",
            job=pass_job,
            cron_schedule=settings.scan_every,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description="One whole pass; L2_SCAN_EVERY sets when.",
        )
    ]
