"""The jobs: one whole pass, and the short way for a hand-over. Assets of both run in one process."""

from __future__ import annotations

import dagster as dg

from dagster_l2.assets.bronze import DESCRIPTIONS

PASS = "whole_pass"  # noqa: S105 - a job's name
HANDOVER = "handover"
SCAN = "scan_store"

_pass_selection = dg.AssetSelection.all()

_scan_selection = dg.AssetSelection.assets(
    *(dg.AssetKey(["bronze", table]) for table in DESCRIPTIONS)
).without_checks()

_handover_selection = dg.AssetSelection.assets(
    dg.AssetKey(["ledger", "handovers"]),
    dg.AssetKey(["published", "inversions"]),
    dg.AssetKey(["bronze", "transitions"]),
    dg.AssetKey(["gold", "l2_duckdb"]),
) | dg.AssetSelection.tag("l2/part", "states")

pass_job = dg.define_asset_job(
    PASS,
    selection=_pass_selection,
    description="One whole pass: scan, build, decide, preprocess, take hand-overs, publish, gold.",
)

handover_job = dg.define_asset_job(
    HANDOVER,
    selection=_handover_selection,
    description="Take hand-overs and publish without waiting for a scan; ends with fresh states in gold.",
)

scan_job = dg.define_asset_job(
    SCAN,
    selection=_scan_selection,
    description="Scan the metadata store into bronze.",
)
