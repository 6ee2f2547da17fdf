"""Where a rate is kept and shared: in this process, or in the state database for all processes and machines.

Every change is one short transaction on the pure state of ``rate_state``; when to ask is in ``rate``.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol, TypeVar
from urllib.parse import urlsplit

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from dagster_l2.base.errors import L2Error
from dagster_l2.batch.clock import SYSTEM_CLOCK, Clock
from dagster_l2.batch.rate_state import RateState
from dagster_l2.batch.rate_tables import rate_leases, rate_limits
from dagster_l2.batch.rate_terms import RateSettings
from dagster_l2.batch.source import FailureClass

T = TypeVar("T")

_PATIENCE_S = 15.0
_PAUSE_S = 0.2


class RateUnavailable(L2Error):
    """The shared rate can't be read or written: the state database's failure, and no item's."""

    failure_class = FailureClass.PASSING
    stops_job = True


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that is out: how many requests, from when to when."""

    tokens: int
    granted_at: float
    expires_at: float


class Desk:
    """The state in one transaction, with the leases beside it; ``now`` is the shared clock's."""

    def __init__(self, state: RateState, now: float) -> None:
        self.state, self.now = state, now
        self.returned = False
        self.lent: Held | None = None
        self._holders: Callable[[], int] = lambda: 0

    def other_holders(self) -> int:
        """How many others hold a lease at this moment."""
        return self._holders()


class RateStore(Protocol):
    """Where a rate lies; ``lease_s`` is for how many seconds requests are taken at once, 0: one request."""

    lease_s: float

    def clock(self) -> float:
        """The shared clock, seconds of the epoch, without asking anybody."""

    def change(self, settings: RateSettings, holder: str, work: Callable[[Desk], T]) -> T:
        """Run ``work`` on the state in a transaction of its own, and keep what it made of it."""

    def epoch(self) -> tuple[int, float] | None:
        """The present count of congestion events and the moment that a pause ends, by a cheap look."""


