"""Gold asked about one OP at a time from memory says what DuckDB says, also of a gold that is new."""

from __future__ import annotations

from pathlib import Path

import pytest
from service_world import make_gold, op_name

from dagster_l2.answers.explain import read_judged
from dagster_l2.answers.gold_by_op import GoldByOp
from dagster_l2.pipeline.gold import BadQuery, NoGold, OpenGold

OPS = 30


def test_answers_are_those_of_duckdb_and_follow_a_new_gold(tmp_path: Path) -> None:
    path = tmp_path / "l2.duckdb"
    gold = OpenGold(path)
    by_op = GoldByOp(gold)
    questions = [
        "select * from observing_programs where op_id = ?",
        "select criterion, instrument from op_criteria as c where c.op_id = ? order by position desc",
        "select unnest(instruments) as instrument, start_time from observing_programs where op_id = ?",
    ]
    with pytest.raises(NoGold):
        by_op(questions[0], [op_name(0)])
    for ops in (OPS, OPS + 1):
        make_gold(tmp_path / "next.duckdb", ops)
        (tmp_path / "next.duckdb").replace(path)
        for name in (*map(op_name, range(OPS + 2)), "' or true --"):
            for question in questions:
                assert by_op(question, [name]) == gold.read(question, [name])
            assert read_judged(by_op, name) == read_judged(gold.read, name)
        assert by_op("select count(*) as n from observing_programs") == [{"n": ops}]
    with pytest.raises(BadQuery):
        by_op("select * from nothing where op_id = ?", ["a"])
    gold.close()
