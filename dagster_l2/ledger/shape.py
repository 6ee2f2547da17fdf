"""The database compared with what this code would make: tables, columns, checks, guards, edges.

Nothing is changed; each difference is one sentence. The rows of the histories are not looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from dagster_l2.ledger import guards
from dagster_l2.ledger.migrate import VERSION_TABLE
from dagster_l2.ledger.states import EDGES
from dagster_l2.ledger.tables import NEW_INVERSION_INDEX, metadata


def shape_findings(
    connection: sa.Connection, schema: str | None, others: Sequence[sa.Table] = ()
) -> list[str]:
    """What of the schema is not as it should be, ``others`` being tables of other rooms in it."""
    wanted = sa.MetaData()
    for table in (*metadata.sorted_tables, *others):
        table.to_metadata(wanted, schema=schema)  # type: ignore[arg-type]  # None is documented
    options = connection.get_execution_options().get("schema_translate_map")
    connection.execution_options(schema_translate_map=None)  # the schema is in the names here
    try:
        return list(_findings(connection, schema, wanted))
    finally:
        connection.execution_options(schema_translate_map=options)


def has_columns(connection: sa.Connection, schema: str | None, tables: Sequence[sa.Table]) -> bool:
    """Whether the rows can be read: every table is there with every column."""
    look = sa.inspect(connection)
    return all(
        look.has_table(table.name, schema=schema)
        and {column["name"] for column in look.get_columns(table.name, schema=schema)}
        >= {column.name for column in table.c}
        for table in tables
    )


def _findings(connection: sa.Connection, schema: str | None, wanted: sa.MetaData) -> Iterator[str]:
    is_whole = has_columns(connection, schema, wanted.sorted_tables)
    yield from _schema(connection, wanted, schema)
    yield from _constraints(connection, wanted, schema)
    if is_whole:
        yield from _edges(connection, schema)
    if schema is None:
        yield from _file(connection)
        yield from _compared(_sqlite_wanted(), _sqlite_found(connection))
        return
    yield from _compared(_postgresql_wanted(schema), _postgresql_found(connection, schema))
    if is_whole:
        yield from _sequences(connection, wanted, schema)


def _file(connection: sa.Connection) -> Iterator[str]:
    for (said,) in connection.exec_driver_sql("PRAGMA quick_check(20)"):
        if said != "ok":
            yield f"The file is damaged: {said}."


def _schema(connection: sa.Connection, wanted: sa.MetaData, schema: str | None) -> Iterator[str]:
    from alembic.autogenerate import compare_metadata
    from alembic.runtime.migration import MigrationContext

    options = {
        "version_table": VERSION_TABLE,
        "version_table_schema": schema,
        "include_schemas": schema is not None,
        "include_name": lambda name, kind, _parents: kind != "schema" or name == schema,
        # Made by the guards from the edges, so it is in no table, and compared with them.
        "include_object": lambda _o, name, _k, _r, _c: name != NEW_INVERSION_INDEX,
        "compare_server_default": False,
    }
    for difference in compare_metadata(MigrationContext.configure(connection, opts=options), wanted):
        for step in difference if isinstance(difference, list) else [difference]:
            yield f"{_in_words(step)}."


def _in_words(step: tuple[Any, ...]) -> str:
    """One of Alembic's steps from the database to the tables, told as a difference."""
    kind = step[0]
    if kind in ("add_table", "remove_table"):
        return f"Table {step[1].name} {_there(kind)}"
    if kind in ("add_column", "remove_column"):
        return f"Column {step[2]}.{step[3].name} {_there(kind)}"
    if kind.startswith("modify_"):
        *_, before, after = step
        return f"Column {step[2]}.{step[3]} has {kind.removeprefix('modify_')} {before}, not {after}"
    if kind.startswith(("add_", "remove_")):
        what = kind.split("_", 1)[1].replace("fk", "foreign key")
        return f"The {what} {step[1].name} of table {step[1].table.name} {_there(kind)}"
    return f"The schema differs: {step}"


