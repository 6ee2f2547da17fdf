"""Bringing the state database to the newest schema, safely when several processes open it at once.

What each step does is in ``migrations/versions``.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from dagster_l2.ledger.errors import LedgerUnavailable

VERSION_TABLE = "alembic_version"

_MIGRATION_LOCK = 0x6C32_6462  # any number; the same for all that migrate


def config(connection: sa.Connection | None = None, schema: str | None = None) -> Config:
    """Alembic's settings for the ledger, with the connection that its ``env.py`` works on."""
    settings = Config()
    folder = str(Path(__file__).parent / "migrations").replace("%", "%%")
    settings.set_main_option("script_location", folder)
    settings.set_main_option("path_separator", "os")
    settings.attributes.update(connection=connection, schema=schema)
    return settings


def head() -> str:
    """The newest revision this code knows."""
    return str(ScriptDirectory.from_config(config()).get_current_head())


def revision(connection: sa.Connection, schema: str | None) -> str | None:
    """The revision of the database, None for an empty one."""
    if not sa.inspect(connection).has_table(VERSION_TABLE, schema=schema):
        return None
    options = {"version_table": VERSION_TABLE, "version_table_schema": schema}
    return MigrationContext.configure(connection, opts=options).get_current_revision()


def upgrade(engine: sa.Engine, schema: str | None, place: str) -> None:
    """Run what is missing up to the newest revision, in one transaction.

    Raises
    ------
    LedgerUnavailable
        When the database is at a revision this code doesn't know.
    """
    with engine.connect() as connection:
        if revision(connection, schema) == head():
            return
    with engine.connect().execution_options(l2_writing=True) as connection, connection.begin():
        if schema is not None:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
            if schema not in sa.inspect(connection).get_schema_names():
                connection.execute(sa.schema.CreateSchema(schema))
        present = revision(connection, schema)
        known = {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}
        if present is not None and present not in known:
            raise LedgerUnavailable(
                f"The ledger in {place} was made by a newer version (revision {present});"
                " install that version."
            )
        command.upgrade(config(connection, schema), "head")
