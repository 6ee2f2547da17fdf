"""What can go wrong in the ledger, each with one sentence that names the thing and what to do.

No translation of database errors: that is in ``database``.
"""

from __future__ import annotations

from datetime import datetime

from dagster_l2.base.errors import L2Error


class LedgerError(L2Error):
    """Base of all errors of the ledger."""


class LedgerUnavailable(LedgerError):
    """The database can't be reached, opened, or written."""


class UnknownOp(LedgerError):
    """The ledger has no history of this OP."""


class InvalidRecord(LedgerError):
    """A value the ledger can't record: a naive time, an empty actor, an id with a NUL, a wrong data set."""


class IllegalTransition(LedgerError):
    """The step is not in the table of edges, or not possible in the OP's present state."""


class InputsChanged(LedgerError):
    """The OP's inputs changed since they were claimed, and the hand-over didn't accept that."""


class KeyUsed(LedgerError):
    """The idempotency key of a request was used for another one."""


class NotAllowed(LedgerError):
    """Somebody else may do this; the message says who."""


class Conflict(LedgerError):
    """Another writer was there first.

    Attributes
    ----------
    op_id, state, actor, since
        The OP, and the winner's state, name and time; None where the OP has no history.
    """

    def __init__(
        self,
        message: str,
        *,
        op_id: str,
        state: str | None = None,
        actor: str | None = None,
        since: datetime | None = None,
    ) -> None:
        super().__init__(message)
        self.op_id, self.state, self.actor, self.since = op_id, state, actor, since