def _there(kind: str) -> str:
    return "is missing" if kind.startswith("add") else "is not one of the ledger"


def _constraints(connection: sa.Connection, wanted: sa.MetaData, schema: str | None) -> Iterator[str]:
    """Check constraints, which Alembic doesn't compare: by the words that they allow."""
    look = sa.inspect(connection)
    for table in wanted.sorted_tables:
        if not look.has_table(table.name, schema=schema):
            continue
        found = [
            _literals(check["sqltext"]) for check in look.get_check_constraints(table.name, schema=schema)
        ]
        for check in table.constraints:
            if isinstance(check, sa.CheckConstraint) and _literals(str(check.sqltext)) not in found:
                yield f"The check ({check.sqltext}) of table {table.name} is missing or another."


def _literals(sql: str) -> set[str]:
    return set(re.findall(r"'([^']*)'", sql))


def _edges(connection: sa.Connection, schema: str | None) -> Iterator[str]:
    table = sa.table("op_edges", sa.column("from_state"), sa.column("to_state"), schema=schema)
    found = {(start, end) for start, end in connection.execute(sa.select(table))}
    wanted = {(edge.from_state or "", str(edge.to_state)) for edge in EDGES}
    for start, end in sorted(wanted - found):
        yield f"The table of edges lacks the step from {start or 'nothing'} to {end}."
    for start, end in sorted(found - wanted):
        yield f"The table of edges has a step from {start or 'nothing'} to {end} that is none."


def _compared(wanted: dict[str, str], found: dict[str, str]) -> Iterator[str]:
    """Guards by what they are called, with their definitions."""
    for name, definition in wanted.items():
        if name not in found:
            yield f"The {name} is missing."
        elif found[name] != definition:
            yield f"The {name} is not the one that this version makes: {found[name]}"
    for name in sorted(found.keys() - wanted.keys()):
        yield f"The {name} is not one of the ledger's."


def _one_line(sql: str) -> str:
    return " ".join(sql.replace('"', "").split())


def _sqlite_wanted() -> dict[str, str]:
    wanted = {}
    for statement in guards.statements("sqlite", None):
        made = re.match(r"CREATE (?:UNIQUE )?(TRIGGER|INDEX) (\w+)", statement)
        if made:
            wanted[f"{made[1].lower()} {made[2]}"] = statement
    return wanted


def _sqlite_found(connection: sa.Connection) -> dict[str, str]:
    query = "SELECT type, name, sql FROM sqlite_master WHERE type = 'trigger' OR name = ?"
    rows = connection.exec_driver_sql(query, (NEW_INVERSION_INDEX,))
    return {f"{kind} {name}": sql for kind, name, sql in rows}


_TRIGGER = re.compile(
    r"CREATE TRIGGER (\w+) (BEFORE|AFTER) ([A-Z ]+) ON (\S+) FOR EACH (\w+) EXECUTE FUNCTION (\S+)\(\)"
)
_FUNCTION = re.compile(r"CREATE (?:OR REPLACE )?FUNCTION (\S+)\(\).* AS \$guard\$(.*)\$guard\$", re.DOTALL)
_INDEX = re.compile(r"CREATE UNIQUE INDEX (\w+) ON (\S+)(?: USING btree)? \((\w+)\) WHERE (.*)", re.DOTALL)


def _trigger(statement: str) -> str:
    """A trigger's definition with its events in one order: PostgreSQL gives them in another."""
    made = _TRIGGER.match(_one_line(statement))
    if made is None:
        return _one_line(statement)
    events = " OR ".join(sorted(made[3].split(" OR ")))
    return f"{made[2]} {events} ON {made[4]} FOR EACH {made[5]} EXECUTE FUNCTION {made[6]}()"


