"""GraphQL over plain records: graphql-core parses, validates and coerces; answering is a projection.

The general executor of graphql-core resolves field by field, which for 65 fields of many thousand records is
the slowest part of a scan; it is used for introspection only. What a field means is in ``catalog``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import Any

from graphql import (
    DocumentNode,
    ExecutionResult,
    FieldNode,
    FragmentDefinitionNode,
    GraphQLError,
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLScalarType,
    GraphQLSchema,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    build_schema,
    execute,
    get_named_type,
    is_non_null_type,
    parse,
    validate,
)
from graphql.execution.collect_fields import collect_fields, collect_sub_fields
from graphql.execution.values import get_argument_values, get_variable_values
from graphql.utilities import get_operation_root_type

from dagster_l2.store.server.moments import asked_moment
from dagster_l2.store.server.records import Row
from dagster_l2.store.server.standins import STAND_INS, StandIn

Resolver = Callable[[Mapping[str, Any]], Any]
Answer = dict[str, Any]

_INTROSPECTION = ("__schema", "__type")
_MAX_ERRORS = 20


def load_schema() -> GraphQLSchema:
    """The schema of the store, as far as the local store serves it."""
    schema = build_schema(files(__package__).joinpath("schema.graphql").read_text(encoding="utf-8"))
    date_time = schema.type_map["DateTime"]
    assert isinstance(date_time, GraphQLScalarType)
    date_time.parse_value = asked_moment  # type: ignore[method-assign]
    return schema


@dataclass
class _Projection:
    """What is selected from one record."""

    plain: list[tuple[str, str]] = field(default_factory=list)
    stand_ins: list[tuple[str, StandIn]] = field(default_factory=list)
    constants: dict[str, str] = field(default_factory=dict)
    nested: list[tuple[str, _Projection]] = field(default_factory=list)
    required: list[tuple[str, str]] = field(default_factory=list)

    def of(self, row: Row) -> Answer:
        get = row.get
        out = {alias: get(name) for alias, name in self.plain}
        for alias, stand_in in self.stand_ins:
            if out[alias] is None:
                out[alias] = stand_in(row)
        out.update(self.constants)
        for alias, projection in self.nested:
            out[alias] = [projection.of(inner) for inner in out[alias] or ()]
        return out


@dataclass(frozen=True)
class _Document:
    operations: Mapping[str, OperationDefinitionNode]
    fragments: dict[str, FragmentDefinitionNode]


@dataclass(frozen=True)
class _Request:
    document: _Document
    operation: OperationDefinitionNode
    raw_variables: dict[str, Any]
    variables: dict[str, Any]
    resolvers: Mapping[str, Resolver]


class Engine:
    """Answer GraphQL requests.

    Parameters
    ----------
    strict_nulls
        Whether null in a field that is never null is a GraphQL error, as the specification wants. If not,
        the null is served, so that a client can be shown a record that breaks the store's own promise.
    """

    def __init__(self, *, strict_nulls: bool = False) -> None:
        self.schema = load_schema()
        self._strict_nulls = strict_nulls
        self._document = lru_cache(maxsize=256)(self._read)

    def types_of(self, type_name: str) -> dict[str, str]:
        """Name to GraphQL type of a type's fields, without marks of nullability."""
        record_type = self.schema.type_map[type_name]
        assert isinstance(record_type, GraphQLObjectType | GraphQLInputObjectType)
        return {name: str(item.type).replace("!", "") for name, item in record_type.fields.items()}

    def answer(
        self,
        query: str,
        variables: Mapping[str, Any] | None,
        operation_name: str | None,
        resolvers: Mapping[str, Resolver],
    ) -> tuple[list[str], Answer]:
        """Answer one request.

        Parameters
        ----------
        query, variables, operation_name
            As the body of the request has them.
        resolvers
            By top-level field: from coerced arguments to a record or a sequence of records. A resolver may
            raise `GraphQLError`.

        Returns
        -------
        names
            The top-level fields that were asked for; none when the request could not be understood.
        answer
            ``data`` and ``errors`` as GraphQL words them.
        """
        try:
            request = self._understand(query, variables, operation_name, resolvers)
            if isinstance(request, list):
                return [], {"errors": [error.formatted for error in request]}
            root = get_operation_root_type(self.schema, request.operation)
            top = collect_fields(
                self.schema,
                request.document.fragments,
                request.variables,
                root,
                request.operation.selection_set,
            )
        except GraphQLError as error:
            return [], {"errors": [error.formatted]}
        except RecursionError:
            return [], {"errors": [{"message": "The query is nested too deeply."}]}
        names = [nodes[0].name.value for nodes in top.values()]
        try:
            return names, {
                "data": {alias: self._field(request, root, alias, nodes) for alias, nodes in top.items()}
            }
        except GraphQLError as error:
            # Every top-level field is non-null, so an error in one leaves no data at all.
            return names, {"data": None, "errors": [error.formatted]}

    def _understand(
        self,
        query: str,
        variables: Mapping[str, Any] | None,
        operation_name: str | None,
        resolvers: Mapping[str, Resolver],
    ) -> _Request | list[GraphQLError]:
        document = self._document(query)
        if isinstance(document, list):
            return document
        operation = _operation(document, operation_name)
        raw = dict(variables or {})
        coerced = get_variable_values(
            self.schema, operation.variable_definitions or (), raw, max_errors=_MAX_ERRORS
        )
        if isinstance(coerced, list):
            return coerced
        return _Request(document, operation, raw, coerced, resolvers)

    def _read(self, query: str) -> _Document | list[GraphQLError]:
        document = parse(query)
        errors = validate(self.schema, document, max_errors=_MAX_ERRORS)
        if errors:
            return errors
        operations = [item for item in document.definitions if isinstance(item, OperationDefinitionNode)]
        fragments = [item for item in document.definitions if isinstance(item, FragmentDefinitionNode)]
        return _Document(
            {item.name.value if item.name else "": item for item in operations},
            {item.name.value: item for item in fragments},
        )

    def _field(self, request: _Request, root: GraphQLObjectType, alias: str, nodes: list[FieldNode]) -> Any:
        name = nodes[0].name.value
        if name == "__typename":
            return root.name
        if name in _INTROSPECTION:
            return self._introspect(request, alias, nodes)
        definition = root.fields[name]
        arguments = get_argument_values(definition, nodes[0], request.variables)
        try:
            found = request.resolvers[name](arguments)
        except GraphQLError as error:
            raise GraphQLError(error.message, nodes, path=[alias]) from None
        record_type = get_named_type(definition.type)
        assert isinstance(record_type, GraphQLObjectType), "the schema has no other"
        projection = self._projection(request, record_type, nodes)
        one = isinstance(found, dict)
        out = [projection.of(row) for row in ([found] if one else found)]
        if self._strict_nulls:
            _refuse_nulls(projection, record_type, out, alias, nodes, one=one)
        return out[0] if one else out

    def _projection(
        self, request: _Request, record_type: GraphQLObjectType, nodes: list[FieldNode]
    ) -> _Projection:
        out = _Projection()
        stand_ins = STAND_INS.get(record_type.name, {})
        selected = collect_sub_fields(
            self.schema, request.document.fragments, request.variables, record_type, nodes
        )
        for alias, inner in selected.items():
            name = inner[0].name.value
            out.plain.append((alias, name))
            if name == "__typename":
                out.constants[alias] = record_type.name
                continue
            field_type = record_type.fields[name].type
            if name in stand_ins:
                out.stand_ins.append((alias, stand_ins[name]))
            if is_non_null_type(field_type):
                out.required.append((alias, name))
            named = get_named_type(field_type)
            if isinstance(named, GraphQLObjectType):
                out.nested.append((alias, self._projection(request, named, inner)))
        return out

    def _introspect(self, request: _Request, alias: str, nodes: list[FieldNode]) -> Any:
        operation = OperationDefinitionNode(
            operation=OperationType.QUERY,
            variable_definitions=request.operation.variable_definitions,
            selection_set=SelectionSetNode(selections=tuple(nodes)),
            directives=(),
        )
        document = DocumentNode(definitions=(operation, *request.document.fragments.values()))
        result = execute(self.schema, document, variable_values=request.raw_variables)
        assert isinstance(result, ExecutionResult), "nothing here is asynchronous"
        if result.errors or result.data is None:
            raise (result.errors or [GraphQLError("The schema could not be described.")])[0]
        return result.data[alias]


def _refuse_nulls(
    projection: _Projection,
    record_type: GraphQLObjectType,
    records: list[Answer],
    alias: str,
    nodes: list[FieldNode],
    *,
    one: bool,
) -> None:
    """Raise for the first null in a field that is never null."""
    for number, record in enumerate(records):
        for name_in_answer, name in projection.required:
            if record[name_in_answer] is None:
                path: list[str | int] = [alias, name_in_answer] if one else [alias, number, name_in_answer]
                message = f"Cannot return null for non-nullable field {record_type.name}.{name}."
                raise GraphQLError(message, nodes, path=path)


def _operation(document: _Document, name: str | None) -> OperationDefinitionNode:
    if name is None:
        if len(document.operations) != 1:
            raise GraphQLError("Must provide operation name if query contains multiple operations.")
        return next(iter(document.operations.values()))
    if name not in document.operations:
        raise GraphQLError(f"Unknown operation named '{name}'.")
    return document.operations[name]
