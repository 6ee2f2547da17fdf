"""What the guards cost an append, and how fast verdicts are appended in bulk, on both databases.

The bare side is the same table without triggers. `python benchmarks/ledger_writes.py --help`.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import kit
import sqlalchemy as sa

from dagster_l2.ledger import Ledger, State, Verdict
from dagster_l2.ledger.columns import to_json
from dagster_l2.ledger.tables import op_transitions

DETAILS = {
    "instrument_program_id": "id.118942.336311",
    "dataset_ids": ["AGLKO", "BKEWK", "BLRXO"],
    "buckets": ["data"],
    "spectral_lines": ["Fe I (630.15 nm)", "Ca II (854.21 nm)"],
    "measured": {"fried_parameter_median_m": 0.094, "adaptive_optics_locked_pct": 97.2},
    "failed_criteria": [],
    "warnings": ["few maps"],
}
COLUMNS = [column.name for column in op_transitions.c if column.name != "transition_id"]
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the rows, once")
    parser.add_argument("--database", choices=[*kit.DATABASES, "both"], default="both")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    rounds, appends, verdicts = (1, 100, 10_000) if given.quick else (5, 500, 100_000)
    kinds = kit.DATABASES if given.database == "both" else (given.database,)
    single = [row for kind in kinds for row in single_appends(kind, rounds, appends)]
    kit.report("Single appends: guards against none", single, as_json=given.json)
    bulk = [bulk_appends(kind, 1 if given.quick else 3, verdicts) for kind in kinds]
    kit.report("Verdicts in bulk against a bare executemany", bulk, as_json=given.json)


def single_appends(kind: str, rounds: int, appends: int) -> Iterator[Row]:
    """The ledger's own INSERT as in production, without the wait for the disk, and without SQLAlchemy."""
    numbers = itertools.count()
    ways: dict[str, tuple[Callable[[Ledger, list[Row]], Callable[[], object]], int, int]] = {
        "a transaction each, synced": (one_by_one, 10 * rounds, appends // 5),
        "in one transaction": (together, 10 * rounds, appends),
        "driver's executemany, in one transaction": (executemany, 10 * rounds, 4 * appends),
    }
    with kit.place(kind) as url, guarded(url) as ledger, bare(url) as without:
        for way, (prepared, turns, count) in ways.items():
            prepared(ledger, new_rows(numbers, count))()  # the first one is slower
            prepared(without, new_rows(numbers, count))()
            taken = kit.medians(
                {
                    name: [prepared(side, new_rows(numbers, count)) for _turn in range(turns)]
                    for name, side in {"bare": without, "guarded": ledger}.items()
                }
            )
            yield {
                "database": kind,
                "way": way,
                "bare us": taken["bare"] / count * 1e6,
                "guarded us": taken["guarded"] / count * 1e6,
                "ratio": taken["guarded"] / taken["bare"],
            }


def bulk_appends(kind: str, rounds: int, verdicts: int) -> Row:
    """New OPs, each found and judged: two transitions a verdict."""
    said = [
        Verdict(f"id.{n:06d}.op", True, True, True, (), ("few maps",), f"{n:032x}", "7", dict(DETAILS))
        for n in range(verdicts)
    ]
    rates: list[tuple[float, float]] = []
    for _round in range(rounds):
        with kit.place(kind) as url, guarded(url) as ledger, bare(url) as without:
            decided = kit.seconds(lambda ledger=ledger: ledger.decide(said, actor="pipeline", run_id="run"))
            with ledger.engine.connect() as connection:
                rows = [dict(row._mapping) for row in connection.execute(sa.select(op_transitions))]
            assert len(rows) == 2 * verdicts
            limit = kit.seconds(executemany(without, rows))
        rates.append((decided, limit))
    decided, limit = sorted(rates)[len(rates) // 2]
    return {
        "database": kind,
        "verdicts": verdicts,
        "decide: transitions/s": 2 * verdicts / decided,
        "bare: transitions/s": 2 * verdicts / limit,
        "ratio": decided / limit,
    }


def one_by_one(ledger: Ledger, rows: list[Row]) -> Callable[[], object]:
    def write() -> None:
        for row in rows:
            with writing(ledger) as connection:
                connection.execute(sa.insert(op_transitions).values(row))

    return write


def together(ledger: Ledger, rows: list[Row]) -> Callable[[], object]:
    def write() -> None:
        with writing(ledger) as connection:
            for row in rows:
                connection.execute(sa.insert(op_transitions).values(row))

    return write


def executemany(ledger: Ledger, rows: list[Row]) -> Callable[[], object]:
    """The rows are made fit for the driver before the clock runs."""
    dialect, schema = ledger.engine.dialect, ledger._database.schema
    mark, prefix = ("?", "") if schema is None else ("%s", f'"{schema}".')
    marks = ", ".join([mark] * len(COLUMNS))
    statement = f"INSERT INTO {prefix}op_transitions ({', '.join(COLUMNS)}) VALUES ({marks})"
    for row in rows:
        row["details"] = to_json(row["details"])
        for name in ("occurred_at", "recorded_at"):
            row[name] = op_transitions.c[name].type.process_bind_param(row[name], dialect)
    values = [tuple(row[name] for name in COLUMNS) for row in rows]

    def write() -> None:
        with writing(ledger) as connection:
            connection.connection.cursor().executemany(statement, values)

    return write


@contextmanager
def writing(ledger: Ledger) -> Iterator[sa.Connection]:
    """A transaction as the ledger's own, without the lock that PostgreSQL takes for one OP."""
    with ledger.engine.connect().execution_options(l2_writing=True) as connection, connection.begin():
        yield connection


@contextmanager
def guarded(url: str) -> Iterator[Ledger]:
    with Ledger.open(url, schema="guarded") as ledger:
        yield ledger


@contextmanager
def bare(url: str) -> Iterator[Ledger]:
    """The same tables and indexes beside them (on SQLite in another file), without triggers."""
    with Ledger.open(url.replace("l2.sqlite", "bare.sqlite"), schema="bare") as ledger:
        with ledger.engine.begin() as connection:
            if ledger.engine.dialect.name == "sqlite":
                query = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
                for (name,) in connection.exec_driver_sql(query).all():
                    connection.exec_driver_sql(f"DROP TRIGGER {name}")
            else:
                connection.exec_driver_sql("DROP FUNCTION bare.guard_transition() CASCADE")
                connection.exec_driver_sql("DROP FUNCTION bare.refuse_change() CASCADE")
        yield ledger


def new_rows(numbers: Iterator[int], count: int) -> list[Row]:
    """The first two transitions of ``count / 2`` new OPs."""
    now = datetime.now(UTC)
    rows = []
    for number in itertools.islice(numbers, count // 2):
        for seq, (start, end) in enumerate(
            [(None, State.DISCOVERED), (State.DISCOVERED, State.INVERTIBLE)], start=1
        ):
            rows.append(
                {
                    "op_id": f"id.{number:07d}.op",
                    "seq": seq,
                    "from_state": start,
                    "to_state": end,
                    "occurred_at": now,
                    "recorded_at": now,
                    "actor": "pipeline",
                    "cause": "all criteria passed",
                    "inputs_hash": f"{number:032x}",
                    "rule_version": "7",
                    "inversion_id": None,
                    "run_id": "0b5cf3f0-2a60-4f3f-8d9c-6c2f6dd0e5a1",
                    "details": dict(DETAILS),
                }
            )
    return rows


if __name__ == "__main__":
    main()
