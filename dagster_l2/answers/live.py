"""Where every OP stands and the queue, kept in memory: only what was appended since is asked of the ledger.

It serves who looks often, such as the service. How the queue is ranked is in ``queue``.
"""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from dagster_l2.base.errors import L2Error
from dagster_l2.ledger import Annotation, Ledger, Present
from dagster_l2.pipeline.gold import BadQuery, NoGold, OpenGold, Row
from dagster_l2.pipeline.queue import SAID, Merits, OldGold, put_in_order, queue_row, read_merits

_LOG = logging.getLogger(__name__)

_WHOLE_AFTER_S = 60.0
"""Days in a state grow without anybody writing, and PostgreSQL may commit an id after a higher one."""

_OVERLAP = 40
"""On PostgreSQL so many ids below the highest are looked at again, for the same reason."""

_MOST_SINGLY = 500

_FACTS = (
    "proposal_id",
    "experiment_id",
    "instruments",
    "dataset_count",
    "start_time",
    "end_time",
    "is_complete",
    "is_invertible",
    "is_embargoed",
    "embargo_end_date",
    "fried_parameter_median_m",
)
_PROGRAMS = f"select op_id, {', '.join(_FACTS)} from observing_programs"  # noqa: S608 - our own names


@dataclass
class _Seen:
    """What was read last; replaced or brought up to date under the lock."""

    gold: tuple[int, ...] | None
    ids: tuple[int, int]
    at: float
    merits: Merits | None = None
    facts: dict[str, Row] = field(default_factory=dict)
    presents: dict[str, Present] = field(default_factory=dict)
    said: dict[str, dict[str, Annotation]] = field(default_factory=dict)
    rows: dict[str, Row] = field(default_factory=dict)
    program_rows: dict[str, Row] = field(default_factory=dict)
    queue: list[Row] = field(default_factory=list)
    programs: list[Row] = field(default_factory=list)


class Live:
    """All OPs as of now, for many threads."""

    def __init__(self, ledger: Ledger, gold: OpenGold) -> None:
        self._ledger, self._gold = ledger, gold
        self._lock = threading.Lock()
        self._seen: _Seen | None = None
        self._renewal: threading.Thread | None = None

    def close(self) -> None:
        """Wait for what is still being read."""
        if self._renewal is not None:
            self._renewal.join()

    def queue(self) -> list[Row]:
        """The queue as `queue.live_queue` gives it; the rows are shared, so leave them as they are.

        Raises
        ------
        NoGold
            Before the first pass.
        """
        with self._lock:
            seen = self._up_to_date()
        if seen.merits is None:
            raise NoGold(f"There is no {self._gold.path} yet: `l2 run` makes it.")
        return seen.queue

    def programs(self) -> list[Row]:
        """Every OP with its state of now and what gold knows of it, by id; the rows are shared."""
        with self._lock:
            return self._up_to_date().programs

    def _up_to_date(self) -> _Seen:
        gold, ids, now = self._gold.version, self._ledger.latest_ids(), time.monotonic()
        seen = self._seen
        if seen is None or seen.gold != gold:
            self._seen = self._read_all(gold, ids, now)
            return self._seen
        if now - seen.at > _WHOLE_AFTER_S:
            self._renew(gold, ids, now)
        if seen.ids == ids:
            return seen
        overlap = _OVERLAP if self._ledger.engine.dialect.name == "postgresql" else 0
        before = [max(0, number - overlap) for number in seen.ids]
        changed = self._ledger.ops_since(before[0], before[1])
        if len(changed) > _MOST_SINGLY:
            self._seen = self._read_all(gold, ids, now)
            return self._seen
        for op_id in changed:
            seen.presents[op_id] = self._ledger.present(op_id)
            seen.said |= self._ledger.latest_annotations(SAID, op_id)
        seen.ids = ids
        self._tell(seen, changed)
        return seen

    def _read_all(self, gold: tuple[int, ...] | None, ids: tuple[int, int], now: float) -> _Seen:
        seen = _Seen(gold, ids, now)
        try:
            seen.merits = read_merits(self._gold.read)
            seen.facts = {row["op_id"]: row for row in self._gold.read(_PROGRAMS)}
        except NoGold:
            seen.merits = None
        except BadQuery:
            raise OldGold("Gold was built by an earlier version: `l2 run` builds it anew.") from None
        seen.presents = self._ledger.present_all()
        seen.said = self._ledger.latest_annotations(SAID)
        self._tell(seen, seen.presents)
        set_aside()
        return seen

    def _renew(self, gold: tuple[int, ...] | None, ids: tuple[int, int], now: float) -> None:
        """Read everything anew beside the way; until it is there, what was read before is kept up to date."""
        if self._renewal is not None and self._renewal.is_alive():
            return

        def work() -> None:
            try:
                seen = self._read_all(gold, ids, now)
            except L2Error as error:
                _LOG.warning("The queue was not read anew: %s", error)
                return
            with self._lock:
                self._seen = seen

        self._renewal = threading.Thread(target=work, name="renewal", daemon=True)
        self._renewal.start()

    def _tell(self, seen: _Seen, changed: Iterable[str]) -> None:
        """Make the rows of what changed anew; lists that were handed out stay as they were."""
        for op_id in changed:
            seen.rows.pop(op_id, None)
            present = seen.presents[op_id]
            seen.program_rows[op_id] = _program(present, seen.facts.get(op_id, {}))
            row = None if seen.merits is None else queue_row(present, seen.merits, seen.said.get(op_id, {}))
            if row is not None:
                seen.rows[op_id] = row
        seen.queue = put_in_order([dict(row) for row in seen.rows.values()])
        seen.programs = [seen.program_rows[op_id] for op_id in sorted(seen.program_rows)]


def set_aside() -> None:
    """Keep what lives now out of the way of the garbage collector, which else goes through all of it.

    Each time it does, all readers wait (docs/benchmarks.md). What is replaced later is freed without the
    collector, since nothing that is kept refers back to itself. Garbage that does, and was in use when it
    was set aside, is collected the next time.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _program(present: Present, facts: Mapping[str, object]) -> Row:
    return {
        "op_id": present.op_id,
        "state": present.state.value,
        "since": present.since,
        "recorded_at": present.recorded_at,
        "actor": present.actor,
        "inversion_id": present.inversion_id,
        "claimed_by": present.claimed_by,
        "inputs_changed": present.inputs_changed,
        **{name: facts.get(name) for name in _FACTS},
    }
