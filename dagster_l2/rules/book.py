"""A book of rules: the compiled models and the seeds that a verdict comes from, in the order they are built.

It is read from dbt's manifest after a build, and from what was kept of it; it is JSON in between.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

VERDICTS = "op_verdicts"
"""The model whose rows are the verdicts; what it needs is the book."""


@dataclass(frozen=True, slots=True)
class Seed:
    """A table of constants: its columns with their SQL types, and its rows."""

    name: str
    columns: dict[str, str]
    rows: list[list[Any]]


@dataclass(frozen=True, slots=True)
class Model:
    """A model: its compiled SQL, the names that it reads, and whether it is a view."""

    name: str
    sql: str
    needs: list[str]
    is_view: bool


@dataclass(frozen=True, slots=True)
class SeedTest:
    """SQL that finds the rows of a seed which cannot be, and in words what can."""

    seed: str
    column: str | None
    sql: str
    words: str


@dataclass(frozen=True, slots=True)
class RuleBook:
    """Everything a verdict comes from but the records.

    ``sources`` names the tables of bronze that the models read.
    """

    rule_version: str
    sources: list[str]
    seeds: list[Seed]
    models: list[Model]
    tests: list[SeedTest]

    @property
    def fingerprint(self) -> str:
        """SHA-256 over all of it but the version's name: two books with the same give the same verdicts."""
        content = {**asdict(self), "rule_version": None}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def seed(self, name: str) -> Seed:
        """The seed of that name."""
        return next(seed for seed in self.seeds if seed.name == name)

    def dependents(self, name: str) -> list[Model]:
        """The models that read ``name``, directly or through others, in the order they are built."""
        found, names = [], {name}
        for model in self.models:
            if names & set(model.needs):
                names.add(model.name)
                found.append(model)
        return found

    def to_json(self) -> str:
        """As JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """From what `to_json` gave."""
        content = json.loads(text)
        return cls(
            rule_version=content["rule_version"],
            sources=content["sources"],
            seeds=[Seed(**seed) for seed in content["seeds"]],
            models=[Model(**model) for model in content["models"]],
            tests=[SeedTest(**test) for test in content["tests"]],
        )


def read_book(manifest: Mapping[str, Any], connection: Any) -> RuleBook | None:
    """The book of the rules in force.

    Parameters
    ----------
    manifest
        dbt's manifest, written by a build of the models that decide (so that it has their compiled SQL).
    connection
        An open DuckDB connection to the warehouse of that build, for the rows of the seeds.

    Returns
    -------
    RuleBook or None
        None when that build did not build all of the models.
    """
    nodes = manifest["nodes"]
    order: dict[str, None] = {}
    target = next(key for key in nodes if key.startswith("model.") and key.endswith(f".{VERDICTS}"))
    _collect(nodes, target, order)
    if not all(nodes[key].get("compiled_code") for key in order if key.startswith("model.")):
        return None
    sources = sorted(
        manifest["sources"][key]["name"]
        for key in {need for name in order for need in _needs(nodes, name)}
        if key.startswith("source.")
    )
    seeds = [_seed(nodes[key]["name"], connection) for key in order if key.startswith("seed.")]
    models = [
        Model(
            name=nodes[key]["name"],
            sql=_without_database(nodes[key]),
            needs=[need.rsplit(".", 1)[1] for need in _needs(nodes, key)],
            is_view=nodes[key]["config"]["materialized"] == "view",
        )
        for key in order
        if key.startswith("model.")
    ]
    return RuleBook(
        rule_version=str(connection.execute("select rule_version from int_rule_version").fetchone()[0]),
        sources=sources,
        seeds=sorted(seeds, key=lambda seed: seed.name),
        models=models,
        tests=sorted(_tests(nodes, {seed.name for seed in seeds}), key=lambda test: (test.seed, test.sql)),
    )


def _needs(nodes: Mapping[str, Any], key: str) -> list[str]:
    return sorted(nodes[key].get("depends_on", {}).get("nodes", []))


def _collect(nodes: Mapping[str, Any], key: str, order: dict[str, None]) -> None:
    """Put a node behind all that it needs."""
    for need in _needs(nodes, key):
        if need in nodes and need not in order:
            _collect(nodes, need, order)
    order[key] = None


def _without_database(node: Mapping[str, Any]) -> str:
    # The file that the build ran in gave the database its name; elsewhere it has another.
    sql: str = node["compiled_code"]
    return sql.replace(f'"{node["database"]}".', "").strip()


def _seed(name: str, connection: Any) -> Seed:
    cursor = connection.execute(f'select * from main."{name}" order by all')
    columns = {column[0]: str(column[1]) for column in cursor.description}
    return Seed(name, columns, [list(row) for row in cursor.fetchall()])


def _tests(nodes: Mapping[str, Any], seeds: set[str]) -> list[SeedTest]:
    found = []
    for node in nodes.values():
        needs = node.get("depends_on", {}).get("nodes", [])
        if node["resource_type"] != "test" or len(needs) != 1 or needs[0].rsplit(".", 1)[1] not in seeds:
            continue
        if node.get("compiled_code"):
            words = str(node.get("description") or "")
            seed = needs[0].rsplit(".", 1)[1]
            found.append(SeedTest(seed, node.get("column_name"), _without_database(node), words))
    return found
