"""The arrows between the rooms, and the rules of the house that a reader relies on."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

from dagster_l2.ledger import Ledger

REPOSITORY = Path(__file__).resolve().parent.parent
PACKAGE = REPOSITORY / "dagster_l2"

ROOMS = {
    "store",
    "sources",
    "batch",
    "lake",
    "ledger",
    "inputs",
    "products",
    "publishing",
    "rules",
    "service",
}
LEAF = "base"
ARROWS: dict[str, set[str]] = {
    "store": set(),
    "lake": set(),
    "ledger": set(),
    "products": set(),
    "batch": {"lake"},
    "inputs": {"batch"},
    "sources": {"store", "batch", "lake"},
    "publishing": {"store", "ledger"},
    "rules": {"lake"},
    "service": {"ledger"},
}
# What composes the rooms, lowest first; each knows those before it, and the settings. Dagster's records of
# failed runs are looked at by the last alone.
COMPOSITIONS = ("pipeline", "answers", "operations")
# The migrations make the tables of every room, so that one database has one history of its schema.
EXCEPTIONS = {("ledger/migrations/env.py", "batch")}


def imports(path: Path, *, names: bool = True) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            if names:
                found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def modules_of(room: str) -> list[Path]:
    return sorted((PACKAGE / room).rglob("*.py"))


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_imports_only_along_the_arrows(room: str) -> None:
    for path in modules_of(room):
        for name in imports(path):
            parts = name.split(".")
            assert parts[0] not in {"dagster", "dagster_dbt", "dagster_duckdb"}, f"{path} imports {name}"
            if parts[0] != "dagster_l2" or len(parts) < 2:
                continue
            if parts[1] in {LEAF, room}:
                continue
            where = str(path.relative_to(PACKAGE))
            if (where, parts[1]) in EXCEPTIONS:
                continue
            assert parts[1] in ARROWS[room], f"{where} imports {name}"


def test_what_all_rooms_use_knows_no_room() -> None:
    for path in modules_of(LEAF):
        for name in imports(path):
            parts = name.split(".")
            assert parts[0] != "dagster_l2" or parts[1:2] in ([], [LEAF]), f"{path} imports {name}"


@pytest.mark.parametrize("level", range(len(COMPOSITIONS)))
def test_compositions_know_what_is_below_them(level: int) -> None:
    known = ROOMS | {LEAF, "settings", "handlers", *COMPOSITIONS[: level + 1]}
    for path in modules_of(COMPOSITIONS[level]):
        for name in imports(path):
            parts = name.split(".")
            is_dagster = parts[0] in {"dagster", "dagster_dbt", "dagster_duckdb"}
            assert not is_dagster or COMPOSITIONS[level] == "operations", f"{path} imports {name}"
            assert parts[0] != "dagster_l2" or len(parts) < 2 or parts[1] in known, f"{path} imports {name}"


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_a_room_is_entered_by_its_door(room: str) -> None:
    for other in sorted(PACKAGE.rglob("*.py")):
        if (PACKAGE / room) in other.parents:
            continue
        for name in imports(other, names=False):
            parts = name.split(".")
            if parts[:2] != ["dagster_l2", room] or len(parts) < 3:
                continue
            where = str(other.relative_to(PACKAGE))
            if parts[1:3] == ["store", "server"] or (where, room) in EXCEPTIONS:
                continue
            pytest.fail(f"{where} goes past the door of {room}: {name}")


def test_no_room_reads_the_environment() -> None:
    for room in ROOMS:
        for path in modules_of(room):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"os\.environ|getenv|dagster_l2\.settings", text), path


def test_every_module_says_what_belongs_in_it() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if tree.body:
            assert ast.get_docstring(tree), path


def test_the_code_location_is_named_once() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]
    workspace = yaml.safe_load((REPOSITORY / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    names = {
        project["dg"]["project"]["code_location_target_module"],
        project["dagster"]["module_name"],
        workspace["module_name"],
    }
    assert names == {"dagster_l2.definitions"}


def test_the_lock_holds_names_and_versions_only() -> None:
    lines = (REPOSITORY / "requirements.lock").read_text().splitlines()
    assert lines
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line) for line in lines)


HEAVY = {
    "dagster",
    "polars",
    "pyarrow",
    "numpy",
    "alembic",
    "httpx",
    "astropy",
    "matplotlib",
    "fastapi",
    "uvicorn",
}


@pytest.mark.parametrize(
    ("code", "unwanted", "says"),
    [
        ("from dagster_l2.cli import _run; _run(['--help'])", HEAVY | {"sqlalchemy", "duckdb"}, "queue"),
        ("from dagster_l2.cli import _run; print(_run(['queue']))", HEAVY, "1"),
        ("import dagster_l2.definitions", {"alembic", "astropy", "matplotlib", "fastapi"}, ""),
    ],
    ids=["l2 --help", "l2 queue", "the code location"],
)
def test_what_starts_often_loads_only_what_it_uses(
    code: str, unwanted: set[str], says: str, data: Path
) -> None:
    Ledger.open(f"sqlite:///{data}/l2.sqlite").close()
    ask = f"import sys; {code}; print(sorted({unwanted!r} & set(sys.modules)), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True)
    assert done.stderr.splitlines()[-1] == "[]"
    assert says in done.stdout


def test_tests_of_a_group_stay_together(request: pytest.FixtureRequest) -> None:
    """Some versions of pytest and pytest-xdist do not agree on it, and say nothing."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        pytest.skip("one process has no groups")
    assert request.node.nodeid.endswith("@tests/test_rooms.py")
