"""The database's own rules, as triggers for SQLite and PostgreSQL, derived from the edges.

A refusal's text starts with ``l2-<code>:`` on both, so that ``database`` can tell them apart by `CODES`.
No tables: those are in ``tables`` and made by the migrations, which call `install` last.
"""

# ruff: noqa: S608 - DDL takes no parameters; every name in it is written in this package

from __future__ import annotations

import sqlalchemy as sa

from dagster_l2.ledger.states import EDGES, HAS_INVERSION, NEW_INVERSION, State
from dagster_l2.ledger.tables import NEW_INVERSION_INDEX

APPEND_ONLY: dict[str, str] = {
    "op_transitions": "transition_id",
    "science_events": "event_id",
    "science_event_outcomes": "event_id",
    "op_annotations": "annotation_id",
    "batch_attempts": "attempt_id",
}
"""Tables whose rows never change, with their key (SQLite's REPLACE deletes by it without a trigger)."""

CODES: dict[str, str] = {
    "append-only": "rows are only ever added to this table",
    "exists": "a row with this key is already there and stays as it is",
    "stale": "from_state is not the present state of the OP",
    "gap": "seq does not follow the last one of the OP",
    "edge": "there is no such step between states",
    "time": "occurred_at is before the last transition of the OP",
    "inversion": "the inversion id is missing, not the one of the OP, or out of place",
    "edges": "the table of edges changes only by a migration",
}

_UTC_TEXT = "____-__-__T__:__:__.______+00:00"


def install(connection: sa.Connection, schema: str | None) -> None:
    """Fill the table of edges from `EDGES` and put every guard in place.

    Parameters
    ----------
    schema : str or None
        The schema of the tables on PostgreSQL, None on SQLite.
    """
    edges = sa.table("op_edges", sa.column("from_state"), sa.column("to_state"), schema=schema)
    rows = [{"from_state": edge.from_state or "", "to_state": edge.to_state} for edge in EDGES]
    connection.execute(sa.insert(edges), rows)
    statements = _sqlite() if connection.dialect.name == "sqlite" else _postgresql(schema or "public")
    for statement in statements:
        connection.exec_driver_sql(statement)


def names(dialect: str) -> set[str]:
    """The triggers that must be there, for a check of a database."""
    events = ("insert", "update", "delete") if dialect == "sqlite" else ("change",)
    refusals = {f"{table}_no_{event}" for table in (*APPEND_ONLY, "op_edges") for event in events}
    return refusals | {"op_transitions_guard"}


def _text(code: str) -> str:
    return f"l2-{code}: {CODES[code]}"


def _list(states: tuple[State | None, ...]) -> str:
    return ", ".join(f"'{state}'" for state in states)


def _new_inversion(row: str) -> str:
    """SQL: the row enters Working with a new inversion id."""
    return f"{row}to_state = '{State.WORKING}' AND {row}from_state IN ({_list(NEW_INVERSION)})"


def _rules(differs: str, prefix: str) -> list[tuple[str, str]]:
    """The rules of a transition as (condition that refuses it, code), over ``NEW`` and ``latest``."""
    keeps = _list((*HAS_INVERSION, State.ERROR))
    return [
        (f"NEW.from_state {differs} latest.to_state", "stale"),
        (f"NEW.seq {differs} COALESCE(latest.seq, 0) + 1", "gap"),
        (
            f"NOT EXISTS (SELECT 1 FROM {prefix}op_edges WHERE from_state = COALESCE(NEW.from_state, '')"
            " AND to_state = NEW.to_state)"
            f" OR NEW.from_state = '{State.ERROR}' AND NEW.to_state {differs} latest.from_state",
            "edge",
        ),
        ("NEW.occurred_at < latest.occurred_at", "time"),
        (
            f"CASE WHEN {_new_inversion('NEW.')} THEN COALESCE(NEW.inversion_id, '') = ''"
            f" WHEN NEW.to_state IN ({keeps}) THEN NEW.inversion_id {differs} latest.inversion_id"
            " ELSE NEW.inversion_id IS NOT NULL END",
            "inversion",
        ),
    ]


def _new_inversion_index(schema: str) -> str:
    return (
        f"CREATE UNIQUE INDEX {NEW_INVERSION_INDEX} ON {schema}op_transitions (inversion_id)"
        f" WHERE {_new_inversion('')}"
    )


