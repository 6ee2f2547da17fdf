"""A lake of any size for the benchmarks, through the lake's own commits. No benchmark itself.

Datasets are those of the local store's generator, parsed and hashed as a scan does, then copied under other
ids; transitions are lives that the state machine allows, in the order of time, in files as exported.
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import polars as pl

from dagster_l2.assets.export import ROWS_PER_FILE, exported_table
from dagster_l2.batch import job_tasks_table
from dagster_l2.lake import BronzeTable, Claim
from dagster_l2.ledger import EDGES
from dagster_l2.pipeline.downloads import reach_table
from dagster_l2.products import FITTED_FILE, MODEL_FILE, OBSERVED_FILE, QUANTITIES
from dagster_l2.sources import ScanTables
from dagster_l2.store import DATASETS, EXPERIMENTS, PROCESSING_CANDIDATES, content_hashes, parse_records
from dagster_l2.store.server.generate import generate

SCANNED = datetime(2026, 1, 15)  # noqa: DTZ001 (bronze times are UTC without a zone)
BASE_OPS = 2_500
LIFE = (
    "Discovered",
    "Invertible",
    "Preprocessed",
    "Working",
    "Preprocessed",
    "Working",
    "Inverted",
    "Working",
)
ROUND = ("Inverted", "Published", "Invertible", "Preprocessed", "Working", "Error", "Working")
"""A life begins with `LIFE` (released, withdrawn once), then goes round: published, re-opened, failed."""

_IDS = {
    "datasets": (
        "dataset_id",
        "product_id",
        "observing_program_execution_id",
        "instrument_program_execution_id",
        "primary_proposal_id",
        "primary_experiment_id",
    ),
    "experiments": ("experiment_id",),
    "processing_candidates": ("observing_program_execution_id", "proposal_id", "experiment_id"),
}


def make_bronze(lake: Path, datasets: int, transitions: int) -> dict[str, int]:
    """Fill an empty lake; gives back how many rows its tables have."""
    tables = ScanTables.under(lake)
    bases = _bases(min(BASE_OPS, max(20, datasets // 8)))
    for table in (*tables.all(), reach_table(lake), job_tasks_table(lake)):
        table.ensure()
    rows = {"datasets": 0, "experiments": 0, "processing_candidates": 0, "missing": 0}
    copies = -(-datasets // len(bases["datasets"]))
    for copy in range(copies):
        left = datasets - copy * len(bases["datasets"])
        for name in _IDS:
            frame = bases[name].head(left) if name == "datasets" else bases[name]
            rows[name] += _append(
                getattr(tables, name), _copied(frame, name, copy), SCANNED, f"scan-{copy:04d}"
            )
        frame = _copied(bases["datasets"].head(left), "datasets", copy)
        rows["datasets"] += _changes(tables, frame, copy)
        rows["missing"] += _missing(tables, frame, copy)
    _attempts(tables, datasets)
    rows["transitions"] = make_transitions(lake, _ops(tables), transitions)
    exported_table(lake, "annotations").ensure()
    return rows


def _bases(programs: int) -> dict[str, pl.DataFrame]:
    made = generate(programs, seed=7)
    out = {}
    for record_type, rows in (
        (DATASETS, made.datasets),
        (EXPERIMENTS, made.experiments),
        (PROCESSING_CANDIDATES, made.processing_candidates),
    ):
        frame, rejected = parse_records(record_type, rows)
        if rejected:
            raise SystemExit(f"The generator made a record that is refused: {rejected[0].reason}")
        out[record_type.table] = frame.with_columns(content_hashes(frame))
    # What the generator has none of: records without an OP, and dumps of before there were products.
    number = pl.int_range(pl.len())
    out["datasets"] = out["datasets"].with_columns(
        pl.when(number % 211 != 5).then("observing_program_execution_id"),
        pl.when(number % 97 != 3).then("product_id"),
    )
    return out


def _copied(frame: pl.DataFrame, name: str, copy: int) -> pl.DataFrame:
    """The same records of other programs; a hash only has to differ where the record does."""
    mark = f"{copy:x}"
    return frame.with_columns(
        *(pl.col(column) + f".{mark}" for column in _IDS[name]),
        pl.col("content_hash").str.head(-len(mark)) + mark,
    )


def _append(table: BronzeTable, frame: pl.DataFrame, scanned_at: datetime, part: str) -> int:
    stamped = frame.with_columns(
        pl.lit(scanned_at).alias("scanned_at").cast(pl.Datetime("us")), pl.lit(part).alias("job_id")
    )
    table.append(stamped, job_id=part, part="0")
    return len(frame)


def _changes(tables: ScanTables, frame: pl.DataFrame, copy: int) -> int:
    """Two later scans: a fix of the boxes of a fifth of the records, then withdrawn and embargoed ones."""
    number = pl.int_range(pl.len())
    fixed = frame.filter(number % 5 == 0).with_columns(
        pl.col("bounding_box").str.replace_all(r"\.(\d)", ".1$1"), pl.lit("f").alias("mark")
    )
    late = frame.filter(number % 50 == 1).with_columns(
        pl.when(number % 4 == 0).then(pl.lit("DEPRECATED")).otherwise("status").alias("status"),
        pl.lit(True).alias("is_embargoed"),
        pl.lit("e").alias("mark"),
    )
    rows = 0
    for days, changed in enumerate((fixed, late), start=1):
        hashed = changed.with_columns(pl.col("content_hash").str.head(-1) + pl.col("mark")).drop("mark")
        rows += _append(tables.datasets, hashed, SCANNED + timedelta(days=days), f"scan-{copy:04d}-{days}")
    return rows


def _missing(tables: ScanTables, frame: pl.DataFrame, copy: int) -> int:
    gone = frame.filter(pl.int_range(pl.len()) % 500 == 2)
    moment = SCANNED + timedelta(days=2)
    rows = gone.select(
        pl.lit("datasets").alias("table_name"),
        pl.col("dataset_id").alias("record_id"),
        pl.lit(moment).alias("missing_since"),
        pl.lit(moment).alias("scanned_at"),
        pl.lit(f"scan-{copy:04d}").alias("job_id"),
    )
    tables.missing.append(rows, job_id=f"scan-{copy:04d}", part="0")
    return len(rows)


def _attempts(tables: ScanTables, datasets: int) -> None:
    """A sweep of windows of a thousand records each: a row when it starts and one when it ends."""
    windows = max(1, datasets // 1000)
    started = SCANNED + timedelta(hours=1)
    frame = pl.DataFrame({"window": range(windows)}).with_columns(
        (pl.lit(datetime(2022, 1, 1)) + pl.duration(hours=pl.col("window") * 24)).alias("window_start")  # noqa: DTZ001
    )
    ends = pl.DataFrame({"status": ["PENDING", "DOWNLOADED"], "step": [0, 1]})
    rows = frame.join(ends, how="cross").with_columns(
        (pl.col("window") * 2 + pl.col("step") + 1).alias("attempt_id"),
        (pl.col("window_start") + pl.duration(hours=24)).alias("window_end"),
        pl.lit("metadata_store").alias("source"),
        pl.lit('{"sweep":"1"}').alias("query"),
        pl.lit(started).alias("started_at"),
        pl.when(pl.col("step") == 1).then(pl.lit(started)).alias("finished_at"),
        pl.lit(started).alias("recorded_at"),
        pl.when(pl.col("step") == 1).then(1000).alias("records"),
    )
    table = tables.attempts
    whole = rows.with_columns(
        pl.lit(None, dtype).alias(name) for name, dtype in table.schema.items() if name not in rows.columns
    )
    table.append(whole, job_id="sweep", part="0")


def _ops(tables: ScanTables) -> pl.Series:
    ops = tables.datasets.scan().select("observing_program_execution_id").unique().collect().to_series()
    return ops.drop_nulls().sort()


def make_transitions(lake: Path, ops: pl.Series, count: int, *, first_id: int = 1) -> int:
    """Export about ``count`` transitions of these OPs; lives are short for most and long for a few."""
    table = exported_table(lake, "transitions")
    table.ensure()
    written = 0
    for number, frame in enumerate(_frames(ops, count, first_id, table)):
        low, high = int(frame["transition_id"][0]), int(frame["transition_id"][-1])
        table.append(frame, job_id="export", part=f"{number:05d}", claim=Claim(low - 1, high))
        written += len(frame)
    return written


def add_transitions(lake: Path, count: int) -> int:
    """Export one step more of each of up to ``count`` OPs, as a pass does; those that moved last go on."""
    table = exported_table(lake, "transitions")
    key = pl.col("transition_id")
    through = table.scan().select(key.max()).collect().item()
    # The last of an OP in the last rows is its last.
    rows = table.scan().filter(key > through - 500_000).collect().sort(key)
    rows = rows.unique("op_id", keep="last", maintain_order=True).filter(pl.col("to_state") != "Error")
    moment = rows["recorded_at"].max()
    rows = rows.head(count).with_columns(
        pl.int_range(through + 1, through + 1 + pl.len()).alias("transition_id"),
        pl.col("seq") + 1,
        pl.col("to_state").alias("from_state"),
        pl.when(pl.col("to_state") == "Published")
        .then(pl.lit("Invertible"))
        .otherwise(pl.lit("Error"))
        .alias("to_state"),
        pl.lit(moment).alias("occurred_at"),
        pl.lit(moment).alias("recorded_at"),
    )
    claim = Claim(through, through + len(rows))
    table.append(rows, job_id="export", part=f"after-{through}", claim=claim)
    return len(rows)


def _frames(ops: pl.Series, count: int, first_id: int, table: BronzeTable) -> Iterator[pl.DataFrame]:
    steps = list(itertools.islice(itertools.chain(LIFE, itertools.cycle(ROUND)), 5 * count // len(ops) + 50))
    known = {(edge.from_state, edge.to_state) for edge in EDGES}
    assert {(None, steps[0]), *itertools.pairwise(steps)} <= known
    inversions, entered = [], 0
    for before, step in zip((None, *steps), steps, strict=False):
        entered += step == "Working" and before != "Error"
        inversions.append(entered if step in ("Working", "Inverted", "Published", "Error") else None)
    life = pl.DataFrame(
        {
            "seq": range(1, len(steps) + 1),
            "from_state": [None, *steps[:-1]],
            "to_state": steps,
            "inversion": inversions,
        },
        schema_overrides={"inversion": pl.Int64},
    )
    with (
        tempfile.TemporaryDirectory(dir=table.root) as folder,
        duckdb.connect(f"{folder}/made.duckdb") as connection,
    ):
        connection.execute("set memory_limit = '4GB'")
        connection.register("life", life.to_arrow())
        connection.register("names", pl.DataFrame({"op_id": ops}).to_arrow())
        connection.execute(_LIVES, [count / len(ops)])
        reader = connection.execute(_ROWS, [first_id - 1, _STATISTICS]).to_arrow_reader(ROWS_PER_FILE)
        rest = pl.DataFrame(schema=table.schema)
        for batch in reader:
            rest = pl.concat([rest, pl.DataFrame(batch).cast(dict(table.schema))])
            while len(rest) >= ROWS_PER_FILE:
                yield rest.head(ROWS_PER_FILE)
                rest = rest.slice(ROWS_PER_FILE)
        if len(rest):
            yield rest


# Half of the OPs live a fifth of the mean, a tenth of them four times as long.
_LIVES = """
create table lives as
with ops as (
    select op_id, row_number() over (order by op_id) as number, hash(op_id) % 10 as draw from names
),
lengths as (
    select
        *,
        greatest(2, round($1 * case when draw = 0 then 4.0 when draw < 5 then 1.25 else 0.2 end)) as steps
    from ops
)
select
    lengths.op_id, lengths.number, life.seq, life.from_state, life.to_state, life.inversion,
    hash(lengths.op_id) % 1000000 / 1e3 + life.seq * (0.7 + draw / 15) as moment
