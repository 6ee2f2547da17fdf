"""What fails by itself comes right by itself: real steps over a real store, disk and ledger, no person."""

from __future__ import annotations

from typing import Any

import dagster as dg
import duckdb
import pytest

from dagster_l2.assets import ledger as assets
from dagster_l2.ledger import State
from dagster_l2.resources import default_resources
from dagster_l2.settings import load_settings
from tests.end_to_end.kit import inversions
from tests.recovery.recovery_world import CREATE, STEP, World, in_the_way

pytestmark = pytest.mark.xdist_group("dagster")

# -- whole passes -------------------------------------------------------------------------------------------


def a_pass(world: World) -> tuple[dict[str, Any], list[str]]:
    """The steps of a pass as Dagster runs them; what the assets say, and the checks that failed."""
    steps = [assets.decisions, assets.input_packages, assets.handovers, assets.published]
    result = dg.materialize(steps, resources=default_resources(load_settings()))
    assert result.success
    said = [event.materialization.metadata for event in result.get_asset_materialization_events()]
    failed = [one.asset_key.path[-1] for one in result.get_asset_check_evaluations() if not one.passed]
    return {name: value.value for metadata in said for name, value in metadata.items()}, failed


def test_passes_bring_right_what_failed_and_give_up_at_the_limit(world: World) -> None:
    """op1 meets failures that pass, op2 none, op3 one that stays; nobody retries anything."""
    with duckdb.connect(str(load_settings().warehouse)) as connection:
        columns = ("instrument_program_id", "spectral_lines", "failed_criteria", "warnings", "measured")
        nothing = ", ".join(f"null as {name}" for name in columns)
        connection.execute(
            f"create table op_verdicts as select unnest({list(world.rows)}) as op_id, true as has_datasets,"
            " true as is_complete, true as is_invertible, 'h' as inputs_hash, 'r' as rule_version,"
            f" null as dataset_ids, null as buckets, {nothing}"
        )
        connection.execute(
            "create table int_datasets_current as select '' as op_id, '' as instrument, null as bounding_box"
        )
        rows = list(world.rows.values())
        names = ", ".join(f"row.{name}" for name in rows[0])
        connection.execute(
            f"create table int_input_datasets as select {names} from (select unnest($rows) as row)",
            {"rows": rows},
        )
    package, home = in_the_way(world.data / "inputs" / "op1"), world.data / "products"
    in_the_way(world.data / "inputs" / "op3")

    said, failed = a_pass(world)
    assert (said["retried"], failed) == (0, ["input_packages"])
    assert world.error("op1") == ("Error", "preprocess", "transient", 1)
    assert world.states("op2")[-1] == "Preprocessed"
    assert a_pass(world)[0]["retried"] == 2
    assert world.error("op1") == ("Error", "preprocess", "transient", 2)
    package.unlink()
    a_pass(world)
    assert world.states("op1")[-5:] == ["Error", "Invertible", "Error", "Invertible", "Preprocessed"]

    in_the_way(home)
    world.hand_over("op1")
    _, failed = a_pass(world)
    assert (world.error("op1"), failed) == (("Error", "verify", "transient", 1), ["handovers"])
    home.unlink()
    world.store.faults.add("graphql_errors", match=CREATE, times=2)
    for number in (1, 2):
        _, failed = a_pass(world)
        assert (world.error("op1"), failed) == (("Error", "publish", "transient", number), ["inversions"])
    said, failed = a_pass(world)
    assert (said["retried"], said["left_in_error"], failed) == (1, 1, [])
    assert said["last inversion"].startswith("![picture](data:image/png;base64,iVBORw0KGgo")
    assert world.states("op1")[-9:] == [
        *("Working", "Error", "Working", "Inverted"),
        *("Error", "Inverted", "Error", "Inverted", "Published"),
    ]
    assert len(inversions(world.settings)) == 1
    assert {row.actor for row in world.ledger.history("op1")} == {"pipeline", "ann"}
    assert world.states("op3") == ["Discovered", *["Invertible", "Error"] * 3]

    before = list(world.ledger.transitions())
    assert "last inversion" not in a_pass(world)[0]
    assert list(world.ledger.transitions()) == before


# -- each step by itself ------------------------------------------------------------------------------------


def test_a_package_that_is_refused_needs_a_person(world: World) -> None:
    world.rows["op1"]["proposal_id"] = None
    world.decide()
    report = world.prepare()
    assert world.error("op1") == ("Error", "preprocess", "permanent", 1)
    assert [op_id for op_id, _ in report.failed] == ["op1"]
    assert report.done == ["op2", "op3"]


def test_a_package_that_is_gone_needs_a_person_and_is_not_tried_for_ever(prepared: World) -> None:
    prepared.hand_over("op1")
    (prepared.data / "inputs" / "op1" / "inputs.json").unlink()
    prepared.verify()
    assert prepared.error("op1") == ("Error", "verify", "permanent", 1)
    assert prepared.ledger.retry_transient(3, **STEP).retried == []
    assert prepared.ledger.pending_events() == []


@pytest.fixture
def inverted(prepared: World) -> World:
    for op_id in ("op1", "op2"):
        prepared.hand_over(op_id)
    assert len(prepared.verify().done) == 2
    return prepared


def test_an_outage_of_the_store_blames_no_op(inverted: World) -> None:
    before = list(inverted.ledger.transitions())
    for fault in ({"kind": "status", "status": 503}, {"kind": "cut", "match": CREATE}, {"kind": "html"}):
        inverted.store.faults.add(**fault)
        assert len(inverted.publish().failed) == 1  # and no other is asked for
        inverted.store.faults.clear()
    assert list(inverted.ledger.transitions()) == before
    assert len(inverted.publish().done) == 2


def test_what_nobody_foresaw_in_one_op_stops_no_other(inverted: World) -> None:
    inverted.ledger.withdraw("op1", actor="ann", reason="to hand over by hand")
    inverted.ledger.append("op1", State.INVERTED, actor="ann", cause="by hand", details={})
    report = inverted.publish()
    assert len(report.done) == 1
    assert inverted.error("op1") == ("Error", "publish", "permanent", 1)
    message = inverted.ledger.present("op1").details["message"]
    assert "please report it: KeyError at dagster_l2.pipeline.steps:" in message
    assert report.failed == [("op1", message)]
