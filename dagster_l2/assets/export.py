"""The ledger's transitions as a bronze table: each row once, whatever order they became visible in."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import orjson
import polars as pl

from dagster_l2.batch import new_job_id
from dagster_l2.lake import BronzeTable
from dagster_l2.ledger import Ledger, Transition

TRANSITION_SCHEMA: dict[str, pl.DataType] = {
    "transition_id": pl.Int64(),
    "op_id": pl.String(),
    "seq": pl.Int64(),
    "from_state": pl.String(),
    "to_state": pl.String(),
    "occurred_at": pl.Datetime("us"),
    "recorded_at": pl.Datetime("us"),
    "actor": pl.String(),
    "cause": pl.String(),
    "inputs_hash": pl.String(),
    "rule_version": pl.String(),
    "inversion_id": pl.String(),
    "run_id": pl.String(),
    "details": pl.String(),
}


def transitions_table(lake: Path) -> BronzeTable:
    """Where the transitions lie in the lake."""
    return BronzeTable(lake, "transitions", TRANSITION_SCHEMA)


def export_transitions(ledger: Ledger, lake: Path) -> int:
    """Write the transitions that bronze does not hold yet.

    Ids are compared, not counted up to: on PostgreSQL a lower id can be committed after a higher one.

    Returns
    -------
    int
        How many were written.
    """
    table = transitions_table(lake)
    table.ensure()
    recorded = set(table.scan().select("transition_id").collect()["transition_id"])
    wanted = sorted(set(ledger.transition_ids()) - recorded)
    job_id = new_job_id("export")
    for number, rows in enumerate(ledger.transitions(ids=wanted) if wanted else ()):
        frame = pl.DataFrame([_row(row) for row in rows], schema=TRANSITION_SCHEMA, orient="row")
        table.append(frame, job_id=job_id, part=f"{number:05d}")
    return len(wanted)


def _row(row: Transition) -> tuple[object, ...]:
    return (
        row.transition_id,
        row.op_id,
        row.seq,
        row.from_state.value if row.from_state else None,
        row.to_state.value,
        _naive(row.occurred_at),
        _naive(row.recorded_at),
        row.actor,
        row.cause,
        row.inputs_hash,
        row.rule_version,
        row.inversion_id,
        row.run_id,
        orjson.dumps(row.details, default=str).decode(),
    )


def _naive(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(tzinfo=None)
