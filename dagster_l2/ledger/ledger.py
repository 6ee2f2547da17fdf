"""The ledger as other rooms use it: one class over all operations, and the plain append.

The operations themselves are in ``reading``, ``work``, ``recovery``, ``people``, ``tokens``, ``events``,
``inbox``, ``inversion_steps``, ``alerts`` and ``verdicts``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any, Final, Self

import sqlalchemy as sa

from dagster_l2.ledger.alerts import Alerts
from dagster_l2.ledger.base import conflict, insert, known
from dagster_l2.ledger.database import Database, open_database
from dagster_l2.ledger.dump import Dumping
from dagster_l2.ledger.events import Events
from dagster_l2.ledger.exporting import Exporting
from dagster_l2.ledger.inbox import Inbox
from dagster_l2.ledger.inversion_steps import InversionSteps
from dagster_l2.ledger.people import People
from dagster_l2.ledger.records import Present, Transition
from dagster_l2.ledger.recovery import Recovery
from dagster_l2.ledger.requests import Request, record_request, written_before
from dagster_l2.ledger.states import State
from dagster_l2.ledger.tokens import Tokens
from dagster_l2.ledger.verdicts import Deciding
from dagster_l2.ledger.work import Work


class _Whatever(Enum):
    PRESENT = "present"


PRESENT: Final = _Whatever.PRESENT
"""For `Ledger.append`: whatever the present state is."""


class Ledger(
    Deciding, Work, Recovery, Events, Inbox, InversionSteps, People, Tokens, Alerts, Exporting, Dumping
):
    """The append-only history of all observing programs, on SQLite or PostgreSQL.

    One instance serves many threads; a process that forks opens its own. Close it, or use it in a ``with``.
    """

    @classmethod
    def open(cls, url: str, *, schema: str = "l2") -> Self:
        """Open the ledger at ``url`` and bring its tables to the newest schema.

        Parameters
        ----------
        url : str
            ``sqlite:///path`` (the file and its folder are made) or ``postgresql+psycopg://…``.
        schema : str
            The PostgreSQL schema that holds all tables; made when missing.

        Raises
        ------
        LedgerUnavailable
            When it can't be opened.
        """
        return cls(open_database(url, schema))

    @property
    def engine(self) -> sa.Engine:
        """The engine, for tables of other rooms in the same database (the log of batch attempts)."""
        return self._database.engine

    def once(self, request: Request) -> Ledger:
        """The same ledger for one request: what it writes of an OP it writes once, however often it comes.

        The same request again gives what was written then; `KeyUsed` when the key was another request's.
        """
        return _Once(self._database, request)

    def written_by(self, request: Request) -> object | None:
        """What this request wrote of an OP when it came before, None when it has not; raises `KeyUsed`."""
        with self._database.reading() as connection:
            return written_before(connection, request)

    def close(self) -> None:
        """Give back all connections."""
        self._database.engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def append(
        self,
        op_id: str,
        to_state: State,
        *,
        actor: str,
        cause: str,
        expected: State | _Whatever | None = PRESENT,
        occurred_at: datetime | None = None,
        inputs_hash: str | None = None,
        rule_version: str | None = None,
        inversion_id: str | None = None,
        run_id: str | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Transition:
        """Append one transition.

        Parameters
        ----------
        expected : State or None, optional
            The state the caller believes the OP to be in (None: no history). Unless given, whatever it is.
        occurred_at : datetime, optional
            When it happened, with a time zone; now unless given.

        Raises
        ------
        Conflict
            When the OP is in another state than ``expected``; names who moved it and when.
        UnknownOp
            When the OP has no history and the step isn't the first one.
        IllegalTransition, InvalidRecord
            See `base.insert`.
        """

        def work(connection: sa.Connection, present: Present | None) -> Transition:
            if expected is not PRESENT:
                if expected is not None:
                    present = known(present, op_id)
                if present is not None and present.state is not expected:
                    raise conflict(present, f"it was believed to be {expected or 'new'}; look at it again.")
            return insert(
                connection,
                present,
                op_id,
                to_state,
                actor=actor,
                cause=cause,
                occurred_at=occurred_at,
                inputs_hash=inputs_hash,
                rule_version=rule_version,
                inversion_id=inversion_id,
                run_id=run_id,
                details=details,
            )

        return self._write(op_id, work)


class _Once(Ledger):
    """See `Ledger.once`."""

    def __init__(self, database: Database, request: Request) -> None:
        super().__init__(database)
        self._request = request

    def _written_before(self, connection: sa.Connection) -> Any | None:
        return written_before(connection, self._request)

    def _note_written(self, connection: sa.Connection, written: object) -> None:
        record_request(connection, self._request, written)
