"""Bringing the state database to the newest schema, safely when several processes open it at once.

What each step does is in ``migrations/versions``. Alembic is loaded where there is something to do; looking
whether there is takes a query.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from dagster_l2.ledger.errors import LedgerUnavailable

if TYPE_CHECKING:
    from alembic.config import Config

VERSION_TABLE = "alembic_version"

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x6C32_6462  # any number; the same for all that migrate


def config(connection: sa.Connection | None = None, schema: str | None = None) -> Config:
    """Alembic's settings for the ledger, with the connection that its ``env.py`` works on."""
    from alembic.config import Config

    settings = Config()
    folder = str(_MIGRATIONS).replace("%", "%%")
    settings.set_main_option("script_location", folder)
    settings.set_main_option("path_separator", "os")
    settings.attributes.update(connection=connection, schema=schema)
    return settings


def revisions() -> list[str]:
    """The revisions this code knows, oldest first: the number that the file of each begins with."""
    return sorted(path.name.split("_")[0] for path in (_MIGRATIONS / "versions").glob("[0-9]*_*.py"))


def head() -> str:
    """The newest revision this code knows."""
    return revisions()[-1]


def check_known(written_at: str, what: str) -> None:
    """Refuse what was written at a revision of the schema that this code does not know.

    Raises
    ------
    LedgerUnavailable
        One sentence that names ``what``.
    """
    if written_at not in revisions():
        raise LedgerUnavailable(
            f"{what} was written by a newer version (revision {written_at}, and this one knows up to"
            f" {head()}); install that version."
        )


def revision(connection: sa.Connection, schema: str | None) -> str | None:
    """The revision of the database, None for an empty one."""
    if not sa.inspect(connection).has_table(VERSION_TABLE, schema=schema):
        return None
    version: sa.ColumnClause[str] = sa.column("version_num")
    query = sa.select(version).select_from(sa.table(VERSION_TABLE, schema=schema))
    found: str | None = connection.execute(query).scalar_one_or_none()
    return found


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

    from alembic import command
    from alembic.script import ScriptDirectory

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
