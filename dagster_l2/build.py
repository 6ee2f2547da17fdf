"""Everything that Dagster loads, assembled in one function: production, commands and tests call the same."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from dagster_l2.assets import bronze, frames, ledger, reach, warehouse
from dagster_l2.checks import ALL_CHECKS
from dagster_l2.jobs import handover_job, pass_job, reach_job, scan_job
from dagster_l2.resources import default_resources
from dagster_l2.schedules import build_schedules
from dagster_l2.sensors import build_alert_sensor, build_ready_sensor, build_retention_sensor
from dagster_l2.settings import Settings, load_settings

ASSETS: list[dg.AssetsDefinition | dg.AssetSpec] = [
    bronze.scan,
    reach.reach,
    warehouse.JOB_TASKS,
    warehouse.verdict_models,
    ledger.decisions,
    ledger.input_packages,
    ledger.handovers,
    ledger.published,
    ledger.transitions,
    ledger.annotations,
    warehouse.state_models,
    warehouse.gold,
    frames.frames,
]


def build_defs(
    *,
    settings: Settings | None = None,
    resource_overrides: Mapping[str, Any] | None = None,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
) -> dg.Definitions:
    """The definitions of an installation.

    Parameters
    ----------
    settings
        Read from the environment unless given.
    resource_overrides
        Replace resources by name.
    loggers
        Replace Dagster's console logger.

    Raises
    ------
    SettingsError
        When the settings do not go together.
    """
    settings = settings or load_settings()
    return dg.Definitions(
        assets=ASSETS,
        asset_checks=ALL_CHECKS,
        jobs=[pass_job, handover_job, scan_job, reach_job],
        schedules=build_schedules(settings),
        sensors=[build_ready_sensor(settings), build_alert_sensor(settings), build_retention_sensor()],
        resources={**default_resources(settings), **(resource_overrides or {})},
        loggers=dict(loggers or {}),
        # Steps are short and share connections; a process each would cost more than the work.
        executor=dg.in_process_executor,
    )
