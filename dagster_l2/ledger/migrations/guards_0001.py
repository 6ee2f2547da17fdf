"""The guards as revision 0001 made them. History: it never changes, and imports nothing that does."""

# ruff: noqa: S608 - DDL takes no parameters; every name in it is written here

from __future__ import annotations

import sqlalchemy as sa

_STATES = ["Discovered", "Invertible", "NotInvertible", "Preprocessed", "Working", "Inverted"]
_EDGES = (
    ("", "Discovered"),
    ("Discovered", "Invertible"),
    ("NotInvertible", "Invertible"),
    ("Discovered", "NotInvertible"),
    ("Invertible", "NotInvertible"),
    ("Preprocessed", "NotInvertible"),
    ("Invertible", "Preprocessed"),
    ("Preprocessed", "Invertible"),
    ("Preprocessed", "Working"),
    ("Working", "Preprocessed"),
    ("Working", "Inverted"),
    ("Inverted", "Working"),
    ("Inverted", "Published"),
    ("Published", "Invertible"),
    *((state, "Error") for state in _STATES),
    *(("Error", state) for state in _STATES),
)
_KEYS = {
    "op_transitions": "transition_id",
    "science_events": "event_id",
    "science_event_outcomes": "event_id",
    "op_annotations": "annotation_id",
    "batch_attempts": "attempt_id",
}
_TEXTS = {
    "append-only": "rows are only ever added to this table",
    "exists": "a row with this key is already there and stays as it is",
    "stale": "from_state is not the present state of the OP",
    "gap": "seq does not follow the last one of the OP",
    "edge": "there is no such step between states",
    "time": "occurred_at is before the last transition of the OP",
    "inversion": "the inversion id is missing, not the one of the OP, or out of place",
    "edges": "the table of edges changes only by a migration",
}
_UTC = "____-__-__T__:__:__.______+00:00"


def install(connection: sa.Connection, schema: str | None) -> None:
    """Fill the table of edges, make the index of new inversion ids, and put the guards in place."""
    edges = sa.table("op_edges", sa.column("from_state"), sa.column("to_state"), schema=schema)
    rows = [{"from_state": start, "to_state": end} for start, end in _EDGES]
    connection.execute(sa.insert(edges), rows)
    statements = _sqlite() if connection.dialect.name == "sqlite" else _postgresql(f'"{schema}".')
    for statement in statements:
        connection.exec_driver_sql(statement)


def remove(connection: sa.Connection, schema: str | None) -> None:
    """Take the guards away and empty the table of edges; the index stays."""
    if connection.dialect.name == "sqlite":
        tables = (*_KEYS, "op_edges")
        names = [f"{table}_no_{event}" for table in tables for event in ("update", "delete", "insert")]
        for name in (*names, "op_transitions_guard"):
            connection.exec_driver_sql(f"DROP TRIGGER {name}")
        connection.exec_driver_sql("DELETE FROM op_edges")
        return
    prefix = f'"{schema}".'
    for function in ("refuse_change", "refuse_edge", "guard_transition"):
        # CASCADE: with the triggers that call it.
        connection.exec_driver_sql(f"DROP FUNCTION {prefix}{function}() CASCADE")
    connection.exec_driver_sql(f"DELETE FROM {prefix}op_edges")


def _text(code: str) -> str:
    return f"l2-{code}: {_TEXTS[code]}"


def _new_inversion(row: str) -> str:
    return f"{row}to_state = 'Working' AND {row}from_state IN ('Preprocessed', 'Inverted')"


def _rules(differs: str, prefix: str) -> list[tuple[str, str]]:
    return [
        (f"NEW.from_state {differs} latest.to_state", "stale"),
        (f"NEW.seq {differs} COALESCE(latest.seq, 0) + 1", "gap"),
        (
            f"NOT EXISTS (SELECT 1 FROM {prefix}op_edges WHERE from_state = COALESCE(NEW.from_state, '')"
            " AND to_state = NEW.to_state)"
            f" OR NEW.from_state = 'Error' AND NEW.to_state {differs} latest.from_state",
            "edge",
        ),
        ("NEW.occurred_at < latest.occurred_at", "time"),
        (
            f"CASE WHEN {_new_inversion('NEW.')} THEN COALESCE(NEW.inversion_id, '') = ''"
            " WHEN NEW.to_state IN ('Working', 'Inverted', 'Published', 'Error')"
            f" THEN NEW.inversion_id {differs} latest.inversion_id"
            " ELSE NEW.inversion_id IS NOT NULL END",
            "inversion",
        ),
    ]


