"""The dbt models as assets, in the two parts between which the ledger decides; and gold.

Which model is in which part is a tag in the dbt project. What they compute is SQL and not here.
"""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DbtCliResource, dbt_assets
from dagster_duckdb import DuckDBResource

from dagster_l2.assets.basis import drop_basis, keep_basis
from dagster_l2.assets.dbt_events import BuildEvents
from dagster_l2.assets.export import exported_tables
from dagster_l2.assets.tables import counts_table
from dagster_l2.base.files import only_one
from dagster_l2.batch import export_job_tasks, job_tasks_table
from dagster_l2.lake import BronzeTable, Description, register_views, write_gold
from dagster_l2.pipeline.downloads import reach_table
from dagster_l2.pipeline.metrics import write_metrics
from dagster_l2.pipeline.op_documents import documents_folder, write_documents
from dagster_l2.project import warehouse_project
from dagster_l2.resources import L2, one_sentence
from dagster_l2.sources import ScanTables

POOL = "warehouse"


# Not an asset that is run: whoever builds the warehouse brings what the state database has of it.
JOB_TASKS = dg.AssetSpec(
    ["bronze", "job_tasks"],
    group_name="bronze",
    kinds={"parquet", "polars"},
    owners=["team:operators"],
    description="The tasks of ended jobs with what they did, exported before each build of the warehouse.",
)


class Translator(DagsterDbtTranslator):
    """Names and groups of dbt resources in the asset graph."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        """``bronze/<table>`` for sources, ``<layer>/<name>`` for models, ``seeds/<name>`` for seeds."""
        name = dbt_resource_props["name"]
        if dbt_resource_props["resource_type"] == "source":
            return dg.AssetKey(["bronze", name])
        return dg.AssetKey([_layer(dbt_resource_props), name])

    def get_group_name(self, dbt_resource_props: Mapping[str, Any]) -> str:
        """Where it stands in the flow: what decides comes before the ledger, what reads it after."""
        layer = _layer(dbt_resource_props)
        if "states" in dbt_resource_props["tags"]:
            return "states"
        return "verdicts" if layer == "marts" else layer

    def get_owners(self, dbt_resource_props: Mapping[str, Any]) -> list[str]:  # noqa: ARG002
        """Everything in the warehouse is the analysts'."""
        return ["team:analysts"]


def _layer(props: Mapping[str, Any]) -> str:
    return "seeds" if props["resource_type"] == "seed" else str(props["fqn"][1])


def _build(
    part: str, context: dg.AssetExecutionContext, dbt: DbtCliResource, l2: L2, warehouse: DuckDBResource
) -> Iterator[Any]:
    """Build one part of the models and run its data tests; unit tests belong to ``make test``."""
    settings = l2.settings
    with one_sentence(), only_one(settings.data / "locks" / "warehouse.lock", "A build of the warehouse"):
        with l2.ledger() as ledger:
            export_job_tasks(settings.lake, ledger.engine)
        known_at = datetime.now(UTC)
        files = register_bronze(l2, warehouse, known_at=known_at)
        if part == "verdicts":
            drop_basis(warehouse)
        with l2.dbt_environment():
            invocation = dbt.cli(
                ["build", "--exclude-resource-type", "unit_test"],
                context=context,
                target_path=settings.data / "dbt" / part,
                raise_on_error=False,
            )
            events = list(invocation.stream())
        told = BuildEvents(invocation, warehouse, Translator(), settings.data / "dbt" / "column_lineage.json")
        yield from told.told(events)
        if not invocation.is_successful():
            raise told.failure()
        if part == "verdicts":
            keep_basis(settings.lake, invocation.get_artifact("manifest.json"), warehouse, known_at, files)
        context.log.info(f"build: {part} built and tested")


@dbt_assets(
    name="verdict_models",
    manifest=warehouse_project.manifest_path,
    project=warehouse_project,
    select="tag:verdicts",
    dagster_dbt_translator=Translator(),
    pool=POOL,
)
def verdict_models(
    context: dg.AssetExecutionContext,
    dbt: DbtCliResource,
    l2: dg.ResourceParam[L2],
    warehouse: DuckDBResource,
) -> Iterator[Any]:
    """Everything that depends on datasets alone: groupings, readiness, criteria, qualification."""
    yield from _build("verdicts", context, dbt, l2, warehouse)


