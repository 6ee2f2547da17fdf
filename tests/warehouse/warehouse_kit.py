"""What the warehouse tests build with: bronze tables in a DuckDB file, and the real dbt run on it.

Here records are written into bronze tables directly; how the lake holds them as parquet is the lake's matter.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from dagster_l2.assets.warehouse import bronze_tables
from dagster_l2.store import RECORD_TYPES, FieldType, RecordType

REPOSITORY = Path(__file__).resolve().parents[2]
DBT_PROJECT = REPOSITORY / "dbt_project"
DUMPS = ("2025-05-08", "2025-06-25", "2025-10-23")

RECORDS = {record_type.table: record_type for record_type in RECORD_TYPES}
SCHEMAS: dict[str, Mapping[str, Any]] = {table.name: table.schema for table in bronze_tables(Path("lake"))}


def _value(field_type: FieldType, value: Any) -> Any:
    if value is None:
        return None
    if field_type is FieldType.DATETIME:
        return datetime.fromisoformat(value).replace(tzinfo=None)
    return float(value) if field_type is FieldType.FLOAT else value


def _row(record_type: RecordType, record: Mapping[str, Any]) -> dict[str, Any]:
    row = {field.column: _value(field.type, record.get(field.name)) for field in record_type.fields}
    content = {column: value for column, value in row.items() if column != "update_date"}
    row["content_hash"] = hashlib.sha256(json.dumps(content, default=str).encode()).hexdigest()
    return row


@dataclass
class Warehouse:
    """A DuckDB file with bronze tables, and dbt on it."""

    folder: Path
    project: Path = DBT_PROJECT
    environment: dict[str, str] = field(default_factory=dict)
    _seen: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        return self.folder / "warehouse.duckdb"

    def create(self) -> Warehouse:
        with duckdb.connect(str(self.path)) as connection:
            connection.execute("create schema bronze")
            for table, schema in SCHEMAS.items():
                empty = pl.DataFrame(schema=schema).to_arrow()
                connection.register("empty", empty)
                connection.execute(f"create table bronze.{table} as select * from empty")
                connection.unregister("empty")
        return self

    def scan(self, table: str, records: Iterable[Mapping[str, Any]], scanned_at: datetime) -> int:
        """Write what is new or changed, as a scan does; the number of rows written."""
        record_type = RECORDS[table]
        rows = []
        for record in records:
            row = _row(record_type, record)
            key = (table, row[record_type.key_column])
            if self._seen.get(key) != row["content_hash"]:
                self._seen[key] = row["content_hash"]
                rows.append({**row, "scanned_at": scanned_at, "job_id": "job"})
        self.insert(table, rows)
        return len(rows)

    def insert(self, table: str, rows: Iterable[Mapping[str, Any]]) -> None:
        schema = SCHEMAS[table]
        frame = pl.DataFrame([{name: row.get(name) for name in schema} for row in rows], schema=schema)
        with duckdb.connect(str(self.path)) as connection:
            connection.register("new_rows", frame.to_arrow())
            connection.execute(f"insert into bronze.{table} by name select * from new_rows")

    def dbt(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run dbt as the pipeline does: a process of its own, its files outside of the project."""
        environment = {
            **os.environ,
            "L2_WAREHOUSE": str(self.path),
            "DBT_TARGET_PATH": str(self.folder / "target"),
            "DBT_LOG_PATH": str(self.folder / "logs"),
            **self.environment,
        }
        result = subprocess.run(
            [
                str(Path(sys.executable).with_name("dbt")),
                *arguments,
                "--project-dir",
                str(self.project),
                "--profiles-dir",
                str(self.project),
            ],
            capture_output=True,
            text=True,
            env=environment,
            cwd=self.folder,
            check=False,
        )
        if check and result.returncode:
            pytest.fail(result.stdout[-6000:] + result.stderr[-2000:])
        return result

    def build(self, part: str, *arguments: str) -> None:
        self.dbt("build", "--select", f"tag:{part}", "--exclude-resource-type", "unit_test", *arguments)

    def manifest(self) -> dict[str, Any]:
        """The manifest that the last dbt run left."""
        content = (self.folder / "target" / "manifest.json").read_text(encoding="utf-8")
        loaded: dict[str, Any] = json.loads(content)
        return loaded

    def query(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.path)) as connection:
            return connection.execute(sql, list(parameters)).fetchall()

    def rows(self, sql: str, *parameters: Any) -> list[dict[str, Any]]:
        with duckdb.connect(str(self.path)) as connection:
            cursor = connection.execute(sql, list(parameters))
            names = [column[0] for column in cursor.description or ()]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def dump(folder: Path, date: str) -> list[dict[str, Any]]:
    """The dataset records of one date."""
    return [
        record
        for path in sorted((folder / date).glob("*.json"))
        for record in json.loads(path.read_text(encoding="utf-8"))["data"]["datasetInventories"]
    ]


def visp_record(dataset_id: str, op_id: str | None, **changes: Any) -> dict[str, Any]:
    """A record of a ViSP dataset that fulfils every criterion, with changes."""
    return {
        "datasetId": dataset_id,
        "productId": f"product-{dataset_id}",
        "status": "ACTIVE",
        "createDate": "2024-12-01T00:00:00",
        "observingProgramExecutionId": op_id,
        "instrumentProgramExecutionId": f"program of {op_id}",
        "instrumentName": "VISP",
        "primaryProposalId": "pid_1",
        "primaryExperimentId": "eid_1",
        "startTime": "2024-01-03T12:00:00",
        "endTime": "2024-01-03T13:00:00",
        "boundingBox": "(10,10),(-10,-10)",
        "wavelengthMin": 629.4,
        "wavelengthMax": 631,
        "stokesParameters": "IQUV",
        "frameCount": 77694,
        "health": {"good": 77694, "bad": None, "ill": None, "unknown": None},
        "gosStatus": {"open": 77694, "opening": None, "closed": None, "closing": None, "undefined": None},
        "aoLocked": 77694,
        "bucket": "public",
        **changes,
    }