class MemoryRates:
    """A rate for one process, or for several that a test plays; ``clock`` may be virtual."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        lease_s: float = 0.0,
        kept: object = None,
    ) -> None:
        self.lease_s = lease_s
        self.clock = clock
        self._kept = kept
        self._state: RateState | None = None
        self._leases: dict[str, Held] = {}
        self._lock = threading.RLock()

    def change(self, settings: RateSettings, holder: str, work: Callable[[Desk], T]) -> T:
        """See `RateStore`."""
        with self._lock:
            if self._state is None:
                self._state = RateState.from_json(self._kept, settings)
            desk = Desk(self._state, self.clock())
            desk._holders = lambda: self._count(holder, desk.now)
            done = work(desk)
            if desk.returned:
                self._leases.pop(holder, None)
            if desk.lent and self.lease_s:
                self._leases[holder] = desk.lent
            return done

    def epoch(self) -> tuple[int, float] | None:
        """See `RateStore`."""
        with self._lock:
            return (self._state.epoch, self._state.pause_until) if self._state else None

    def as_json(self) -> dict[str, Any] | None:
        """What to hand to a later ``kept``."""
        with self._lock:
            return self._state.as_json() if self._state else None

    def _count(self, holder: str, now: float) -> int:
        return sum(1 for name, held in self._leases.items() if name != holder and held.expires_at > now)


class DatabaseRates:
    """A rate in the state database, shared by every process that opens it with the same key.

    The clock is the database's own on PostgreSQL, so machines need not agree about the time; on SQLite all
    processes are on one machine and share its clock. A transaction's reading of it is carried on with the
    monotonic clock until the next. A slot is never used before its moment on that clock; were a machine's
    clock set back on SQLite, slots in the future are pulled back and cost at most one window.

    Parameters
    ----------
    engine
        Of the state database; its tables are there already.
    key
        The server and the purpose, see `rate_key`.
    lease_s
        Seconds' worth of requests taken at once.
    clock
        One that goes faster, in benchmarks; all who share the rate need the same.

    Raises
    ------
    RateUnavailable
        When the database can't be used for longer than some seconds.
    """

    def __init__(
        self, engine: sa.Engine, key: str, *, lease_s: float = 1.0, clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self.key, self.lease_s = key, lease_s
        self._clock = clock
        self._engine = engine
        self._is_postgresql = engine.dialect.name == "postgresql"
        self._anchor = (clock.now(), clock.monotonic())
        self._anchor_lock = threading.Lock()

    def clock(self) -> float:
        """See `RateStore`."""
        with self._anchor_lock:
            there, here = self._anchor
        return there + (self._clock.monotonic() - here)

    def change(self, settings: RateSettings, holder: str, work: Callable[[Desk], T]) -> T:
        """See `RateStore`."""
        deadline = time.monotonic() + _PATIENCE_S
        while True:
            try:
                return self._change(settings, holder, work)
            except OperationalError as error:
                # A restart of the database must not cost the day; work runs again from what is committed.
                if time.monotonic() > deadline:
                    raise self._unavailable(error) from error
                time.sleep(_PAUSE_S)
            except SQLAlchemyError as error:
                raise self._unavailable(error) from error

    def epoch(self) -> tuple[int, float] | None:
        """See `RateStore`."""
        query = sa.select(rate_limits.c.congestion_events, rate_limits.c.pause_until)
        try:
            with self._engine.connect() as connection:
                row = connection.execute(query.where(rate_limits.c.key == self.key)).one_or_none()
        except SQLAlchemyError:
            return None  # only a look; the next change says what is wrong
        if row is None or row[0] is None:
            return None
        return int(row[0]), row[1].timestamp() if row[1] else 0.0

    def _change(self, settings: RateSettings, holder: str, work: Callable[[Desk], T]) -> T:
        with self._engine.connect() as connection:
            connection = connection.execution_options(l2_writing=True)
            with connection.begin():
                kept = self._lock_row(connection)
                now = self._read_clock(connection)
                desk = Desk(RateState.from_json(kept, settings), now)
                desk._holders = lambda: self._count(connection, holder, now)
                done = work(desk)
                self._keep_leases(connection, holder, desk)
                self._keep_state(connection, settings, desk)
                return done

    def _lock_row(self, connection: sa.Connection) -> object:
        """The state; its row is ours until the end, since the first statement of the transaction writes."""
        mine = rate_limits.c.key == self.key
        claim = sa.update(rate_limits).where(mine).values(version=rate_limits.c.version + 1)
        if not connection.execute(claim).rowcount:
            insert = (postgresql if self._is_postgresql else sqlite).insert(rate_limits)
            values: Mapping[str, Any] = {"key": self.key, "version": 0}
            connection.execute(insert.values(values).on_conflict_do_nothing())
            connection.execute(claim)
        return connection.execute(sa.select(rate_limits.c.state).where(mine)).scalar_one()

    def _read_clock(self, connection: sa.Connection) -> float:
        if self._is_postgresql:
            clock = sa.select(sa.func.extract("epoch", sa.func.clock_timestamp()))
            there = self._clock.at(float(connection.execute(clock).scalar_one()))
        else:
            there = self._clock.now()
        # The reading is as old as its way here: our clock lags the shared one and never runs ahead of it.
        with self._anchor_lock:
            self._anchor = (there, self._clock.monotonic())
        return there

    def _count(self, connection: sa.Connection, holder: str, now: float) -> int:
        query = (
            sa.select(sa.func.count(sa.distinct(rate_leases.c.holder)))
            .where(rate_leases.c.key == self.key, rate_leases.c.holder != holder)
            .where(rate_leases.c.expires_at > _moment(now))
        )
        return int(connection.execute(query).scalar_one())

    def _keep_leases(self, connection: sa.Connection, holder: str, desk: Desk) -> None:
        if desk.returned:
            # A lease of the dead is over with its time; the log of grants goes on counting it as used.
            over = (rate_leases.c.holder == holder) | (rate_leases.c.expires_at < _moment(desk.now - 60))
            connection.execute(sa.delete(rate_leases).where(rate_leases.c.key == self.key, over))
        if desk.lent:
            values = {
                "lease_id": secrets.token_hex(16),
                "key": self.key,
                "holder": holder,
                "tokens": desk.lent.tokens,
                "granted_at": _moment(desk.lent.granted_at),
                "expires_at": _moment(desk.lent.expires_at),
            }
            connection.execute(sa.insert(rate_leases).values(values))

    def _keep_state(self, connection: sa.Connection, settings: RateSettings, desk: Desk) -> None:
        state = desk.state
        quota = next(iter(state.quotas(settings)), None)
        values = {
            "state": state.as_json(),
            "requests_per_second": state.rate,
            "quota_requests": quota.requests if quota else None,
            "quota_seconds": quota.seconds if quota else None,
            "congestion_events": state.epoch,
            "pause_until": _moment(state.pause_until) if state.pause_until > 0 else None,
            "updated_at": _moment(desk.now),
        }
        connection.execute(sa.update(rate_limits).where(rate_limits.c.key == self.key).values(values))

    def _unavailable(self, error: SQLAlchemyError) -> RateUnavailable:
        cause = getattr(error, "orig", None) or error
        text = " ".join(str(cause).split())[:200]
        return RateUnavailable(
            f"The shared rate of {self.key} can't be used ({text}); check the state database."
        )


def rate_key(url: str, purpose: str) -> str:
    """The key of a server and a purpose: no user, no password, no query, whatever the address holds."""
    parts = urlsplit(url if "//" in url else f"//{url}")
    port = f":{parts.port}" if parts.port else ""
    return f"{(parts.hostname or 'local').lower()}{port}/{purpose}"


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _moment(seconds: float) -> datetime:
    return _EPOCH + timedelta(seconds=seconds)
