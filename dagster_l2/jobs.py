"""The jobs: one whole pass, the short way for a hand-over, the scan alone, REACH; each in one process."""

from __future__ import annotations

import dagster as dg

from dagster_l2.assets import bronze, ledger, reach, warehouse

PASS = "whole_pass"  # noqa: S105 - a job's name
HANDOVER = "handover"
SCAN = "scan_store"
REACH = "download_reach"

pass_job = dg.define_asset_job(
    PASS,
    selection=dg.AssetSelection.all() - dg.AssetSelection.assets(reach.reach),
    description="One whole pass: scan, build, decide, preprocess, take hand-overs, publish, gold.",
)

PUBLISHING_STEP = ledger.published.op.name
"""The step of a hand-over that ends with Published; what follows it is for those who read gold."""

handover_job = dg.define_asset_job(
    HANDOVER,
    selection=dg.AssetSelection.assets(
        ledger.handovers,
        ledger.published,
        ledger.transitions,
        ledger.annotations,
        warehouse.state_models,
        warehouse.gold,
    ),
    description="Take hand-overs and publish without waiting for a scan; ends with fresh states in gold.",
)

scan_job = dg.define_asset_job(
    SCAN,
    selection=dg.AssetSelection.assets(bronze.scan).without_checks(),
    description="Scan the metadata store into bronze, and nothing else.",
)

reach_job = dg.define_asset_job(
    REACH,
    selection=dg.AssetSelection.assets(reach.reach),
    description="Download days of REACH into bronze; a span of days is one run.",
)
