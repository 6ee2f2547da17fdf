"""What is added to dbt's events for people who look: row counts, column lineage, the rows that fail a test.

All of it is read from the warehouse when dbt has ended. dagster-dbt's own ways (``fetch_row_counts``,
``fetch_column_metadata``) keep the DuckDB file open in this process, and the next asset cannot open it then.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
from dagster_dbt import DagsterDbtTranslator
from dagster_duckdb import DuckDBResource

from dagster_l2.assets.column_lineage import LineageCache, Origins
from dagster_l2.assets.failing_rows import failing_rows, in_words
from dagster_l2.assets.tables import rows_table
from dagster_l2.pipeline.gold import Row

_GIVEN_UP = "dbt could not build the warehouse: {}"


class BuildEvents:
    """The events of one dbt build, told more fully; and, when it failed, why in one sentence.

    Parameters
    ----------
    invocation
        A dbt build that has ended, all its events taken.
    warehouse
        The DuckDB file it built.
    translator
        Names the assets.
    lineage_file
        Keeps the column lineage of models whose SQL does not change.
    """

    def __init__(
        self,
        invocation: Any,
        warehouse: DuckDBResource,
        translator: DagsterDbtTranslator,
        lineage_file: Path,
    ) -> None:
        self._invocation = invocation
        self._manifest: Mapping[str, Any] = invocation.manifest
        self._results = {result["unique_id"]: result for result in _results(invocation)}
        self._keys = {
            tuple(part.strip('"') for part in node["relation_name"].split(".")[-2:]): (
                translator.get_asset_key(node)
            )
            for node in [*self._manifest["nodes"].values(), *self._manifest["sources"].values()]
            if node.get("relation_name") and node["resource_type"] != "test"
        }
        with warehouse.get_connection() as connection:
            self._counts: dict[str, int] = dict(
                connection.execute("select table_name, estimated_size from duckdb_tables()").fetchall()
            )
            self._counts |= {name: self._count(connection, name) for name in self._views_of_gold()}
            self._lineage = LineageCache(lineage_file, _columns(connection))
            self._failing: dict[str, list[Row]] = {
                unique_id: failing_rows(
                    connection,
                    self._manifest,
                    unique_id,
                    str(result.get("compiled_code") or ""),
                    str(result.get("message") or ""),
                )
                for unique_id, result in self._results.items()
                if result["status"] in ("error", "fail", "warn")
            }

    def _views_of_gold(self) -> Iterator[str]:
        """What was built as a view and is a table of gold, so that people expect a count of its rows."""
        for unique_id, result in self._results.items():
            node = self._manifest["nodes"].get(unique_id, {})
            is_view = (node.get("config") or {}).get("materialized") == "view"
            if is_view and result["status"] == "success" and "marts" in node["fqn"]:
                yield node["name"]

    @staticmethod
    def _count(connection: duckdb.DuckDBPyConnection, view: str) -> int:
        (count,) = connection.table(view).aggregate("count(*)").fetchall()[0]
        return int(count)

    def told(self, events: list[Any]) -> Iterator[Any]:
        """The events with what a person wants to see beside them."""
        for event in events:
            unique_id = _unique_id(event)
            if isinstance(event, dg.Output) and unique_id:
                yield event.with_metadata({**event.metadata, **self._of_model(unique_id)})
            elif isinstance(event, dg.AssetCheckResult) and self._failing.get(unique_id):
                yield self._failed_check(event, self._failing[unique_id])
            else:
                yield event
        self._lineage.save()

    def failure(self) -> dg.Failure:
        """Why nothing is published: the first failure, and which rows it is about."""
        bad = [result for result in self._results.values() if result["status"] in ("error", "fail")]
        if not bad:
            said = self._invocation.get_error() or "see the log of the run"
            return dg.Failure(_GIVEN_UP.format(said), allow_retries=False)
        first = bad[0]
        name = first["unique_id"].split(".")[2]
        rows = self._failing.get(first["unique_id"], [])
        said = " ".join(str(first.get("message") or "").split())[:300]
        if rows and first["status"] == "fail":
            said = in_words(rows)  # dbt has only counted them
        elif rows:
            said = f"{said} – {in_words(rows)}"
        more = f" (and {len(bad) - 1} more)" if len(bad) > 1 else ""
        return dg.Failure(
            f"The warehouse was not published: {name} failed: {said}{more}; gold stays as it was.",
            metadata={"failing rows": rows_table(rows, list(rows[0]))} if rows else {},
            allow_retries=False,
        )

    def _of_model(self, unique_id: str) -> dict[str, Any]:
        metadata: dict[str, Any] = {}
        count = self._counts.get(unique_id.split(".")[-1])
        if count is not None:
            metadata["dagster/row_count"] = dg.MetadataValue.int(count)
        sql = (self._results.get(unique_id) or {}).get("compiled_code")
        origins = self._lineage.origins(unique_id, sql) if sql and unique_id.startswith("model.") else {}
        if origins:
            metadata |= self._lineage_metadata(origins)
        return metadata

    def _lineage_metadata(self, origins: Origins) -> dict[str, Any]:
        deps = {
            column: [
                dg.TableColumnDep(asset_key=self._keys[schema, table], column_name=name)
                for schema, table, name in parents
                if (schema, table) in self._keys
            ]
            for column, parents in origins.items()
        }
        # The open-source UI draws no column lineage; this table is what it shows of it.
        rows = [
            {
                "column": column,
                "comes from": ", ".join(f"{d.asset_key.path[-1]}.{d.column_name}" for d in found),
            }
            for column, found in deps.items()
        ]
        return {
            "dagster/column_lineage": dg.TableColumnLineage(deps_by_column=deps),
            "column lineage": rows_table(rows, ("column", "comes from")),
        }

    def _failed_check(self, event: dg.AssetCheckResult, rows: list[Row]) -> dg.AssetCheckResult:
        return dg.AssetCheckResult(
            passed=event.passed,
            asset_key=event.asset_key,
            check_name=event.check_name,
            severity=event.severity,
            description=f"Rows that fail: {in_words(rows)}",
            metadata={**event.metadata, "failing rows": rows_table(rows, list(rows[0]))},
        )


def _results(invocation: Any) -> list[dict[str, Any]]:
    try:
        results: list[dict[str, Any]] = invocation.get_artifact("run_results.json")["results"]
    except Exception:  # noqa: BLE001 - dbt that died early leaves no artifact of any known shape
        return []
    return results


def _columns(connection: Any) -> dict[str, dict[str, dict[str, str]]]:
    found: dict[str, dict[str, dict[str, str]]] = {}
    for schema, table, column, data_type in connection.execute(
        "select schema_name, table_name, column_name, data_type from duckdb_columns() where not internal"
    ).fetchall():
        found.setdefault(schema, {}).setdefault(table, {})[column] = data_type
    return found


def _unique_id(event: Any) -> str:
    value = (getattr(event, "metadata", None) or {}).get("unique_id")
    return str(getattr(value, "value", value)) if value is not None else ""
