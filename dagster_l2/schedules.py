"""When what runs by itself: a table, so that it is read in one place and reviewed as code."""

from __future__ import annotations

import dagster as dg

from dagster_l2.jobs import pass_job
from dagster_l2.settings import Settings, SettingsError


def build_schedules(settings: Settings) -> list[dg.ScheduleDefinition]:
    """The schedules of an installation.

    Raises
    ------
    SettingsError
        When L2_SCAN_EVERY is no cron expression.
    """
    try:
        every = dg.ScheduleDefinition(
            name="pass_schedule",
            job=pass_job,
            cron_schedule=settings.scan_every,
            execution_timezone="UTC",
            default_status=dg.DefaultScheduleStatus.RUNNING,
            description="One whole pass; L2_SCAN_EVERY sets when.",
        )
    except dg.DagsterInvalidDefinitionError:
        raise SettingsError(
            f"L2_SCAN_EVERY is not usable: {settings.scan_every!r} is no cron expression such as 0 */6 * * *."
        ) from None
    return [every]
