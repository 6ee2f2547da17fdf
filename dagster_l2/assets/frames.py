"""The level-1 frames of the OPs that are next, as an asset; what it does is in ``staging``."""

from collections import Counter
from typing import Any

import dagster as dg

from dagster_l2.assets.ledger import PIPELINE, failed_spec, nothing_failed
from dagster_l2.assets.tables import counts_table, picture
from dagster_l2.inputs import package_folder, read_picture
from dagster_l2.pipeline.staging import stage_next
from dagster_l2.resources import L2, one_sentence


@dg.asset(
    key=["inputs", "frames"],
    group_name="inputs",
    kinds={"fits"},
    owners=["team:operators"],
    deps=[dg.AssetKey(["gold", "l2_duckdb"])],
    check_specs=[failed_spec(["inputs", "frames"])],
)
def frames(context: dg.AssetExecutionContext, l2: dg.ResourceParam[L2]) -> dg.MaterializeResult:
    """Stage and check the frames of claimed OPs and of the queue's head; remove those of published ones."""
    with one_sentence(), l2.ledger() as ledger, l2.store() as store:
        report = stage_next(l2.settings, ledger, store, actor=PIPELINE, run_id=context.run.run_id)
    for op_id, reason in report.failed:
        context.log.warning(f"stage: {op_id!r}: {reason}")
    context.log.info(
        f"stage: {report.files} frames; OPs new {len(report.staged)}, there already {len(report.already)},"
        f" removed after publishing {len(report.evicted)}"
    )
    metadata: dict[str, Any] = {
        "staged": len(report.staged),
        "frames": report.files,
        "bytes": report.bytes,
        "removed": len(report.evicted),
        "left out": counts_table("reason", Counter(reason for _, reason in report.left_out)),
    }
    for op_id in (*report.staged, *report.already)[:1]:
        metadata["frames of"] = op_id
        png = read_picture(package_folder(l2.settings.data, op_id))
        if png is not None:
            metadata["quick look"] = picture(png)
    return dg.MaterializeResult(check_results=[nothing_failed(report.failed)], metadata=metadata)
