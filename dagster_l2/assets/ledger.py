"""What moves an observing program: verdicts, input packages, hand-overs, publishing; and the export.

Each asset is level-triggered: it compares what should be with what the ledger has recorded. The rules are
in ``ledger``, ``inputs``, ``products`` and ``publishing``.
"""

import json
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster_duckdb import DuckDBResource

from dagster_l2.assets.basis import read_basis
from dagster_l2.assets.export import compact_exported, export_rows
from dagster_l2.assets.pictures import disk_map, state_counts
from dagster_l2.assets.tables import counts_table, picture
from dagster_l2.assets.warehouse import POOL
from dagster_l2.base.files import only_one
from dagster_l2.ledger import Growing, Ledger, Retries
from dagster_l2.pipeline.deciding import verdict_of
from dagster_l2.pipeline.intake import take_in
from dagster_l2.pipeline.receiving import picture_of
from dagster_l2.pipeline.steps import prepare_inputs, publish_inverted, settle_events
from dagster_l2.pipeline.wiring import open_bus, places_of
from dagster_l2.publishing import PublishArea
from dagster_l2.resources import L2, one_sentence, rows_of

PIPELINE = "pipeline"


def failed_spec(asset: list[str]) -> dg.AssetCheckSpec:
    """The check that every step which OPs go through one by one reports with."""
    return dg.AssetCheckSpec(
        "nothing_failed",
        asset=dg.AssetKey(asset),
        description="No OP failed in this step; the others went on.",
    )


def nothing_failed(failed: list[tuple[str, str]]) -> dg.AssetCheckResult:
    """One OP that fails stops no other and no later step; it fails the check instead."""
    shown = [{"op_id": op_id, "reason": reason} for op_id, reason in failed[:20]]
    return dg.AssetCheckResult(
        check_name="nothing_failed",
        passed=not failed,
        description=f"OP {failed[0][0]!r}: {failed[0][1]}" if failed else None,
        metadata={"failed": len(failed), "first": json.dumps(shown, indent=1)},
    )


@dg.asset(
    key=["ledger", "decisions"],
    group_name="ledger",
    kinds={"sqlite", "postgres"},
    owners=["team:operators"],
    deps=[dg.AssetKey(["marts", "op_verdicts"]), dg.AssetKey(["intermediate", "int_datasets_current"])],
    check_specs=[failed_spec(["ledger", "decisions"])],
    pool=POOL,
)
def decisions(
    context: dg.AssetExecutionContext, l2: dg.ResourceParam[L2], warehouse: DuckDBResource
) -> dg.MaterializeResult:
    """Retry what failed transiently; compare the verdicts with the ledger and append what differs."""
    with one_sentence():
        rows = rows_of(warehouse, "select * from op_verdicts")
        basis = read_basis(warehouse)
        boxes = rows_of(
            warehouse,
            "select op_id, bounding_box, instrument from int_datasets_current where bounding_box is not null",
        )
        invertible = {row["op_id"] for row in rows if row["is_invertible"]}
        with l2.ledger() as ledger:
            again = _retry(context, ledger, l2.settings.retry_limit)
            result = ledger.decide(
                map(verdict_of, rows),
                actor=PIPELINE,
                run_id=context.run.run_id,
                details=basis.as_details() if basis else None,
            )
            states = Counter(present.state.value for present in ledger.present_all().values())
    moves = {f"{before or 'new'} → {after}": count for (before, after), count in result.moves.items()}
    context.log.info(f"decide: {len(result.moved)} moved, {result.unchanged} unchanged")
    for failure in result.failed:
        context.log.warning(f"decide: {failure.op_id!r}: {failure.reason}")
    return dg.MaterializeResult(
        check_results=[nothing_failed([(failure.op_id, failure.reason) for failure in result.failed])],
        metadata={
            "moved": len(result.moved),
            "unchanged": result.unchanged,
            "failed": len(result.failed),
            "retried": len(again.retried),
            "left_in_error": len(again.exhausted),
            "moves": counts_table("move", moves),
            "states": picture(state_counts(states)),
            "on the disk": picture(disk_map(boxes, invertible)),
        },
    )


def _retry(context: dg.AssetExecutionContext, ledger: Ledger, limit: int) -> Retries:
    """Bring back what failed transiently: the steps of this pass try it again."""
    again = ledger.retry_transient(limit, actor=PIPELINE, run_id=context.run.run_id)
    if again.retried:
        context.log.info(f"decide: {len(again.retried)} back from Error, tried again by this pass")
    if again.exhausted:
        ops = ", ".join(repr(error.op_id) for error in again.exhausted[:3])
        more = f" and {len(again.exhausted) - 3} more" if len(again.exhausted) > 3 else ""
        context.log.warning(f"decide: tried often enough, l2 retry when it is mended: {ops}{more}")
    return again


