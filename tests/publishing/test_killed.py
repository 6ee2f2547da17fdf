"""Killed at every step of taking products home and publishing them, it ends as if nothing had happened."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from publishing_world import PACKAGE, PROPOSAL, World

from dagster_l2.base.files import sha256
from dagster_l2.ledger import State, Verdict
from dagster_l2.products import PRODUCT_FILES, SyntheticShape, write_products
from dagster_l2.publishing import PublishStep

SHAPE = SyntheticShape(depth=2, wavelengths=4, y=2, x=3)


class Killer:
    """Hand-over runs in copies of one process, which die where they are told to."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("kill_publisher.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, data: Path, die_at: int | None = None) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        told = {
            "data": str(data),
            "ledger": self.world.ledger_url,
            "schema": self.world.schema,
            "store": self.world.store_url,
            "die_at": die_at,
        }
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        report: dict[str, Any] = json.loads(self.process.stdout.readline())
        return report

    def close(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture
def killer(world: World) -> Iterator[Killer]:
    killer = Killer(world)
    yield killer
    killer.close()


def handed_over(world: World, op_id: str, data: Path) -> str:
    """An OP whose products are said to be ready; its inversion id."""
    ledger = world.ledger
    ledger.decide([Verdict(op_id, True, True, True, inputs_hash="h1", rule_version="r1")], actor="pipeline")
    folder = data / "inputs" / op_id
    folder.mkdir(parents=True)
    row = {"dataset_id": "AAAAA", "bucket": "data", "spectral_lines": PACKAGE["spectral_lines"]}
    package = {
        "schema_version": 1,
        "op_id": op_id,
        "proposal_id": PROPOSAL,
        "instrument_program_id": PACKAGE["instrument_program_id"],
        "groups": [{"arm": None, "spectral_lines": PACKAGE["spectral_lines"], "datasets": [row]}],
    }
    (folder / "inputs.json").write_text(json.dumps(package))
    details = {**PACKAGE, "dataset_ids": ["AAAAA"]}
    ledger.record_preprocessed(op_id, inputs_hash="h1", details=details, run_id=None, actor="pipeline")
    inversion_id = str(ledger.claim(op_id, actor="ana").inversion_id)
    products = write_products(
        data / "there",
        op_id=op_id,
        inversion_id=inversion_id,
        lines=PACKAGE["spectral_lines"],
        seed=1,
        shape=SHAPE,
    )
    ledger.submit_ready(op_id, products=str(products), commit_hash="c0ffee1", actor="ana")
    return inversion_id


def end_state(world: World, op_id: str, inversion_id: str, data: Path) -> dict[str, Any]:
    """All that others see of an inversion, with its id taken out."""
    prefix = f"{PROPOSAL}/{inversion_id.replace('.', '_')}"
    published = data / "published"
    messages = [json.loads(path.read_text()) for path in (published / "outbox").rglob("*.json")]
    records = [record for record in world.published() if record["inversionId"] == inversion_id]
    home, level2 = data / "products" / inversion_id, data / "level2" / prefix
    out = list((published / "data" / prefix).iterdir())
    stem = inversion_id.upper().replace(".", "_")
    return {
        "states": world.states(op_id),
        "steps": list(world.ledger.steps_of(inversion_id)),
        "messages": sorted(message["objectName"].removeprefix(f"{prefix}/{stem}") for message in messages),
        "records": [(record["datasetIds"], record["bucket"]) for record in records],
        "at home": sorted(path.name for path in home.iterdir() if not path.name.startswith(".")),
        "out": sorted(
            path.name.removeprefix(stem) for path in out if sha256(path) == sha256(level2 / path.name)
        ),
        "left": [str(path) for path in data.rglob("*.tmp")],
    }


def test_killed_at_any_step_of_verify_and_publish_it_ends_the_same(
    world: World, killer: Killer, tmp_path: Path
) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    inversion_id = handed_over(world, "whole", whole)
    taken = killer.run(whole)
    assert (taken["code"], taken["said"]) == (0, [])
    steps = taken["steps"]
    # The code enumerates its steps; all the recorded ones are among them, and so is each rename.
    assert {f"record {name}" for name in PublishStep} <= set(steps)
    assert {f"rename {name}" for name in PRODUCT_FILES} <= set(steps)
    expected = end_state(world, "whole", inversion_id, whole)
    assert expected["states"][-2:] == [State.INVERTED, State.PUBLISHED]
    assert (world.creates(), len(expected["records"]), len(expected["messages"])) == (1, 1, 3)
    assert expected["out"] == expected["messages"]
    assert expected["left"] == []

    # Of the three files and messages the one in the middle teaches nothing new, and of the files that go out
    # the last one tells all; on PostgreSQL, which these steps cannot tell from SQLite, every sixth.
    messages = [step.split()[-1] for step in steps if step.startswith("rename") and "-" in step]
    fits = [step.split()[-1] for step in steps if step.startswith("rename INV_") and step.endswith(".fits")]
    middle = {PRODUCT_FILES[1], *fits, messages[1]}
    telling = [at for at, step in enumerate(steps) if step.split()[-1] not in middle]
    if not world.ledger_url.startswith("sqlite"):
        telling = telling[::6]
    for number, at in enumerate(telling):
        name, data = f"op{at}", tmp_path / str(at)
        data.mkdir()
        inversion_id = handed_over(world, name, data)
        assert killer.run(data, die_at=at)["code"] == -signal.SIGKILL, steps[at]
        after = killer.run(data)
        assert (after["code"], after["said"]) == (0, []), steps[at]
        assert end_state(world, name, inversion_id, data) == expected, steps[at]
        assert world.creates() == number + 2, steps[at]
