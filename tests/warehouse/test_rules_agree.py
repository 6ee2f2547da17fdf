"""The rules in SQL and the same rules in Python agree on every row, over generated records of every kind.

``L2_TEST_RULE_RECORDS`` says over how many; 100 000 take about a minute more.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from agreement import disagreements
from odd_records import make_odd
from rules_in_python import CRITERIA, FAIL, NOT_RECORDED, PASS, Program
from warehouse_kit import RECORDS, Warehouse

from dagster_l2.store import parse_records
from dagster_l2.store.parse import content_hashes
from dagster_l2.store.server.generate import generate

COUNT = int(os.environ.get("L2_TEST_RULE_RECORDS", "10000"))
NOW = datetime(2026, 1, 15)
Agreement = tuple[Warehouse, dict[str, Program], list[str]]


def _scan(warehouse: Warehouse, table: str, records: list[dict[str, Any]], scanned_at: datetime) -> None:
    """Write records as the scan parses them."""
    frame, rejected = parse_records(RECORDS[table], records)
    assert rejected == []
    rows = frame.with_columns(content_hashes(frame)).to_dicts()
    warehouse.insert(table, [{**row, "scanned_at": scanned_at, "job_id": "job"} for row in rows])


@pytest.fixture(scope="module")
def agreement(new_warehouse: Callable[[], Warehouse]) -> Agreement:
    """Two scans, a day apart: of a fifth of the records the second brings another version."""
    made = generate(max(1, COUNT // 8), seed=7, now=NOW.replace(tzinfo=UTC))
    first = make_odd(made.datasets, seed=1)
    second = make_odd(first[::5], seed=2, share=0.5)
    latest = {record["datasetId"]: record for record in [*first, *second]}
    warehouse = new_warehouse()
    _scan(warehouse, "datasets", first, NOW - timedelta(days=1))
    _scan(warehouse, "datasets", second, NOW)
    _scan(warehouse, "processing_candidates", made.processing_candidates, NOW)
    warehouse.build("verdicts")
    return warehouse, *disagreements(warehouse, latest.values(), made.processing_candidates, NOW)


def test_both_agree_on_every_verdict_and_every_measured_value(agreement: Agreement) -> None:
    _, programs, found = agreement
    assert found[:20] == []
    assert len(programs) > COUNT / 12


def test_the_records_hold_what_the_rules_are_about(agreement: Agreement) -> None:
    """Every criterion is met, failed and unknown somewhere; every warning and every reason is there."""
    programs = agreement[1].values()
    outcomes = Counter(
        (name, judged.outcome)
        for program in programs
        for qualification in program.by_instrument.values()
        for name, judged in qualification.criteria.items()
    )
    assert {(name, outcome) for name in CRITERIA for outcome in (PASS, FAIL, NOT_RECORDED)} == set(outcomes)
    warnings = {w for p in programs for q in p.by_instrument.values() for w in q.warnings}
    assert len(warnings) == 6
    reasons = {program.completeness for program in programs}
    assert reasons == {"no_supported_instrument", "recipes_complete", "quiet", "arriving"}
    assert {program.seeing for program in programs} == {"good", "fair", "poor", None}
    invertible = sum(program.is_invertible for program in programs)
    assert 0.1 * len(programs) < invertible < 0.9 * len(programs)
