"""Where the two implementations of the rules differ: each row and each measured value, side by side."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any

from rules_in_python import Program, Record, judge
from warehouse_kit import Warehouse

Row = dict[str, Any]


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-12)
    return bool(one == other)


def _differences(where: str, sql: Row, python: Row) -> Iterator[str]:
    for name in python:
        if not _same(sql[name], python[name]):
            yield f"{where}: {name} is {sql[name]!r} in SQL and {python[name]!r} in Python"


def _keyed(rows: Iterable[Row], *keys: str) -> dict[str, Row]:
    return {" / ".join(row[key] for key in keys): row for row in rows}


def _python_criteria(programs: dict[str, Program]) -> dict[str, Row]:
    return {
        f"{op_id} / {instrument} / {name}": {
            "outcome": judged.outcome,
            "passed": judged.outcome == "pass",
            "measured_value": judged.value,
            "threshold": judged.threshold,
            "worst_dataset_id": judged.worst,
            "failing_dataset_count": judged.failing,
        }
        for op_id, program in programs.items()
        for instrument, qualification in program.by_instrument.items()
        for name, judged in qualification.criteria.items()
    }


def _python_qualifications(programs: dict[str, Program]) -> dict[str, Row]:
    return {
        f"{op_id} / {instrument}": {
            "is_invertible": not qualification.failed,
            "failed_criteria": qualification.failed,
            "warnings": sorted(qualification.warnings),
            "inputs_hash": qualification.inputs_hash,
        }
        for op_id, program in programs.items()
        for instrument, qualification in program.by_instrument.items()
    }


def _python_programs(programs: dict[str, Program]) -> dict[str, Row]:
    return {
        op_id: {
            "is_invertible": program.is_invertible,
            "is_complete": program.completeness != "arriving",
            "completeness": program.completeness,
            "fried_parameter_median_m": program.fried_parameter,
            "seeing": program.seeing,
        }
        for op_id, program in programs.items()
    }


def disagreements(
    warehouse: Warehouse, records: Iterable[Record], candidates: Iterable[Record], scanned_at: datetime
) -> tuple[dict[str, Program], list[str]]:
    """Judge the records in Python and compare all of it with what the warehouse says."""
    programs = judge(records, candidates, scanned_at)
    tables = (
        ("op_criteria", ("op_id", "instrument", "criterion"), _python_criteria(programs)),
        ("op_qualification", ("op_id", "instrument"), _python_qualifications(programs)),
        ("observing_programs", ("op_id",), _python_programs(programs)),
    )
    found: list[str] = []
    for table, keys, python in tables:
        sql = _keyed(warehouse.rows(f"select * from {table}"), *keys)
        found += [f"{table} {key}: only in SQL" for key in sorted(set(sql) - set(python))]
        found += [f"{table} {key}: only in Python" for key in sorted(set(python) - set(sql))]
        for key in sorted(set(sql) & set(python)):
            found += _differences(f"{table} {key}", sql[key], python[key])
    return programs, found
