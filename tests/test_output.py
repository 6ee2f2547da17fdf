"""What commands print: tables in terminals of any width, moments in JSON, and nothing that is not so."""

from __future__ import annotations

import json
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from dagster_l2.cli.output import print_json, print_rows
from tests.end_to_end.kit import Pipeline

OP = "eid_2_114_opbOB0Mh_R001.133432.15958086"
ROWS = [
    {"rank": 1, "op_id": OP, "reason": "waits until the embargo ends, then it is published"},
    {"rank": 2, "op_id": OP[::-1], "reason": "waits"},
]


@pytest.mark.parametrize(("width", "lines"), [(200, 3), (90, 4), (40, 8)])
def test_an_id_is_whole_however_narrow_the_terminal(
    width: int, lines: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_rows(ROWS)
    text = capsys.readouterr().out
    assert OP in text
    assert OP[::-1] in text
    assert len(text.splitlines()) == lines
    if width > 40:
        assert max(map(len, text.splitlines()[1:])) <= width  # the head has codes for bold


def test_long_names_of_columns_are_folded_before_rows_become_lines(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_rows([{"op_id": OP, "days_in_state": 1, "is_overdue": True}])
    assert capsys.readouterr().out.splitlines()[-1].split() == [OP, "1", "yes"]


def test_a_moment_in_json_says_that_it_is_utc(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"gold": datetime(2026, 1, 2, 3), "ledger": datetime(2026, 1, 2, 3, tzinfo=UTC)})
    said = json.loads(capsys.readouterr().out)
    assert said["gold"] == said["ledger"] == "2026-01-02T03:00:00+00:00"


@pytest.mark.parametrize("command", [("serve",), ("store", "serve")])
def test_a_server_whose_port_is_taken_does_not_say_that_it_answers(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = str(holder.getsockname()[1])
        said = Pipeline(tmp_path).here(*command, "--port", port, code=1).err
    assert "cannot listen" in said
    assert "answers" not in said