@dg.asset(
    key=["ledger", "input_packages"],
    group_name="ledger",
    kinds={"json"},
    owners=["team:operators"],
    deps=[dg.AssetKey(["ledger", "decisions"]), dg.AssetKey(["intermediate", "int_input_datasets"])],
    check_specs=[failed_spec(["ledger", "input_packages"])],
    pool=POOL,
)
def input_packages(
    context: dg.AssetExecutionContext, l2: dg.ResourceParam[L2], warehouse: DuckDBResource
) -> dg.MaterializeResult:
    """Write the input package of each Invertible OP; then it is Preprocessed."""
    with one_sentence(), l2.ledger() as ledger:
        datasets = rows_of(warehouse, "select * from int_input_datasets order by op_id, dataset_id")
        report = prepare_inputs(
            ledger,
            l2.settings.data,
            datasets,
            actor=PIPELINE,
            run_id=context.run.run_id,
            store_collection=l2.settings.store_collection,
            science_collection=l2.settings.science_collection,
        )
    context.log.info(f"preprocess: {len(report.done)} input packages written")
    for op_id, reason in report.failed:
        context.log.warning(f"preprocess: {op_id!r}: {reason}")
    return dg.MaterializeResult(
        check_results=[nothing_failed(report.failed)],
        metadata={"written": len(report.done), "failed": len(report.failed)},
    )


@dg.asset(
    key=["ledger", "handovers"],
    group_name="ledger",
    kinds={"fits"},
    owners=["team:operators"],
    deps=[dg.AssetKey(["ledger", "input_packages"])],
    check_specs=[failed_spec(["ledger", "handovers"])],
)
def handovers(context: dg.AssetExecutionContext, l2: dg.ResourceParam[L2]) -> dg.MaterializeResult:
    """Verify what scientists said is ready; good products make the OP Inverted, bad ones are refused."""
    with one_sentence(), l2.ledger() as ledger:
        came_in = take_in(l2.settings, ledger)
        report = settle_events(
            ledger,
            l2.settings.data,
            actor=PIPELINE,
            run_id=context.run.run_id,
            places=places_of(l2.settings),
        )
    for receipt in came_in:
        if not receipt.is_taken:
            context.log.warning(f"{receipt.source}: {receipt.outcome}: {receipt.reason}")
    for op_id, reason in report.refused:
        context.log.warning(f"hand-over of {op_id!r} refused: {reason}")
    context.log.info(f"hand-overs: {len(report.done)} accepted, {len(report.refused)} refused")
    return dg.MaterializeResult(
        check_results=[nothing_failed(report.failed)],
        metadata={
            "came in": len(came_in),
            "accepted": len(report.done),
            "refused": len(report.refused),
        },
    )


@dg.asset(
    key=["published", "inversions"],
    group_name="published",
    kinds={"graphql"},
    owners=["team:operators"],
    deps=[dg.AssetKey(["ledger", "handovers"])],
    check_specs=[failed_spec(["published", "inversions"])],
)
def published(context: dg.AssetExecutionContext, l2: dg.ResourceParam[L2]) -> dg.MaterializeResult:
    """Tell the store of each Inverted OP, once, and confirm it by reading it back."""
    settings = l2.settings
    with one_sentence(), l2.ledger() as ledger:
        report = publish_inverted(
            ledger,
            l2.store,
            settings.data,
            area=PublishArea(settings.published_folder),
            bus=open_bus(settings),
            mode=settings.publish,
            default_bucket=settings.default_bucket,
            publish_embargoed=settings.publish_embargoed,
            now=datetime.now(UTC),
            actor=PIPELINE,
            run_id=context.run.run_id,
        )
    for op_id, reason in (*report.refused, *report.failed):
        context.log.warning(f"publish: {op_id!r}: {reason}")
    context.log.info(f"publish: {len(report.done)} published, {len(report.refused)} wait")
    metadata: dict[str, Any] = {
        "published": len(report.done),
        "inversions": ", ".join(report.done),
        "waiting": counts_table("reason", Counter(reason for _, reason in report.refused)),
    }
    # Drawn now: nothing should wait for it to be Published.
    pictures = [picture_of(settings.data, inversion_id) for inversion_id in report.seen]
    if pictures and pictures[-1] is not None:
        metadata["last inversion"] = picture(pictures[-1])
    return dg.MaterializeResult(check_results=[nothing_failed(report.failed)], metadata=metadata)


def _exported(name: Growing, description: str) -> dg.AssetsDefinition:
    """A table of the ledger as parquet: what the ledger has and bronze has not is written."""

    @dg.asset(
        key=["bronze", name],
        group_name="states",
        kinds={"parquet"},
        owners=["team:operators"],
        description=description,
        deps=[dg.AssetKey(["published", "inversions"])],
    )
    def exported(context: dg.AssetExecutionContext, l2: dg.ResourceParam[L2]) -> dg.MaterializeResult:
        lock = l2.settings.data / "locks" / "export.lock"
        started = time.monotonic()
        # Two exports at once would each write what bronze lacks, and so write it twice.
        with one_sentence(), only_one(lock, "An export of the ledger", wait_s=600), l2.ledger() as ledger:
            count = export_rows(ledger, l2.settings.lake, name)
            merged = compact_exported(l2.settings.lake, name)
        context.log.info(f"export: {count} {name}")
        if merged.files:
            context.log.info(
                f"export: merged {merged.files} files of {name} into {merged.into}, {merged.rows} rows"
            )
        seconds = round(time.monotonic() - started, 3)
        return dg.MaterializeResult(
            metadata={"exported": count, "merged files": merged.files, "seconds": seconds}
        )

    return exported


transitions = _exported("transitions", "The ledger's history as parquet, each row once.")
annotations = _exported(
    "annotations",
    "What people and steps noted on OPs (priority, note, assigned, flags) as parquet, each row once.",
)
