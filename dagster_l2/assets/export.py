"""The ledger's growing tables as bronze: each row once, whatever order they became visible in.

What the ledger can say of its ids is in ``ledger``, what the lake's files claim in ``lake``; here they meet.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from dagster_l2.base.errors import L2Error
from dagster_l2.batch import new_job_id
from dagster_l2.lake import BronzeTable, Claim, Compaction, GrowingTable, compact
from dagster_l2.ledger import Growing, Ledger

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

ANNOTATION_SCHEMA: dict[str, pl.DataType] = {
    "annotation_id": pl.Int64(),
    "op_id": pl.String(),
    "kind": pl.String(),
    "actor": pl.String(),
    "recorded_at": pl.Datetime("us"),
    "details": pl.String(),
}

_SCHEMAS: dict[Growing, dict[str, pl.DataType]] = {
    "transitions": TRANSITION_SCHEMA,
    "annotations": ANNOTATION_SCHEMA,
}

_ORDER: dict[Growing, tuple[str, str]] = {
    "transitions": ("op_id", "seq"),
    "annotations": ("op_id", "annotation_id"),
}
"""How the rows of merged files are sorted: what is asked of a history is asked OP by OP."""

ROWS_PER_FILE = 10_000
"""Also what is in memory at a time: about 80 MB with its copies."""


class OtherLedger(L2Error):
    """Bronze holds more than the ledger ever had."""


def exported_table(lake: Path, name: Growing) -> BronzeTable:
    """Where the rows of one of the ledger's tables lie in the lake."""
    return BronzeTable(lake, name, _SCHEMAS[name])


def exported_tables(lake: Path) -> tuple[BronzeTable, ...]:
    """All bronze tables that are written from the ledger."""
    return tuple(exported_table(lake, name) for name in _SCHEMAS)


def export_rows(ledger: Ledger, lake: Path, name: Growing, *, wait_s: float = 5.0) -> int:
    """Write the rows that bronze does not hold yet; one export of a table at a time.

    Parameters
    ----------
    wait_s
        How long to wait for transactions that are at work, in seconds. While one is, what is visible is
        written all the same, without a claim, and compared again by the next export.

    Returns
    -------
    int
        How many were written.

    Raises
    ------
    OtherLedger
        When the ledger ends before what bronze has of it.
    """
    table = exported_table(lake, name)
    key = next(iter(table.schema))
    grown = GrowingTable(table, key)
    settled = ledger.settled_id(name, wait_s=wait_s)
    after = grown.complete_through
    if settled is not None and settled < after:
        raise OtherLedger(
            f"{table.folder} has {name} up to {after} and the ledger ends at {settled}: it is another ledger"
            " or an old copy; bring back the right one, or move that folder away to export this one anew."
        )
    job_id = new_job_id("export")
    written, passed, beside = 0, 0, set[str]()
    batches = ledger.record_batches(name, after=after, through=settled, rows=ROWS_PER_FILE)
    for number, batch in enumerate(batches):
        frame = pl.DataFrame(batch)
        low, high = int(frame[key][0]), int(frame[key][-1])
        rows, holders = grown.missing(frame, low - 1, high)
        passed += len(frame) - len(rows)
        beside |= holders
        # A stretch that bronze has without a claim gets one of its own only if comparing it again is dear.
        if len(rows) or passed >= ROWS_PER_FILE:
            claim = None if settled is None else Claim(after, high, tuple(sorted(beside)))
            table.append(rows, job_id=job_id, part=f"{number:05d}", claim=claim)
            written, passed, beside, after = written + len(rows), 0, set[str](), high
    return written


def compact_exported(lake: Path, name: Growing) -> Compaction:
    """Merge the small files of an exported table; not beside an export of it. See `lake.compact`."""
    return compact(exported_table(lake, name), _ORDER[name], job_id=new_job_id("merge"))
