"""Published inversions, kept in a SQLite file that outlives the server and may be shared by two of them.

Create and look up only: the store knows no update and no delete.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from dagster_l2.store.errors import StoreError

_TABLE = """
create table if not exists l2_inversion_inventory (
    inversion_id text not null primary key,
    record text not null
) strict
"""
_BUSY_S = 30.0


class InversionsUnreadable(StoreError):
    """The file of the published inversions cannot be used."""


class DuplicateKey(Exception):
    """The id is taken; the message is the one PostgreSQL gives the real store."""


class Inversions:
    """The published inversions.

    Parameters
    ----------
    path
        The SQLite file; it and its folder are made when they are missing.

    Raises
    ------
    InversionsUnreadable
        When the file cannot be opened as SQLite.
    """

    def __init__(self, path: Path | str) -> None:
        self._path = Path(path)
        self._lock = threading.Lock()
        self._open_connection: sqlite3.Connection | None = None
        try:
            self._make()
        finally:
            self.close()

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            if self._open_connection is not None:
                self._open_connection.close()
                self._open_connection = None

    def create(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Create a record, stamped with ``createDate``; it is on disk when this returns.

        Raises
        ------
        DuplicateKey
            When the id is taken.
        """
        now = datetime.now(UTC).replace(tzinfo=None).isoformat(timespec="microseconds")
        record = {"asdfObjectKey": None, **params, "createDate": now, "updateDate": None}
        with self._connection() as connection:
            try:
                connection.execute(
                    "insert into l2_inversion_inventory (inversion_id, record) values (?, ?)",
                    (record["inversionId"], json.dumps(record)),
                )
            except sqlite3.IntegrityError:
                raise DuplicateKey(
                    'duplicate key value violates unique constraint "l2_inversion_inventory_pkey"'
                    f" DETAIL: Key (inversion_id)=({record['inversionId']}) already exists."
                ) from None
        return record

    def all(self) -> list[dict[str, Any]]:
        """Every record, in the order of creation."""
        with self._connection() as connection:
            rows = connection.execute("select record from l2_inversion_inventory order by rowid").fetchall()
        return [json.loads(text) for (text,) in rows]

    def _make(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self._path.with_name(f"{self._path.name}.lock"))
            # Two servers that start together would race for the change to WAL, which waits for nobody.
            with lock, self._connection() as connection:
                connection.execute("pragma journal_mode = wal")
                connection.execute(_TABLE)
        except OSError as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> InversionsUnreadable:
        return InversionsUnreadable(
            f"The file of published inversions {self._path} cannot be used ({error});"
            " move it away or free the disk."
        )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            try:
                if self._open_connection is None:
                    # Autocommit: each statement is committed, and so durable, before the answer is sent.
                    self._open_connection = sqlite3.connect(
                        self._path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False
                    )
                    self._open_connection.execute("pragma synchronous = full")
                yield self._open_connection
            except sqlite3.Error as error:
                raise self._unusable(error) from None