from lengths inner join life on life.seq <= lengths.steps
"""

# The ninth step of an OP is the Inverted of what it publishes first.
_STATISTICS = ',"statistics":' + json.dumps(
    [
        {
            "file": file,
            "quantity": name,
            "unit": unit,
            "finite_share": 0.9973,
            "minimum": -4127.25,
            "mean": 1289.0625,
            "maximum": 8317.5,
            "deviation": 731.4375,
            "impossible_share": 0.00125,
            "unusual_share": 0.0175,
        }
        for file, name, unit in (
            *((MODEL_FILE, quantity.name, quantity.unit) for quantity in QUANTITIES),
            *((file, f"Stokes {name}", "") for file in (FITTED_FILE, OBSERVED_FILE) for name in "IQUV"),
        )
    ],
    separators=(",", ":"),
)

_ROWS = """
select
    $1 + row_number() over (order by moment, op_id) as transition_id,
    op_id,
    seq,
    from_state,
    to_state,
    timestamp '2022-01-01' + to_microseconds((moment * 1e10)::bigint) as occurred_at,
    occurred_at + interval 3 milliseconds as recorded_at,
    case when inversion is null then 'pipeline' else 'person' || number % 40 end as actor,
    case when inversion is null then 'as the verdict says' else 'by hand' end as cause,
    sha256(op_id || (seq // 7)::varchar) as inputs_hash,
    '2025-11' as rule_version,
    'inv.' || number::varchar || 'x' || inversion::varchar as inversion_id,
    md5((moment * 100)::bigint::varchar) as run_id,
    '{"buckets":["data"],"dataset_ids":["' || substr(md5(op_id), 1, 5) || '","' || substr(md5(op_id), 6, 5)
    || '","' || substr(md5(op_id), 11, 5) || '"],"instrument_program_id":"id.' || number::varchar || '.'
    || (seq // 7)::varchar || '","package":"inputs/' || op_id
    || '/inputs.json","spectral_lines":["Fe I (630.15 nm)","Ca II (854.21 nm)"]'
    || case when seq = 9 then $2 else '' end || '}' as details
from lives
order by moment, op_id
"""
