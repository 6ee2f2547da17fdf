"""The version of the rules changes with all that decides, seeds and SQL, and with nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import Any

import duckdb
import pytest
from warehouse_kit import DBT_PROJECT, Warehouse

DECIDING = ("op_verdicts",)


@pytest.fixture(scope="module")
def warehouse(tmp_path_factory: pytest.TempPathFactory) -> Warehouse:
    """The seeds, and a copy of the project whose SQL may be changed."""
    folder = tmp_path_factory.mktemp("rules")
    project = folder / "project"
    shutil.copytree(DBT_PROJECT, project, ignore=shutil.ignore_patterns("target", "logs"))
    warehouse = Warehouse(folder, project=project).create()
    warehouse.dbt(
        "build", "--select", "+int_rule_version", "--resource-type", "seed", "--resource-type", "model"
    )
    return warehouse


def _compiled(warehouse: Warehouse) -> str:
    file = "target/compiled/dagster_l2/models/intermediate/verdicts/int_rule_version.sql"
    return (warehouse.folder / file).read_text(encoding="utf-8")


@pytest.fixture
def version_now(warehouse: Warehouse) -> Callable[..., str]:
    """Change seeds in the database, see which version the model's SQL gives, and undo the change."""
    sql = _compiled(warehouse)

    def version(*statements: str) -> str:
        with duckdb.connect(str(warehouse.path)) as connection:
            connection.execute("begin")
            for statement in statements:
                connection.execute(statement)
            row = connection.execute(f"select rule_version from ({sql})").fetchone()
            connection.execute("rollback")
        assert row is not None
        return str(row[0])

    return version


@pytest.mark.parametrize(
    "change",
    [
        "update qualification_rules set min_health_fraction = 0.6",
        "update qualification_rules set quiet_days = 8",
        "update wanted_lines set is_required = true where line = 'ca_ii_854'",
        "update wanted_lines set estimate_margin_nm = 0.6 where line = 'na_i_d'",
        "delete from wanted_lines where line = 'na_i_d'",
        "insert into supported_instruments values ('CRYO-NIRSP')",
        "delete from criteria where criterion = 'gos'",
    ],
)
def test_each_change_of_a_seed_changes_the_version(version_now: Callable[..., str], change: str) -> None:
    before, after = version_now(), version_now(change)
    assert before.split(".")[0] == after.split(".")[0] == "2025-11"
    assert before != after


def test_neither_the_order_of_rows_nor_wording_changes_it(version_now: Callable[..., str]) -> None:
    reordered = (
        "create table other as select * from wanted_lines order by priority desc",
        "delete from wanted_lines",
        "insert into wanted_lines select * from other",
        "update criteria set rule = 'in other words'",
    )
    assert version_now(*reordered) == version_now()


def _edit(warehouse: Warehouse, file: str, old: str, new: str) -> None:
    path = warehouse.project / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def test_sql_that_decides_changes_it_and_comments_and_other_sql_do_not(warehouse: Warehouse) -> None:
    before = _compiled(warehouse)

    def compiled() -> str:
        warehouse.dbt("compile", "--select", "int_rule_version")
        return _compiled(warehouse)

    verdicts = "models/intermediate/verdicts"
    _edit(
        warehouse,
        f"{verdicts}/int_datasets_known.sql",
        "final as",
        "-- A remark.\n{# And  one more. #}\n\nfinal   as",
    )
    _edit(warehouse, "models/marts/verdicts/download_jobs.sql", "count(batch_id) as", "count(*) as")
    assert compiled() == before

    # Far above the verdict, a boundary of a criterion, and the formula that a macro writes.
    _edit(warehouse, f"{verdicts}/int_datasets_current.sql", "'ACTIVE'", "'DEPRECATED'")
    far_above = compiled()
    _edit(warehouse, "macros/solar_radius.sql", "206265", "206264")
    assert len({before, far_above, compiled()}) == 3


def test_nothing_that_decides_is_left_out(warehouse: Warehouse) -> None:
    """Seeds and macros are named in the model, since dbt's graph does not hold their content."""
    nodes = warehouse.manifest()["nodes"]
    found = [f"model.dagster_l2.{name}" for name in DECIDING]
    for unique_id in found:
        parents = nodes[unique_id]["depends_on"].get("nodes", [])
        found += [parent for parent in parents if parent in nodes and parent not in found]

    def reads(unique_ids: list[str]) -> set[str]:
        depends: list[dict[str, Any]] = [nodes[unique_id]["depends_on"] for unique_id in unique_ids]
        seeds = {p for d in depends for p in d.get("nodes", []) if p.startswith("seed.")}
        return seeds | {p for d in depends for p in d["macros"] if p.startswith("macro.dagster_l2.")}

    version = "model.dagster_l2.int_rule_version"
    assert all(f'"{name}"' in nodes[version]["raw_code"] for name in DECIDING)
    others = [unique_id for unique_id in found if unique_id.startswith("model.") and unique_id != version]
    assert len(others) > 10
    assert reads(others) - reads([version]) == set()