def _index(statement: str) -> str:
    """A partial index's definition without what PostgreSQL adds to its condition."""
    made = _INDEX.match(_one_line(statement))
    if made is None:
        return _one_line(statement)
    condition = re.sub(r"::text|[()\[\]]", "", made[4]).replace("= ANY ARRAY", "IN ")
    return f"{made[2]} {made[3]} {' '.join(condition.split())}"


def _postgresql_wanted(schema: str) -> dict[str, str]:
    wanted = {}
    for statement in guards.statements("postgresql", schema):
        line = _one_line(statement)
        if made := _TRIGGER.match(line):
            wanted[f"trigger {made[1]}"] = f"always {_trigger(line)}"
        elif made := _FUNCTION.match(statement):
            name = made[1].replace('"', "").split(".")[-1]
            wanted[f"function {name}"] = f"plpgsql {made[2].strip()}"
        elif made := _INDEX.match(line):
            wanted[f"index {made[1]}"] = _index(line)
    return wanted


_ENABLED = {"A": "always", "O": "not always enabled", "D": "disabled", "R": "on replicas only"}
_TRIGGERS = """
    SELECT tgname, tgenabled::text, pg_get_triggerdef(t.oid) FROM pg_trigger t
    JOIN pg_class c ON c.oid = tgrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname = :schema AND relname = ANY(:tables) AND NOT tgisinternal
"""
_FUNCTIONS = """
    SELECT proname, lanname, prosrc, prosecdef, proconfig FROM pg_proc p
    JOIN pg_language l ON l.oid = prolang JOIN pg_namespace n ON n.oid = pronamespace
    WHERE nspname = :schema AND proname = ANY(:functions)
"""
_INDEXES = """
    SELECT relname, pg_get_indexdef(i.indexrelid), indisvalid FROM pg_index i
    JOIN pg_class c ON c.oid = indexrelid JOIN pg_namespace n ON n.oid = relnamespace
    WHERE nspname = :schema AND relname = :index
"""
_RULES = "SELECT tablename, rulename FROM pg_rules WHERE schemaname = :schema AND tablename = ANY(:tables)"


def _postgresql_found(connection: sa.Connection, schema: str) -> dict[str, str]:
    functions = [name.split(" ")[1] for name in _postgresql_wanted(schema) if name.startswith("function ")]
    names: dict[str, Any] = {
        "schema": schema,
        "tables": [*guards.APPEND_ONLY, "op_edges"],
        "functions": functions,
        "index": NEW_INVERSION_INDEX,
    }
    found = {}
    for name, enabled, definition in connection.execute(sa.text(_TRIGGERS), names):
        found[f"trigger {name}"] = f"{_ENABLED.get(enabled, enabled)} {_trigger(definition)}"
    for name, language, source, is_definer, settings in connection.execute(sa.text(_FUNCTIONS), names):
        extra = f" (security definer: {is_definer}, {settings})" if is_definer or settings else ""
        found[f"function {name}"] = f"{language} {source.strip()}{extra}"
    for name, definition, is_valid in connection.execute(sa.text(_INDEXES), names):
        found[f"index {name}"] = _index(definition) if is_valid else "not valid"
    for table, name in connection.execute(sa.text(_RULES), names):
        found[f"rule {name} on {table}"] = ""
    return found


def _sequences(connection: sa.Connection, wanted: sa.MetaData, schema: str) -> Iterator[str]:
    """Sequences of ids that are behind the ids that are there: the next append would fail."""
    for table in wanted.sorted_tables:
        column = table.autoincrement_column
        if column is None or column.identity is None:
            continue
        query = (
            "SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence(:table, :column)::regclass), 0)"
        )
        place = {"table": f'"{schema}"."{table.name}"', "column": column.name}
        last = connection.execute(sa.text(query), place).scalar()
        highest = connection.execute(sa.select(sa.func.max(column))).scalar() or 0
        if last is not None and highest > last:
            yield f"The sequence of {table.name}.{column.name} is at {last}, below the highest id {highest}."
