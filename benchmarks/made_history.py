"""A long made history for the benchmarks, loaded past the guards of the ledger. No benchmark itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from dagster_l2.ledger import EDGES, Ledger

STEPS = (
    "Discovered",
    "Invertible",
    "Preprocessed",
    "Working",
    "Preprocessed",
    "Working",
    "Inverted",
    "Working",
    "Inverted",
    "Published",
    "Invertible",
    "Preprocessed",
    "Working",
    "Error",
    "Working",
    "Inverted",
    "Published",
    "Invertible",
    "Preprocessed",
    "Working",
)
"""One long life: released once, withdrawn once, re-opened twice, failed once."""

INVERSIONS = (None, None, None, 0, None, 1, 1, 2, 2, 2, None, None, 3, 3, 3, 3, 3, None, None, 4)
"""Which inversion of the OP each step belongs to."""

AGAIN = ("Inverted", "Published", "Invertible", "Preprocessed", "Working")
"""What a longer life goes on with, again and again."""

BEGIN = datetime(2025, 1, 1, tzinfo=UTC)
COHORT = 1_000
"""OPs that live at the same time, so that their rows lie among each other as they do in a real ledger."""

COLUMNS = (
    "op_id, seq, from_state, to_state, occurred_at, recorded_at, actor, cause,"
    " inputs_hash, rule_version, inversion_id, run_id, details"
)
STEP = timedelta(milliseconds=200)
"""From one row to the next."""


def op_name(number: int) -> str:
    return f"eid_1_{number % 1000}_op{number:07d}_R001.{number % 90000}.13964206"


def life(length: int) -> tuple[list[str], list[int | None]]:
    """So many steps of an OP, and which of its inversions each belongs to."""
    steps, inversions = list(STEPS), list(INVERSIONS)
    while len(steps) < length:
        last = inversions[-1] or 0
        steps += AGAIN
        inversions += (last, last, None, None, last + 1)
    return steps[:length], inversions[:length]


def rows(count: int, each: int = len(STEPS)) -> Iterator[tuple[Any, ...]]:
    """Valid histories in the order of time, of so many steps an OP."""
    steps, inversions = life(each)
    assert {(a or None, b) for a, b in zip((None, *steps), steps, strict=False)} <= {
        (edge.from_state, edge.to_state) for edge in EDGES
    }
    details = [_details(step) for step in steps]
    made, moment = 0, BEGIN
    for first in range(0, count // each + COHORT, COHORT):
        for seq, step in enumerate(steps, start=1):
            before = steps[seq - 2] if seq > 1 else None
            which = inversions[seq - 1]
            for number in range(first, first + COHORT):
                if made == count:
                    return
                made += 1
                moment += STEP
                stamp = moment.isoformat(timespec="microseconds")
                yield (
                    op_name(number),
                    seq,
                    before,
                    step,
                    stamp,
                    stamp,
                    "pipeline" if which is None else "ann.scientist",
                    "as the verdict says" if which is None else "by hand",
                    f"{number:064x}",
                    "2026.1",
                    None if which is None else f"inv.{number:07d}{which}",
                    "5f0c8d0e-7f0c-4a39-b4c8-1d1f3b6c2a10",
                    details[seq - 1],
                )


def _details(step: str) -> str:
    ids = ["AQWXY", "BRVTZ", "CLMNO", "DPQRS", "EKLOP"]
    content = {"dataset_ids": ids, "step": step, "spectral_lines": ["Fe I (630.15 nm)", "Ca II (854.21 nm)"]}
    content |= {
        "buckets": ["data"],
        "instrument_program_id": "id.150.4711",
        "package": "inputs/op/inputs.json",
    }
    return json.dumps(content, sort_keys=True, separators=(",", ":"))


def fill(url: str, count: int, each: int = len(STEPS)) -> int:
    """Fill a new ledger past its guards, which are put back; gives back how many rows it has."""
    with Ledger.open(url) as ledger:
        raw = ledger.engine.raw_connection()
        try:
            (_load_sqlite if url.startswith("sqlite") else _load_postgresql)(
                raw.driver_connection, rows(count, each)
            )
        finally:
            raw.close()
    return count


def _load_sqlite(connection: Any, made: Iterator[tuple[Any, ...]]) -> None:
    # A log of one huge transaction would be written and read back whole.
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -1000000")
    where = "FROM sqlite_master WHERE type = 'trigger' AND tbl_name = 'op_transitions'"
    triggers = connection.execute(f"SELECT name, sql {where}").fetchall()
    connection.execute("BEGIN IMMEDIATE")
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    marks = ", ".join("?" * 13)
    connection.executemany(f"INSERT INTO op_transitions ({COLUMNS}) VALUES ({marks})", made)
    for _, sql in triggers:
        connection.execute(sql)
    connection.execute("COMMIT")
    connection.execute("ANALYZE")
    connection.execute("PRAGMA journal_mode = WAL")


def _load_postgresql(connection: Any, made: Iterator[tuple[Any, ...]]) -> None:
    connection.rollback()
    cursor = connection.cursor()
    cursor.execute(
        "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal AND tgrelid = 'l2.op_transitions'::regclass"
    )
    triggers = [name for (name,) in cursor.fetchall()]
    cursor.execute("ALTER TABLE l2.op_transitions DISABLE TRIGGER USER")
    with cursor.copy(f"COPY l2.op_transitions ({COLUMNS}) FROM STDIN") as copy:
        for row in made:
            copy.write_row(row)
    for name in triggers:
        cursor.execute(f"ALTER TABLE l2.op_transitions ENABLE ALWAYS TRIGGER {name}")
    connection.commit()
    connection.autocommit = True
    cursor.execute("VACUUM ANALYZE l2.op_transitions")