def _index(prefix: str) -> str:
    return (
        f"CREATE UNIQUE INDEX uq_op_transitions_new_inversion ON {prefix}op_transitions (inversion_id)"
        f" WHERE {_new_inversion('')}"
    )


def _sqlite() -> list[str]:
    statements = [_index("")]
    for table in (*_KEYS, "op_edges"):
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
        for table, key in _KEYS.items()
    ]
    rules = "".join(
        f" WHEN {condition} THEN RAISE(ABORT, '{_text(code)}')" for condition, code in _rules("IS NOT", "")
    )
    statements.append(
        "CREATE TRIGGER op_transitions_guard BEFORE INSERT ON op_transitions BEGIN"
        f" SELECT CASE{rules}"
        f" WHEN NEW.occurred_at NOT LIKE '{_UTC}' OR NEW.recorded_at NOT LIKE '{_UTC}'"
        f" THEN RAISE(ABORT, '{_text('time')}')"
        f" WHEN {_new_inversion('NEW.')} AND EXISTS (SELECT 1 FROM op_transitions"
        f" WHERE inversion_id = NEW.inversion_id AND {_new_inversion('')})"
        f" THEN RAISE(ABORT, '{_text('exists')}') END"
        " FROM (SELECT 1) LEFT JOIN (SELECT seq, from_state, to_state, occurred_at, inversion_id"
        " FROM op_transitions WHERE op_id = NEW.op_id ORDER BY seq DESC LIMIT 1) AS latest;"
        " END"
    )
    return statements


def _postgresql(prefix: str) -> list[str]:
    def refuse(code: str) -> str:
        return f"RAISE EXCEPTION USING ERRCODE = '23000', MESSAGE = '{_text(code)}'"

    def trigger(name: str, table: str, events: str, call: str) -> list[str]:
        return [
            f"CREATE TRIGGER {name} BEFORE {events} ON {prefix}{table} FOR EACH {call}",
            f"ALTER TABLE {prefix}{table} ENABLE ALWAYS TRIGGER {name}",
        ]

    def function(name: str, body: str) -> str:
        return f"CREATE FUNCTION {prefix}{name}() RETURNS trigger LANGUAGE plpgsql AS $guard$ {body} $guard$"

    statements = [
        _index(prefix),
        function("refuse_change", f"BEGIN {refuse('append-only')}; END"),
        function("refuse_edge", f"BEGIN {refuse('edges')}; END"),
    ]
    changes = "UPDATE OR DELETE OR TRUNCATE"
    for table in _KEYS:
        call = f"STATEMENT EXECUTE FUNCTION {prefix}refuse_change()"
        statements += trigger(f"{table}_no_change", table, changes, call)
    call = f"STATEMENT EXECUTE FUNCTION {prefix}refuse_edge()"
    statements += trigger("op_edges_no_change", "op_edges", f"INSERT OR {changes}", call)
    rules = "".join(
        f" IF ({condition}) THEN {refuse(code)}; END IF;"
        for condition, code in _rules("IS DISTINCT FROM", prefix)
    )
    body = (
        "DECLARE latest record; BEGIN"
        " SELECT seq, from_state, to_state, occurred_at, inversion_id INTO latest"
        f" FROM {prefix}op_transitions WHERE op_id = NEW.op_id ORDER BY seq DESC LIMIT 1;"
        f"{rules} RETURN NEW; END"
    )
    statements.append(function("guard_transition", body))
    return statements + trigger(
        "op_transitions_guard", "op_transitions", "INSERT", f"ROW EXECUTE FUNCTION {prefix}guard_transition()"
    )
