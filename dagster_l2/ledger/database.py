"""The state database: opening SQLite or PostgreSQL, bringing it to the newest schema, its errors in words.

Transactions begin here and database errors become the ledger's own. What is read and written in them is
in the other modules of the room.
"""

from __future__ import annotations

import logging
import re
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError, StatementError

from dagster_l2.ledger.columns import to_json
from dagster_l2.ledger.errors import IllegalTransition, InvalidRecord, LedgerError, LedgerUnavailable
from dagster_l2.ledger.guards import CODES
from dagster_l2.ledger.migrate import head, revision, upgrade

BUSY_TIMEOUT_S = 60
_SCHEMA_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}\Z")
_DEADLOCKS = ("40P01", "40001")  # PostgreSQL: deadlock detected, serialization failure
_REFUSAL = re.compile(r"l2-([a-z-]+): ")


REDO = ("exists", "unique", "deadlock")
"""Codes of a refusal after which the same transaction can succeed: drawn again, or alone."""


class Refused(LedgerError):
    """The database refused a row; ``code`` is one of ``guards.CODES``, ``unique`` or ``deadlock``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Database:
    """One state database: an engine, its place in words, and transactions that raise the ledger's errors."""

    def __init__(self, engine: sa.Engine, place: str, schema: str | None) -> None:
        self.engine, self.place, self.schema = engine, place, schema

    @contextmanager
    def reading(self, *, snapshot: bool = False) -> Iterator[sa.Connection]:
        """A transaction that only reads; with ``snapshot`` all its queries see the same moment."""
        # SQLite's transactions always do; on PostgreSQL it costs the server more, so it is asked for.
        level = "REPEATABLE READ" if snapshot and self.schema is not None else None
        with self._transaction(writing=False, level=level) as connection:
            yield connection

    @contextmanager
    def writing(self, op_id: str | None = None) -> Iterator[sa.Connection]:
        """A transaction that writes; what it reads of ``op_id`` stays true until it ends.

        SQLite has one writer at a time. On PostgreSQL writers of one OP wait for each other, so that the
        later one sees what the earlier did and can name it; the guards hold without this too.
        """
        with self._transaction(writing=True) as connection:
            if op_id is not None and connection.dialect.name == "postgresql":
                key = sa.func.hashtextextended(f"{self.schema}/{op_id}", 0)
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))
            yield connection

    @contextmanager
    def _transaction(self, *, writing: bool, level: str | None = None) -> Iterator[sa.Connection]:
        try:
            with self.engine.connect() as connection:
                connection = connection.execution_options(l2_writing=writing)
                if level is not None:
                    connection = connection.execution_options(isolation_level=level)
                with connection.begin():
                    yield connection
        except SQLAlchemyError as error:
            raise translate(error, self.place) from error


def open_database(url: str, schema: str) -> Database:
    """Open the database at ``url`` and bring it to the newest schema.

    Parameters
    ----------
    url : str
        ``sqlite:///path`` or ``postgresql+psycopg://user:password@host/database``.
    schema : str
        The schema that holds everything on PostgreSQL; it is made when missing. Not used on SQLite.

    Raises
    ------
    LedgerUnavailable
        When the address is of another kind, the database can't be reached, or it is newer than this code.
    """
    database = reach_database(url, schema)
    try:
        upgrade(database.engine, database.schema, database.place)
    except BaseException as error:
        database.engine.dispose()
        if isinstance(error, SQLAlchemyError):
            raise translate(error, database.place) from error
        raise
    return database


def upgrade_database(url: str, *, schema: str = "l2") -> tuple[str, str | None, str]:
    """Bring the database at ``url`` to the newest schema; its place, and its revisions before and after.

    Raises
    ------
    LedgerUnavailable
        As `open_database`.
    """
    database = reach_database(url, schema)
    try:
        with database.reading() as connection:
            before = revision(connection, database.schema)
    finally:
        database.engine.dispose()
    open_database(url, schema).engine.dispose()
    return database.place, before, head()


