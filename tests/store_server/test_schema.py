"""What the local store's schema promises is what the public schema of the real store says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from graphql import GraphQLInputObjectType, GraphQLNamedType, GraphQLObjectType, print_ast

from dagster_l2.store.fields import RECORD_TYPES, RecordType
from dagster_l2.store.server.engine import load_schema

# Their types are other views of the observatory, which the local store does not hold.
LEFT_OUT = {
    "ProcessingCandidateViewResponse": {
        "frameReceiptAccounts",
        "processingCandidateCalibrations",
        "recipeInstances",
    }
}
SCHEMA = load_schema()
OURS = [
    item
    for name, item in sorted(SCHEMA.type_map.items())
    if isinstance(item, GraphQLObjectType | GraphQLInputObjectType) and not name.startswith("__")
]


@pytest.fixture(scope="module")
def public_schema(real_records: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((real_records / "schema_types.json").read_text(encoding="utf-8"))
    return content


def _fields(item: GraphQLNamedType) -> dict[str, dict[str, Any]]:
    """Our fields, written as the file of the public schema writes them."""
    out: dict[str, dict[str, Any]] = {}
    if isinstance(item, GraphQLInputObjectType):
        for name, argument in item.fields.items():
            out[name] = {"type": str(argument.type)}
            if argument.ast_node is not None and argument.ast_node.default_value is not None:
                out[name]["default"] = print_ast(argument.ast_node.default_value)
    elif isinstance(item, GraphQLObjectType):
        for name, field in item.fields.items():
            out[name] = {"type": str(field.type)}
            if field.args:
                out[name]["args"] = [[key, str(value.type)] for key, value in field.args.items()]
    return out


@pytest.mark.parametrize("item", OURS, ids=lambda item: item.name)
def test_each_type_is_the_public_one(item: GraphQLNamedType, public_schema: dict[str, Any]) -> None:
    public, ours = public_schema[item.name]["fields"], _fields(item)
    if item.name in ("Query", "Mutation"):
        assert ours == {name: public[name] for name in ours}
    else:
        left_out = LEFT_OUT.get(item.name, set())
        assert left_out <= set(public)
        assert ours == {name: field for name, field in public.items() if name not in left_out}


def test_the_queries_of_the_facts_are_there() -> None:
    assert SCHEMA.query_type is not None
    assert SCHEMA.mutation_type is not None
    assert set(SCHEMA.query_type.fields) == {
        "datasetInventories",
        "datasetInventoriesRecordCount",
        "datasetInventoryHistory",
        "datasetInventoryStatuses",
        "experimentDescriptions",
        "processingCandidates",
        "frameInventories",
        "objectInventories",
        "l2Inversions",
    }
    assert set(SCHEMA.mutation_type.fields) == {"createL2InversionInventory"}


@pytest.mark.parametrize("record_type", RECORD_TYPES, ids=lambda record_type: record_type.table)
def test_the_field_table_is_the_schema(record_type: RecordType) -> None:
    ours = _fields(SCHEMA.type_map[record_type.graphql_type])
    assert {field.name: {"type": field.graphql_type} for field in record_type.fields} == ours
