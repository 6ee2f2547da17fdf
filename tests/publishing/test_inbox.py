"""Ready events by every door: each one's outcome is recorded, nothing is lost or taken twice."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from publishing_world import OP, PACKAGE, World

from dagster_l2.answers.orders import read_checksums
from dagster_l2.ledger import Receipt, Verdict
from dagster_l2.pipeline.intake import take_files, take_in
from dagster_l2.settings import Settings

DROP = Path(__file__).parents[2] / "contrib" / "l2-drop.py"
OPERATORS = frozenset({"operator"})
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def working(world: World, op_id: str = OP) -> str:
    ledger = world.ledger
    if op_id not in ledger.present_all():
        verdict = Verdict(op_id, True, True, True, inputs_hash="h1", rule_version="r1")
        ledger.decide([verdict], actor="pipeline")
        ledger.record_preprocessed(op_id, inputs_hash="h1", details=PACKAGE, run_id=None, actor="pipeline")
    return str(ledger.claim(op_id, actor="ana").inversion_id)


def event(**changes: Any) -> dict[str, Any]:
    said = {"event_id": "e1", "op_id": OP, "products": "/there", "commit": "c0ffee1", "actor": "ana"}
    return {**said, **changes}


def drop(world: World, name: str, body: str | dict[str, Any]) -> list[Receipt]:
    """Drop a file and take in what waits."""
    inbox = world.folder / "inbox"
    inbox.mkdir(exist_ok=True)
    text = body if isinstance(body, str) else json.dumps(body)
    (inbox / f".{name}.tmp").write_text(text)
    (inbox / f".{name}.tmp").rename(inbox / name)
    return list(take_files(world.ledger, inbox, OPERATORS))


def test_a_dropped_file_becomes_an_event_once(world: World) -> None:
    inversion_id = working(world)
    assert take_in(Settings(data_dir=world.folder), world.ledger) == []  # which makes the inbox
    (world.folder / "inbox" / ".half.json").write_text("{")
    made = world.folder / "made"
    made.mkdir()
    (made / "inv_res_mod.fits").write_bytes(b"as it was made")
    arguments = ["--inbox", str(world.folder / "inbox"), "--products", "/there", "--commit", "c0ffee1"]
    arguments += ["--here", str(made)]
    said = subprocess.run(
        [sys.executable, "-S", "-I", str(DROP), OP, *arguments, "--as", "ana", "--datasets", "AAAAA"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    (receipt,) = take_files(world.ledger, world.folder / "inbox", OPERATORS)
    assert (receipt.outcome, receipt.door, receipt.event_id) == ("taken", "file", said)
    (pending,) = world.ledger.pending_events()
    assert (pending.event_id, pending.inversion_id, pending.dataset_ids) == (said, inversion_id, ["AAAAA"])
    digest = hashlib.sha256(b"as it was made").hexdigest()
    assert pending.details["checksums"] == {"inv_res_mod.fits": digest}
    assert [path.name for path in (world.folder / "inbox" / "taken").iterdir()] == [f"{said}.json"]

    # Killed before the file was moved: the same file is met again, and nothing is added.
    (world.folder / "inbox" / "taken" / f"{said}.json").rename(world.folder / "inbox" / f"{said}.json")
    (again,) = take_files(world.ledger, world.folder / "inbox", OPERATORS)
    assert again == receipt
    assert len(world.ledger.receipts()) == len(world.ledger.pending_events()) == 1
    assert (world.folder / "inbox" / ".half.json").exists()


def test_each_thing_that_is_not_taken_says_why(world: World) -> None:
    world.ledger.decide([Verdict("new", True, True, True, inputs_hash="h", rule_version="r")], actor="p")
    first = working(world)
    world.ledger.release(OP, actor="ana")
    second = working(world)
    later, earlier = ((NOW + timedelta(minutes=minutes)).isoformat() for minutes in (5, 1))
    given: list[tuple[str | dict[str, Any], str, str]] = [
        ("{", "malformed", "Invalid JSON"),
        ("[]", "malformed", "object"),
        ({"op_id": OP}, "malformed", "event_id: Field required"),
        (event(commit="HEAD"), "malformed", "commit"),
        (event(sent_at="2026-01-01T00:00:00"), "malformed", "says no zone"),
        (event(checksums={"a.fits": "c0ffee"}), "malformed", "checksums.a.fits"),
        (event(op_id=OP + "x"), "unknown_op", "no OP"),
        (event(inversion_id="inv.NEVER1"), "wrong_inversion", "never had an inversion inv.NEVER1"),
        (event(inversion_id=first), "out_of_order", f"its inversion {first} is over"),
        (event(op_id="new"), "out_of_order", "only a Working OP"),
        (event(actor="bob"), "refused", "only ana or an operator"),
        (event(dataset_ids=["ZZZZZ"]), "refused", "not of the input package"),
        (event(inversion_id=second, sent_at=later), "taken", "None"),
        (event(inversion_id=second, sent_at=later), "duplicate", "was taken already"),
        (event(products="/elsewhere"), "refused", "was used at"),
        (event(event_id="e2", sent_at=earlier), "out_of_order", "before another hand-over"),
        (event(event_id="e3", actor="operator"), "taken", "None"),
    ]
    for number, (body, outcome, why) in enumerate(given):
        (receipt,) = drop(world, f"{number:02}.json", body)
        assert (receipt.outcome, why in str(receipt.reason)) == (outcome, True), receipt
    assert [event.event_id for event in world.ledger.pending_events()] == ["e1", "e3"]
    shown = world.ledger.receipts()
    assert [one.outcome for one in reversed(shown)] == [outcome for _, outcome, _ in given]
    refused = world.folder / "inbox" / "refused"
    for number, (_, outcome, why) in enumerate(given):
        if outcome not in ("taken", "duplicate"):
            assert (refused / f"{number:02}.json").exists()
            reason = (refused / f"{number:02}.reason.txt").read_text()
            assert reason.startswith(f"{outcome}: ")
            assert why in reason
    assert len(list(refused.iterdir())) == 2 * 14


@pytest.mark.parametrize("how", ["folder", "link", "large", "bytes"])
def test_odd_things_in_the_inbox_stop_nothing(world: World, how: str) -> None:
    working(world)
    inbox = world.folder / "inbox"
    inbox.mkdir()
    odd = inbox / "a.json"
    if how == "folder":
        odd.mkdir()
    elif how == "link":
        odd.symlink_to("/dev/zero")
    else:
        odd.write_bytes(b"[" + b" " * 2_000_000 if how == "large" else b"\xff\x00{")
    outcomes = [receipt.outcome for receipt in drop(world, "b.json", event())]
    assert outcomes == ["malformed", "taken"]
    assert not odd.exists()
    assert (inbox / "refused" / "a.reason.txt").read_text().startswith("malformed: It ")


def test_a_file_that_cannot_be_moved_stops_no_other(world: World, caplog: pytest.LogCaptureFixture) -> None:
    working(world)
    refused = world.folder / "inbox" / "refused"
    refused.parent.mkdir()
    refused.write_text("a file where the folder should be")
    assert [receipt.outcome for receipt in drop(world, "a.json", "{")] == ["malformed"]
    assert "cannot be moved" in caplog.text
    # It is met again without adding anything, and does not stand in the way of the next.
    assert [receipt.outcome for receipt in drop(world, "b.json", event())] == ["malformed", "taken"]
    assert len(world.ledger.receipts()) == 2
    refused.unlink()
    list(take_files(world.ledger, world.folder / "inbox", OPERATORS))
    assert (refused / "a.json").exists()


def test_what_sha256sum_prints_is_read_as_checksums(tmp_path: Path) -> None:
    names = ["a.fits", "with a blank.fits"]
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    printed = subprocess.run(
        ["sha256sum", *(str(tmp_path / name) for name in names)], capture_output=True, check=True
    ).stdout
    (tmp_path / "sums").write_bytes(printed)
    assert read_checksums(tmp_path / "sums") == {
        name: hashlib.sha256(name.encode()).hexdigest() for name in names
    }