def _sqlite() -> list[str]:
    statements = [_new_inversion_index("")]
    for table in (*APPEND_ONLY, "op_edges"):
        code = "edges" if table == "op_edges" else "append-only"
        statements += [
            f"CREATE TRIGGER {table}_no_{event} BEFORE {event.upper()} ON {table}"
            f" BEGIN SELECT RAISE(ABORT, '{_text(code)}'); END"
            for event in ("update", "delete")
        ]
    statements.append(
        "CREATE TRIGGER op_edges_no_insert BEFORE INSERT ON op_edges"
        f" BEGIN SELECT RAISE(ABORT, '{_text('edges')}'); END"
    )
    statements += [
        f"CREATE TRIGGER {table}_no_insert BEFORE INSERT ON {table}"
        f" WHEN EXISTS (SELECT 1 FROM {table} WHERE {key} = NEW.{key})"
        f" BEGIN SELECT RAISE(ABORT, '{_text('exists')}'); END"
        for table, key in APPEND_ONLY.items()
    ]
    rules = "".join(
        f" WHEN {condition} THEN RAISE(ABORT, '{_text(code)}')" for condition, code in _rules("IS NOT", "")
    )
    # One lookup of the OP's latest row serves all rules: this trigger runs for every append.
    statements.append(
        "CREATE TRIGGER op_transitions_guard BEFORE INSERT ON op_transitions BEGIN"
        f" SELECT CASE{rules}"
        f" WHEN NEW.occurred_at NOT LIKE '{_UTC_TEXT}' OR NEW.recorded_at NOT LIKE '{_UTC_TEXT}'"
        f" THEN RAISE(ABORT, '{_text('time')}')"
        f" WHEN {_new_inversion('NEW.')} AND EXISTS (SELECT 1 FROM op_transitions"
        f" WHERE inversion_id = NEW.inversion_id AND {_new_inversion('')})"
        f" THEN RAISE(ABORT, '{_text('exists')}') END"
        " FROM (SELECT 1) LEFT JOIN (SELECT seq, from_state, to_state, occurred_at, inversion_id"
        " FROM op_transitions WHERE op_id = NEW.op_id ORDER BY seq DESC LIMIT 1) AS latest;"
        " END"
    )
    return statements


def _postgresql(schema: str) -> list[str]:
    prefix = f'"{schema}".'

    def refuse(code: str) -> str:
        return f"RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = '{_text(code)}'"

    def trigger(name: str, table: str, events: str, call: str) -> list[str]:
        # ALWAYS: also while a replication role is set, which switches ordinary triggers off.
        return [
            f"CREATE TRIGGER {name} BEFORE {events} ON {prefix}{table} FOR EACH {call}",
            f"ALTER TABLE {prefix}{table} ENABLE ALWAYS TRIGGER {name}",
        ]

    statements = [
        _new_inversion_index(prefix),
        f"CREATE FUNCTION {prefix}refuse_change() RETURNS trigger LANGUAGE plpgsql AS $guard$"
        f" BEGIN {refuse('append-only')}; END $guard$",
        f"CREATE FUNCTION {prefix}refuse_edge() RETURNS trigger LANGUAGE plpgsql AS $guard$"
        f" BEGIN {refuse('edges')}; END $guard$",
    ]
    changes = "UPDATE OR DELETE OR TRUNCATE"
    for table in APPEND_ONLY:
        call = f"STATEMENT EXECUTE FUNCTION {prefix}refuse_change()"
        statements += trigger(f"{table}_no_change", table, changes, call)
    call = f"STATEMENT EXECUTE FUNCTION {prefix}refuse_edge()"
    statements += trigger("op_edges_no_change", "op_edges", f"INSERT OR {changes}", call)
    rules = "".join(
        f" IF ({condition}) THEN {refuse(code)}; END IF;"
        for condition, code in _rules("IS DISTINCT FROM", prefix)
    )
    statements.append(
        f"CREATE FUNCTION {prefix}guard_transition() RETURNS trigger LANGUAGE plpgsql AS $guard$"
        " DECLARE latest record; BEGIN"
        " SELECT seq, from_state, to_state, occurred_at, inversion_id INTO latest"
        f" FROM {prefix}op_transitions WHERE op_id = NEW.op_id ORDER BY seq DESC LIMIT 1;"
        f"{rules}"
        " RETURN NEW; END $guard$"
    )
    call = f"ROW EXECUTE FUNCTION {prefix}guard_transition()"
    return statements + trigger("op_transitions_guard", "op_transitions", "INSERT", call)
