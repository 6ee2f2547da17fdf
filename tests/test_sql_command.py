"""`l2 sql`: one answer as a table, CSV, JSON and parquet, on the screen and in a file."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from tests.end_to_end.kit import Pipeline

QUERY = "select op_id, lines, since, days from states order by op_id"
ROWS = [
    {
        "op_id": "op_a",
        "lines": ["Fe I (630.15 nm)", "Ca II, odd"],
        "since": "2025-01-02T03:04:05",
        "days": 0.5,
    },
    {"op_id": 'op "b"', "lines": [], "since": None, "days": None},
]


@pytest.fixture
def l2(tmp_path: Path) -> Pipeline:
    (tmp_path / "data").mkdir()
    with duckdb.connect(str(tmp_path / "data" / "l2.duckdb")) as connection:
        connection.execute("create table states (op_id text, lines text[], since timestamp, days double)")
        for row in ROWS:
            connection.execute("insert into states values (?, ?, ?, ?)", list(row.values()))
    return Pipeline(tmp_path)


def test_on_the_screen(l2: Pipeline) -> None:
    expected = sorted(ROWS, key=lambda row: str(row["op_id"]))
    assert l2.here("sql", "--json", QUERY).json == expected
    assert l2.here("sql", "--format", "json", QUERY).json == expected
    first, *rows = csv.reader(io.StringIO(l2.here("sql", "--csv", QUERY).out))
    assert first == ["op_id", "lines", "since", "days"]
    assert rows == [
        ['op "b"', "[]", "", ""],
        ["op_a", '["Fe I (630.15 nm)", "Ca II, odd"]', "2025-01-02 03:04:05", "0.5"],
    ]
    assert "Fe I (630.15 nm), Ca II, odd" in l2.here("sql", QUERY).out
    # The columns are known where there is no row.
    assert l2.here("sql", "--csv", "select op_id, days from states where false").out == "op_id,days\n"


def test_a_long_value_takes_no_more_than_its_line(l2: Pipeline) -> None:
    done = l2.here("sql", "select repeat('ab', 500) as word, 1 as n")
    assert [len(line) < 100 for line in done.out.splitlines()] == [True, True]
    assert "aba…" in done.out
    assert "--format json" in done.err


def test_in_a_file(l2: Pipeline, tmp_path: Path) -> None:
    for name in ("a.json", "a.csv", "a.parquet"):
        assert name in l2.here("sql", QUERY, "--output", str(tmp_path / name)).err
    expected = sorted(ROWS, key=lambda row: str(row["op_id"]))
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == expected
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == l2.here("sql", "--csv", QUERY).out
    table = pq.read_table(tmp_path / "a.parquet")
    assert table.column("lines").to_pylist() == [row["lines"] for row in expected]
    assert str(table.schema.field("since").type) == "timestamp[us]"
    l2.here("sql", "describe states", "--format", "parquet", "--output", str(tmp_path / "columns"))
    assert pq.read_table(tmp_path / "columns").column("column_name").to_pylist() == list(ROWS[0])
    l2.here("sql", "select 1 where false", "--output", str(tmp_path / "none.json"))
    assert json.loads((tmp_path / "none.json").read_text(encoding="utf-8")) == []


def test_now_is_utc_wherever_the_analyst_is(l2: Pipeline) -> None:
    query = "select current_setting('TimeZone') as zone"
    assert l2("sql", "--json", query, TZ="Pacific/Honolulu").json == [{"zone": "UTC"}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--format", "parquet"], "--output"),
        (["--csv", "--json"], "one of"),
        (["--output", "answer.txt"], "--format"),
        (["--output", "nowhere/answer.csv"], "folder"),
    ],
)
def test_what_cannot_be_meant_is_refused(l2: Pipeline, arguments: list[str], said: str) -> None:
    assert said in l2.here("sql", QUERY, *arguments, code=2).error


def test_it_writes_nothing_to_gold_and_leaves_no_half_file(l2: Pipeline, tmp_path: Path) -> None:
    for query in ("drop table states", "create table x as select 1", "selec 1", "set threads = 1"):
        l2.here("sql", query, "--output", str(tmp_path / "x.parquet"), code=2).error  # noqa: B018 - it asserts
    assert "read-only" in l2.here("sql", "delete from states", code=2).error
    l2.here("sql", "select error('no') from states", "--output", str(tmp_path / "x.csv"), code=2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    assert len(l2.here("sql", "--json", "from states").json) == 2
