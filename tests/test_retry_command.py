"""``l2 retry``: one OP, or all that an outage left in Error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dagster_l2.ledger import Ledger, State, Verdict
from tests.end_to_end.kit import Pipeline


@pytest.fixture
def l2(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path)


@pytest.fixture
def ledger(l2: Pipeline) -> Iterator[Ledger]:
    l2.data.mkdir()
    with Ledger.open(f"sqlite:///{l2.data / 'l2.sqlite'}") as ledger:
        ops = ("a", "b", "c", "fine")
        ledger.decide([Verdict(op_id, True, True, True, inputs_hash="h") for op_id in ops], actor="pipeline")
        for op_id, step, error_class in (
            ("a", "preprocess", "transient"),
            ("b", "preprocess", "permanent"),
            ("c", "other", "transient"),
        ):
            call = {"step": step, "error_class": error_class, "message": f"no {step}"}
            ledger.fail(op_id, **call, actor="pipeline", run_id=None)
        yield ledger


def in_error(ledger: Ledger) -> list[str]:
    return [row.op_id for row in ledger.errors()]


def test_one_op_says_what_had_failed(l2: Pipeline, ledger: Ledger) -> None:
    said = l2.here("retry", "a", "--as", "ann").out
    assert said == (
        "a failed in preprocess (transient): no preprocess\n"
        "It is Invertible again; the next pass goes on with it.\n"
    )
    assert (ledger.present("a").state, ledger.present("a").actor) == (State.INVERTIBLE, "ann")
    found = l2.here("retry", "b", "--json").json
    assert (found["state"], found["step"], found["class"], found["tries"]) == (
        *("Invertible", "preprocess", "permanent"),
        1,
    )
    for op_id in ("a", "fine"):
        assert "only an OP in Error can be retried" in l2.here("retry", op_id, code=1).error


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ([], []),
        (["--step", "preprocess"], ["c"]),
        (["--class", "transient"], ["b"]),
        (["--step", "preprocess", "--class", "transient"], ["b", "c"]),
        (["--step", "publish"], ["a", "b", "c"]),
    ],
)
def test_all_of_a_step_or_a_class(l2: Pipeline, ledger: Ledger, options: list[str], left: list[str]) -> None:
    count = 3 - len(left)
    said = l2.here("retry", "--all", *options).out.splitlines()
    back = f"{count} of {count} in Error are back; the next pass goes on with them."
    assert said[0] == (back if count else "No such OP is in Error.")
    assert in_error(ledger) == left
    assert l2.here("retry", "--all", *options, "--json").json == []


def test_what_cannot_be_meant(l2: Pipeline, ledger: Ledger) -> None:
    for options in ([], ["a", "--all"], ["a", "--step", "preprocess"], ["--class", "transient"]):
        assert "Name one OP, or take --all" in l2.here("retry", *options, code=2).error
    assert in_error(ledger) == ["a", "b", "c"]