@dbt_assets(
    name="state_models",
    manifest=warehouse_project.manifest_path,
    project=warehouse_project,
    select="tag:states",
    dagster_dbt_translator=Translator(),
    pool=POOL,
)
def state_models(
    context: dg.AssetExecutionContext,
    dbt: DbtCliResource,
    l2: dg.ResourceParam[L2],
    warehouse: DuckDBResource,
) -> Iterator[Any]:
    """Everything that reads the ledger's transitions: latest state, history, queue, inversions."""
    yield from _build("states", context, dbt, l2, warehouse)


def bronze_tables(lake: Path) -> list[BronzeTable]:
    """Every table of bronze: what scan and downloads bring, their jobs, what the ledger exports."""
    return [*ScanTables.under(lake).all(), reach_table(lake), job_tasks_table(lake), *exported_tables(lake)]


def register_bronze(
    l2: L2, warehouse: DuckDBResource, *, known_at: datetime | None = None
) -> dict[str, list[Path]]:
    """Create the views over bronze that the models read; each is there before its first row.

    Returns the files of each table; with ``known_at`` only those that had been written by then.
    """
    with one_sentence(), warehouse.get_connection() as connection:
        return register_views(connection, bronze_tables(l2.settings.lake), known_at=known_at)


def mart_names() -> list[str]:
    """The marts, from the dbt manifest."""
    manifest = json.loads(warehouse_project.manifest_path.read_text(encoding="utf-8"))
    nodes = manifest["nodes"].values()
    return sorted(
        node["name"] for node in nodes if node["resource_type"] == "model" and node["fqn"][1] == "marts"
    )


def gold_descriptions() -> dict[str, Description]:
    """What the tables of gold and their columns are, from the dbt manifest."""
    manifest = json.loads(warehouse_project.manifest_path.read_text(encoding="utf-8"))
    nodes = {
        node["name"]: node
        for node in manifest["nodes"].values()
        if node["resource_type"] in ("model", "seed")
    }
    return {
        name: Description(
            " ".join(nodes[name]["description"].split()),
            {column["name"]: column["description"].strip() for column in nodes[name]["columns"].values()},
        )
        for name in gold_tables()
    }


def gold_tables() -> list[str]:
    """What analysts get: the marts, and the rules by which states wait for whom and the queue ranks."""
    return [*mart_names(), "state_rules", "priority_parts"]


@dg.asset(
    key=["gold", "l2_duckdb"],
    group_name="gold",
    kinds={"duckdb", "parquet"},
    owners=["team:analysts"],
    deps=[dg.AssetKey(["marts", name]) for name in mart_names()],
    pool=POOL,
)
def gold(context: dg.AssetExecutionContext, l2: dg.ResourceParam[L2]) -> dg.MaterializeResult:
    """What analysts open: ``data/l2.duckdb`` and a parquet file per mart, replaced by one rename."""
    settings = l2.settings
    with one_sentence():
        written = write_gold(
            settings.warehouse,
            settings.gold,
            settings.lake / "gold",
            gold_tables(),
            (warehouse_project.project_dir / "gold_macros.sql").read_text(encoding="utf-8"),
            gold_descriptions(),
        )
        documents = write_documents(settings.gold, documents_folder(settings.lake))
    context.log.info(f"gold: {settings.gold.name} with {len(written.rows)} tables")
    if documents.changed:
        context.log.info(f"gold: documents of inverted OPs, new or changed: {len(documents.changed)}")
    with l2.ledger() as ledger:
        write_metrics(settings, ledger)
    return dg.MaterializeResult(
        metadata={
            "path": dg.MetadataValue.path(settings.gold),
            "bytes": written.bytes,
            "rows": counts_table("mart", written.rows),
            "documents changed": len(documents.changed),
        }
    )
