"""The rules of the dbt project, read from its manifest: parts, layers, names, documentation, tests."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from warehouse_kit import DBT_PROJECT, SCHEMAS, Warehouse

from dagster_l2.assets.warehouse import gold_tables

PARTS = {"verdicts", "states"}
# What is promised to whoever queries; more columns are welcome, fewer are not.
PROMISED = {
    "datasets": """
        dataset_id product_id op_id instrument_program_id proposal_id experiment_id instrument
        start_time end_time create_date wavelength_min_nm wavelength_max_nm frame_count stokes
        spectral_lines lines_estimated is_embargoed embargo_end_date status content_hash
    """,
    "dataset_versions": """
        dataset_id version_number seen_at superseded_at store_updated_at change_type changed_fields changes
        content_hash
    """,
    "observing_programs": """
        op_id proposal_id experiment_id instruments dataset_count start_time end_time
        is_complete is_invertible is_embargoed embargo_end_date fried_parameter_median_m
        experiment_description
    """,
    "op_criteria": """
        op_id instrument criterion passed outcome measured_value measured_text threshold unit
        worst_dataset_id
    """,
    "op_qualification": """
        op_id instrument is_invertible failed_criteria warnings inputs_hash rule_version
    """,
    "op_verdicts": """
        op_id has_datasets is_complete is_invertible failed_criteria warnings inputs_hash
        rule_version instrument_program_id dataset_ids buckets spectral_lines measured
    """,
    "op_latest_state": """
        op_id state since seq actor inversion_id days_in_state inputs_changed
        published_inversion_ids last_published_at
    """,
    "op_history": """
        op_id seq from_state to_state occurred_at ended_at duration actor cause
    """,
    "op_annotations": """
        annotation_id op_id kind actor recorded_at remark
    """,
    "work_queue": """
        rank op_id state responsible assigned_to reason days_in_state limit_days is_overdue
        is_held_by_embargo priority_score priority merit_score readiness_score fried_parameter_score
        adaptive_optics_score lines_score warnings_score warning_count age_score
    """,
    "inversions": """
        inversion_id op_id instrument_program_id claimed_by claimed_at inverted_at published_at
        dataset_ids spectral_lines
    """,
    "inversion_quality": """
        inversion_id op_id product_file quantity unit finite_share minimum mean maximum standard_deviation
        impossible_share unusual_share verified_at
    """,
    "scan_coverage": """
        source window_start window_end status records expected_records availability_pct
        attempts seconds
    """,
    "download_jobs": """
        job_id job_name status submitted_at finished_at seconds task_count failed_task_count records
        requests turned_down received_bytes token_wait_s
    """,
    "rejected_records": """
        rejected_at table_name record_id reason last_accepted_at raw_json job_id
    """,
    "orphan_datasets": """
        dataset_id product_id instrument instrument_program_id proposal_id create_date
    """,
    "proposals": """
        proposal_id op_count
    """,
    "warehouse_info": """
        built_at last_scan_at rule_version store is_demo rejected_record_count orphan_dataset_count
    """,
}
PREFIXES = {"staging": "stg_", "intermediate": "int_"}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    warehouse = Warehouse(tmp_path_factory.mktemp("parse"))
    warehouse.dbt("parse")
    return warehouse.manifest()


@pytest.fixture(scope="module")
def models(manifest: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["name"]: node for node in manifest["nodes"].values() if node["resource_type"] == "model"}


def _layer(model: dict[str, Any]) -> str:
    return str(model["fqn"][1])


def _tests(manifest: dict[str, Any], model: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        node
        for node in manifest["nodes"].values()
        if node["resource_type"] == "test" and node.get("attached_node") == model["unique_id"]
    ]


def test_each_model_and_seed_is_in_exactly_one_part(manifest: dict[str, Any]) -> None:
    nodes = [node for node in manifest["nodes"].values() if node["resource_type"] in ("model", "seed")]
    assert len(nodes) > 25
    assert [node["name"] for node in nodes if len(PARTS & set(node["tags"])) != 1] == []


def test_no_verdict_depends_on_a_state(manifest: dict[str, Any]) -> None:
    nodes = manifest["nodes"]
    wrong = [
        (node["name"], parent)
        for node in nodes.values()
        if node["resource_type"] == "model" and "verdicts" in node["tags"]
        for parent in node["depends_on"]["nodes"]
        if parent in nodes and "states" in nodes[parent]["tags"]
    ]
    from_the_ledger = {f"source.dagster_l2.bronze.{table}" for table in ("transitions", "annotations")}
    readers = [
        node["name"]
        for node in nodes.values()
        if "verdicts" in node["tags"] and from_the_ledger & set(node["depends_on"].get("nodes", []))
    ]
    assert wrong == []
    assert readers == []


def test_staging_reads_one_source_and_nothing_else_reads_sources(models: dict[str, dict[str, Any]]) -> None:
    for name, model in models.items():
        parents = model["depends_on"]["nodes"]
        sources = [parent for parent in parents if parent.startswith("source.")]
        if _layer(model) == "staging":
            assert len(sources) == len(parents) == 1, name
            assert model["config"]["materialized"] == "view", name
        else:
            assert sources == [], name


def test_each_source_table_has_one_staging_model_of_its_name(
    manifest: dict[str, Any], models: dict[str, dict[str, Any]]
) -> None:
    read = {
        name: parent.rsplit(".", 1)[1]
        for name, model in models.items()
        for parent in model["depends_on"]["nodes"]
        if parent.startswith("source.")
    }
    assert sorted(read.values()) == sorted(source["name"] for source in manifest["sources"].values())
    for name, table in read.items():
        # The one table that is a source as a whole is named by what its rows are.
        assert name.split("__")[1] == table or (name, table) == ("stg_reach__observations", "reach")


def test_staging_only_renames_and_casts(models: dict[str, dict[str, Any]]) -> None:
    """A row of the source is a row of staging; what a value means is decided further down."""
    deciding = re.compile(
        r"\b(where|join|group|qualify|having|union|except|distinct|order|limit|over|case|coalesce|unnest)\b"
    )
    for name, model in models.items():
        if _layer(model) == "staging":
            code = re.sub(r"--.*", "", model["raw_code"].lower())
            assert code.count("from ") == 3, name
            assert deciding.findall(code) == [], name


def test_no_layer_reads_one_above_it(manifest: dict[str, Any], models: dict[str, dict[str, Any]]) -> None:
    order = ("staging", "intermediate", "marts")
    arrows = [
        (_layer(manifest["nodes"][parent]), _layer(model), name)
        for name, model in models.items()
        for parent in model["depends_on"]["nodes"]
        if parent.startswith("model.")
    ]
    assert len(arrows) > 30
    assert [a for a in arrows if order.index(a[0]) > order.index(a[1])] == []


def test_staging_says_what_a_row_cannot_do_without(
    manifest: dict[str, Any], models: dict[str, dict[str, Any]]
) -> None:
    for name, model in models.items():
        # A day of REACH is a million rows: their key is tested where they are used, not here again.
        if _layer(model) == "staging" and name != "stg_reach__observations":
            tests = {test["test_metadata"]["name"] for test in _tests(manifest, model)}
            assert "never_null" in tests, name


def test_names_and_folders_agree(models: dict[str, dict[str, Any]]) -> None:
    for name, model in models.items():
        prefix = PREFIXES.get(_layer(model))
        if prefix is None:
            assert not name.startswith(tuple(PREFIXES.values())), name
        else:
            assert name.startswith(prefix), name
        if _layer(model) == "staging":
            assert name.startswith(f"stg_{model['fqn'][2]}__"), name


def test_each_model_has_a_yaml_of_its_own_beside_it(models: dict[str, dict[str, Any]]) -> None:
    for name, model in models.items():
        assert model["patch_path"].endswith(str(Path(model["original_file_path"]).with_suffix(".yml"))), name


def test_each_model_says_its_grain_and_describes_its_columns(models: dict[str, dict[str, Any]]) -> None:
    for name, model in models.items():
        assert model["description"].startswith("One row"), name
        assert model["columns"], name
        assert [c for c, column in model["columns"].items() if not column["description"]] == [], name


def test_marts_are_under_contract_with_the_promised_columns(models: dict[str, dict[str, Any]]) -> None:
    marts = {name: model for name, model in models.items() if _layer(model) == "marts"}
    assert set(marts) == set(PROMISED)
    for name, model in marts.items():
        # Of these a table is there already: they are written once, into gold.
        kinds = ("view",) if name in ("op_history", "op_latest_state") else ("table", "incremental")
        assert model["config"]["materialized"] in kinds, name
        assert model["config"]["contract"]["enforced"], name
        assert set(PROMISED[name].split()) - set(model["columns"]) == set(), name


def test_each_model_beyond_staging_has_a_key_and_a_unit_test(
    manifest: dict[str, Any], models: dict[str, dict[str, Any]]
) -> None:
    keys = {"unique", "unique_combination", "one_row"}
    unit_tested = {test["model"] for test in manifest["unit_tests"].values()}
    for name, model in models.items():
        if _layer(model) == "staging":
            continue
        assert {test["test_metadata"]["name"] for test in _tests(manifest, model)} & keys, name
        # It only puts three facts into one row.
        assert name in unit_tested or name == "warehouse_info", name


def test_what_decides_reads_nothing_of_an_earlier_build(models: dict[str, dict[str, Any]]) -> None:
    """Its SQL is kept and run again elsewhere, where no earlier build has left a table."""
    found = ["op_verdicts"]
    for name in found:
        parents = (parent.rsplit(".", 1)[1] for parent in models[name]["depends_on"]["nodes"])
        found += [parent for parent in parents if parent in models and parent not in found]
    assert {"op_criteria", "int_datasets_known", "int_scan_moment"} <= set(found)
    assert {models[name]["config"]["materialized"] for name in found} <= {"table", "view"}


def test_the_analysts_file_lists_what_is_in_it(manifest: dict[str, Any]) -> None:
    exposures = {exposure["name"]: exposure for exposure in manifest["exposures"].values()}
    listed = {parent.rsplit(".", 1)[1] for parent in exposures["analysts_file"]["depends_on"]["nodes"]}
    assert listed == set(gold_tables())
    assert exposures["published_inversions"]["type"] == "application"
    assert all(exposure["owner"]["name"] for exposure in exposures.values())


def test_the_first_page_of_the_docs_leads_to_models_and_lineage(manifest: dict[str, Any]) -> None:
    text = manifest["docs"]["doc.dagster_l2.__overview__"]["block_contents"]
    named = re.findall(r"#!/(?:model|seed)/([a-z_0-9.]+)", text)
    assert len(named) > 10
    assert set(named) <= set(manifest["nodes"])
    drawn = set(re.findall(r"#!/exposure/([\w.]+)", text))
    assert drawn == set(manifest["exposures"])


def test_the_sources_are_the_bronze_tables(manifest: dict[str, Any]) -> None:
    assert {source["name"] for source in manifest["sources"].values()} == set(SCHEMAS)


def test_the_states_of_the_rules_are_those_of_the_ledger() -> None:
    ledger = pytest.importorskip("dagster_l2.ledger", reason="The ledger is not there.")
    lines = (DBT_PROJECT / "seeds" / "states" / "state_rules.csv").read_text(encoding="utf-8").splitlines()
    assert {line.split(",")[0] for line in lines[1:]} == {str(state.value) for state in ledger.State}


def test_an_empty_store_builds_and_every_test_runs_in_one_of_the_two_parts(
    new_warehouse: Callable[[], Warehouse], manifest: dict[str, Any], models: dict[str, dict[str, Any]]
) -> None:
    warehouse = new_warehouse()
    ran: set[str] = set()
    for part in ("verdicts", "states"):
        warehouse.dbt("build", "--select", f"tag:{part}")
        results = json.loads((warehouse.folder / "target" / "run_results.json").read_text(encoding="utf-8"))
        statuses = {result["unique_id"]: result["status"] for result in results["results"]}
        assert set(statuses.values()) <= {"pass", "success", "no-op"}
        ran |= set(statuses)
    everything = {
        unique_id
        for unique_id, node in {**manifest["nodes"], **manifest["unit_tests"]}.items()
        if node["resource_type"] in ("model", "seed", "test", "unit_test")
    }
    assert everything - ran == set()
    for mart in PROMISED:
        expected = 1 if mart == "warehouse_info" else 0
        assert warehouse.query(f"select count(*) from {mart}") == [(expected,)], mart
    differ = {}
    for name, model in models.items():
        described = set(model["columns"])
        built = {column for (column,) in warehouse.query(f"select column_name from (describe {name})")}
        # Intermediate models that pass a record on describe what they add.
        passes_on = "other columns are those of" in " ".join(model["description"].split())
        if not (described <= built if passes_on else described == built):
            differ[name] = described ^ built
    assert differ == {}
