"""The ledger's exports as Dagster shows them: what was written, and nothing the second time."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from dagster_l2.assets import ledger as assets
from dagster_l2.assets.export import exported_table
from dagster_l2.lake import compaction
from dagster_l2.ledger import Ledger, State
from dagster_l2.ledger.tables import op_annotations
from dagster_l2.resources import L2
from dagster_l2.settings import load_settings

pytestmark = pytest.mark.xdist_group("dagster")


def test_files_of_many_passes_are_merged_and_dagster_says_so(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "OPEN_FILES", 2)
    settings = load_settings()
    merged = []
    for op_id in ("op1", "op2"):
        with Ledger.open(settings.state_url) as ledger:
            ledger.append(op_id, State.DISCOVERED, actor="scan", cause="found")
        done = dg.materialize([assets.transitions], resources={"l2": L2(settings)})
        (event,) = done.asset_materializations_for_node("bronze__transitions")
        merged.append(event.metadata["merged files"].value)
    assert merged == [0, 2]
    assert exported_table(settings.lake, "transitions").scan().collect()["op_id"].to_list() == ["op1", "op2"]


def test_transitions_and_annotations_are_exported_once(data: Path) -> None:
    settings = load_settings()
    note = {"op_id": "op1", "kind": "note", "actor": "ann", "recorded_at": datetime.now(UTC), "details": {}}
    with Ledger.open(settings.state_url) as ledger:
        ledger.append("op1", State.DISCOVERED, actor="scan", cause="found")
        ledger.append("op1", State.INVERTIBLE, actor="verdict", cause="passed")
        with ledger.engine.begin() as connection:
            connection.execute(sa.insert(op_annotations).values(note))
    for expected in ({"transitions": 2, "annotations": 1}, {"transitions": 0, "annotations": 0}):
        done = dg.materialize([assets.transitions, assets.annotations], resources={"l2": L2(settings)})
        for name, count in expected.items():
            (event,) = done.asset_materializations_for_node(f"bronze__{name}")
            assert event.metadata["exported"].value == count
            assert 0 <= event.metadata["seconds"].value < 60
    assert len(exported_table(settings.lake, "annotations").scan().collect()) == 1
