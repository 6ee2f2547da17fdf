"""The merge: sorted, each key once and the newest, the same bytes however it was cut, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dagster_l2.batch import MergeError, Order, merge_files
from dagster_l2.batch.merge import write_rows
from dagster_l2.batch.pieces import OtherColumns

ORDER = Order(sort_by=("time", "sensor"), key=("sensor", "time"), newest_by="created")
SCHEMA: dict[str, pl.DataType] = {
    "sensor": pl.String(),
    "time": pl.Int64(),
    "created": pl.Int64(),
    "value": pl.Int64(),
    "pos": pl.List(pl.Float64()),
    "list": pl.List(pl.Struct({"name": pl.String(), "n": pl.Int32()})),
}

moment = st.one_of(st.none(), st.integers(0, 12))
row = st.tuples(st.sampled_from(["a", "b"]), moment, moment)
files = st.lists(st.lists(row, max_size=12), min_size=1, max_size=9)


def write(folder: Path, contents: list[list[tuple[Any, Any, Any]]]) -> list[Path]:
    out = []
    for number, rows in enumerate(contents):
        frame = pl.DataFrame(
            [(*r, 100 * number + i, [1.0, i], [{"name": "x", "n": i}]) for i, r in enumerate(rows)],
            schema=SCHEMA,
            orient="row",
        )
        once = ORDER.once(frame)
        path = folder / f"{number}.parquet"
        write_rows(lambda once=once: iter([once]), path, SCHEMA, group_rows=3)  # type: ignore[misc]
        out.append(path)
    return out


def plainly(contents: list[list[tuple[Any, Any, Any]]]) -> list[tuple[Any, ...]]:
    """The same, said with a dictionary."""
    newest: dict[Any, Any] = {}
    for number, rows in enumerate(contents):
        for i, (sensor, time, created) in enumerate(rows):
            old = newest.get((time, sensor))
            if old is None or (created is not None and (old[2] is None or created > old[2])):
                newest[(time, sensor)] = (sensor, time, created, 100 * number + i)
    keys = sorted(newest, key=lambda key: (key[0] is not None, key[0] or 0, key[1]))
    return [newest[key] for key in keys]


@settings(max_examples=25)
@given(files)
def test_whatever_the_files_hold_the_newest_of_each_key_comes_out_in_order(
    tmp_path_factory: pytest.TempPathFactory, contents: list[list[tuple[Any, Any, Any]]]
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    inputs, found = write(folder, contents), set()
    for fan_in, memory in ((None, 2**20), (2, 2**20), (3, 1)):
        output = folder / "out.parquet"
        merged = merge_files(
            inputs, output, order=ORDER, schema=SCHEMA, scratch=folder, fan_in=fan_in, memory_bytes=memory
        )
        frame = pl.read_parquet(output)
        assert frame.select("sensor", "time", "created", "value").rows() == plainly(contents)
        assert merged.rows == len(frame)
        kept = sum(len(pl.read_parquet(path)) for path in inputs)
        assert merged.duplicates_removed == kept - len(frame)
        found.add(output.read_bytes())
    assert len(found) == 1
    assert {path.name for path in folder.iterdir()} == {path.name for path in [*inputs, output]}


def test_the_tree_is_as_deep_as_its_width_asks(tmp_path: Path) -> None:
    inputs = write(tmp_path, [[("a", i, 0)] for i in range(100)])
    out = tmp_path / "out.parquet"
    levels = {
        fan_in: merge_files(inputs, out, order=ORDER, schema=SCHEMA, scratch=tmp_path, fan_in=fan_in).levels
        for fan_in in (2, 10, None)
    }
    assert levels == {2: 7, 10: 2, None: 1}


def test_a_file_with_other_columns_is_refused_and_named(tmp_path: Path) -> None:
    inputs = write(tmp_path, [[("a", 1, 1)], [("a", 2, 1)]])
    swapped = pl.read_parquet(inputs[1]).select("time", "sensor", "created", "value", "pos", "list")
    swapped.write_parquet(inputs[1])
    with pytest.raises(OtherColumns, match=r"1\.parquet .* their order"):
        merge_files(inputs, tmp_path / "o.parquet", order=ORDER, schema=SCHEMA, scratch=tmp_path)


def test_an_order_that_would_tear_keys_apart_is_refused() -> None:
    with pytest.raises(MergeError, match="value, which is no part of their key"):
        Order(sort_by=("time", "value"), key=("sensor", "time"), newest_by="created")


def test_a_merge_of_one_at_a_time_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MergeError, match="2 or more"):
        merge_files([], tmp_path / "o.parquet", order=ORDER, schema=SCHEMA, scratch=tmp_path, fan_in=1)


def test_nothing_merges_to_a_file_without_rows(tmp_path: Path) -> None:
    out = tmp_path / "out.parquet"
    assert merge_files([], out, order=ORDER, schema=SCHEMA, scratch=tmp_path).rows == 0
    assert pq.read_metadata(out).num_rows == 0
    assert pl.read_parquet_schema(out) == pl.Schema(SCHEMA)


MEMORY = """
import resource, sys
from pathlib import Path
import polars as pl
from dagster_l2.batch import Order, merge_files
from dagster_l2.batch.merge import write_rows
folder, count = Path(sys.argv[1]), int(sys.argv[2])
schema = {"time": pl.Int64(), "id": pl.Int64(), "created": pl.Int64(), "text": pl.String()}
def rows(n):
    times = pl.int_range(0, 20_000, eager=True) * 7 + n % 7
    yield pl.DataFrame({"time": times, "id": pl.repeat(n, 20_000, eager=True, dtype=pl.Int64),
                        "created": times}).with_columns(text=pl.format("text of {} and {}", "time", "id"))
inputs = [folder / f"{n}.parquet" for n in range(count)]
for n, path in enumerate(inputs):
    write_rows(lambda: rows(n), path, schema, group_rows=1000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
order = Order(("time", "id"), ("id", "time"), "created")
merged = merge_files(inputs, folder / "o.parquet", order=order, schema=schema, scratch=folder,
                     memory_bytes=2 * 2**20)
assert merged.rows == 20_000 * count
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_twice_the_rows_need_no_more_memory(tmp_path: Path) -> None:
    needed = []
    for count in (12, 24):
        folder = tmp_path / str(count)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", MEMORY, str(folder), str(count)],
            capture_output=True,
            text=True,
            check=True,
        )
        needed.append(int(done.stdout))
    assert needed[1] < needed[0] + 40, needed