def reach_database(url: str, schema: str, *, only_look: bool = False) -> Database:
    """The database at ``url`` as it is: nothing is upgraded.

    Parameters
    ----------
    only_look : bool
        Neither make nor change anything on SQLite; a missing file is `LedgerUnavailable`.
    """
    try:
        address = sa.make_url(url)
    except ArgumentError:
        raise LedgerUnavailable(_WRONG_ADDRESS) from None
    if address.get_backend_name() == "sqlite" and address.database not in (None, "", ":memory:"):
        return _sqlite(address, only_look=only_look)
    if address.drivername in ("postgresql", "postgresql+psycopg"):
        return _postgresql(address.set(drivername="postgresql+psycopg"), schema)
    raise LedgerUnavailable(_WRONG_ADDRESS)


_WRONG_ADDRESS = (
    "The ledger's address must be sqlite:///FILE or postgresql+psycopg://USER@HOST/DATABASE; correct it."
)


def _sqlite(address: sa.URL, *, only_look: bool) -> Database:
    path = Path(str(address.database))
    if only_look:
        if not path.is_file():
            raise LedgerUnavailable(f"There is no ledger in {path}; `l2 db upgrade` makes one.")
        return _sqlite_engine(address, path, _only_look)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise LedgerUnavailable(
            f"The folder {path.parent} of the ledger can't be made ({error.strerror}); choose another."
        ) from error
    return _sqlite_engine(address, path, _prepare_sqlite)


def _sqlite_engine(
    address: sa.URL, path: Path, prepare: Callable[[sqlite3.Connection, Any], None]
) -> Database:
    engine = sa.create_engine(address, json_serializer=to_json, connect_args={"timeout": BUSY_TIMEOUT_S})
    sa.event.listen(engine, "connect", prepare)
    sa.event.listen(engine, "begin", _begin_sqlite)
    return Database(engine, str(path), None)


def _only_look(connection: sqlite3.Connection, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    connection.execute("PRAGMA query_only = ON")


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    # The driver's own way of beginning transactions leaves DDL outside them and takes the write lock
    # late, where two writers meet in a deadlock; _begin_sqlite does it instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_S * 1000}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA synchronous = FULL")
    # SQLite doesn't wait for a lock when it changes the journal mode: two that open a new file meet here.
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while cursor.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            cursor.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    writing = connection.get_execution_options().get("l2_writing", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writing else "BEGIN")


def _postgresql(address: sa.URL, schema: str) -> Database:
    if not _SCHEMA_NAME.match(schema):
        raise LedgerUnavailable(
            f"The schema name {schema!r} is not usable; take small letters, digits and underscores."
        )
    logging.getLogger("psycopg").addFilter(_says_more_than_the_error)
    engine = sa.create_engine(
        address,
        json_serializer=to_json,
        pool_pre_ping=True,
        isolation_level="READ COMMITTED",
        execution_options={"schema_translate_map": {None: schema}},
    )
    place = f"{address.host or address.query.get('host', 'localhost')}/{address.database}, schema {schema}"
    return Database(engine, place, schema)


def _says_more_than_the_error(record: logging.LogRecord) -> bool:
    """Not so the driver's warning for each bulk insert that is refused: the error is raised as well."""
    return "error ignored terminating" not in str(record.msg)


def translate(error: SQLAlchemyError, place: str) -> LedgerError:
    """The ledger's own error for one of the database or its driver."""
    cause: BaseException | None = error.orig if isinstance(error, StatementError) else None
    if isinstance(cause, LedgerError):  # raised by a column type
        return cause
    text = " ".join(str(cause or error).split())
    code = _REFUSAL.search(text)
    if code and code[1] in CODES:
        sentence = f"The database refused the record: {CODES[code[1]]}."
        if code[1] == "edge":
            return IllegalTransition(sentence)
        return Refused(code[1], sentence)
    if isinstance(error, sa.exc.IntegrityError):
        return Refused("unique", f"The database refused the record: {text[:300]}.")
    if getattr(cause, "sqlstate", None) in _DEADLOCKS:
        return Refused("deadlock", f"The database ended the transaction for another one: {text[:300]}.")
    is_ours = isinstance(error, StatementError) and not isinstance(error, DBAPIError)
    if is_ours or isinstance(error, sa.exc.DataError):
        return InvalidRecord(f"The record can't be stored: {text[:300]}.")
    return LedgerUnavailable(
        f"The ledger in {place} can't be used ({text[:300]}); check that it is there and writable."
    )
