"""The client of the cluster as a process: one order each, though answers are cut off or it is killed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.cluster import CLIENT, cutting


@pytest.fixture
def l2_ready(world, tmp_path):
    """A function that runs the client with bob's token."""

    def run(*arguments: Any, url: str = world.url, token: str | None = None) -> tuple[int, str, str]:
        environment = {
            "PATH": os.environ["PATH"],
            "L2_URL": url,
            "L2_STATE": str(tmp_path / "state"),
            "L2_TOKEN": world.token("bob", "scientist") if token is None else token,
        }
        # Isolated: nothing but the standard library is there.
        command = [sys.executable, "-I", "-S", str(CLIENT), *map(str, arguments)]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        return done.returncode, done.stdout.strip(), done.stderr.strip()

    return run


def test_from_the_queue_to_one_ready_event_though_every_first_answer_is_cut_off(
    world, new_op, l2_ready, tmp_path
):
    op, products = new_op(), tmp_path / "products"
    products.mkdir()
    (products / "inv_res_mod.fits").write_bytes(b"x" * 3_000_000)
    assert op in l2_ready("queue", "--limit", 1000)[1]
    with cutting(world.url, 1) as way:
        status, inversion, errors = l2_ready("claim", op, url=way)
    assert (status, inversion) == (0, world.ledger.present(op).inversion_id)
    assert errors.startswith("No answer from"), "Who waits is told why, in one line."
    assert "\n" not in errors
    with cutting(world.url, 2) as way:
        arguments = ("ready", op, "--products", products, "--commit", "abcdef1")
        status, event_id, errors = l2_ready(*arguments, url=way)
    assert (status, errors.count("\n")) == (0, 0)
    ((event, _outcome),) = world.ledger.events(op)
    assert event.event_id == event_id
    digest = hashlib.sha256(b"x" * 3_000_000).hexdigest()
    assert event.details["checksums"] == {"inv_res_mod.fits": digest}
    assert len(world.ledger.history(op)) == 4
    assert list((tmp_path / "state").iterdir()) == []


def test_an_order_that_was_never_answered_goes_on_with_its_key_at_the_next_call(
    world, new_op, l2_ready, tmp_path
):
    op = new_op()
    # As a client leaves it that was killed after it had sent the order and before the answer came.
    key = "0b8f5c0e-6f5a-4c2e-9a53-0f6f3c8f4f0a"
    with world.client("bob") as bob:
        headers = {"Idempotency-Key": key}
        claimed = bob.post(f"/observing-programs/{op}/claim", headers=headers).json()
    what = json.dumps([world.url, op, "claim", None], sort_keys=True)
    state = tmp_path / "state"
    state.mkdir()
    (state / (hashlib.sha256(what.encode()).hexdigest()[:32] + ".json")).write_text(json.dumps({"key": key}))
    assert l2_ready("claim", op) == (0, claimed["inversion_id"], "")
    assert len(world.ledger.history(op)) == 4
    # Answered, so the next is another order, and refused; the refusal is cut off and asked for again.
    with cutting(world.url, 1) as way:
        status, _out, errors = l2_ready("claim", op, url=way)
    assert status == 1
    assert "it is yours already" in errors.splitlines()[-1]


def test_a_wrong_token_and_products_that_are_not_there_are_said_in_a_line(world, new_op, l2_ready, tmp_path):
    status, _out, errors = l2_ready("queue", token="l2_no")
    assert (status, "does not hold" in errors, "l2_no" in errors) == (1, True, False)
    status, _out, errors = l2_ready("ready", new_op(), "--products", tmp_path, "--commit", "abcdef1")
    assert (status, "no FITS file" in errors) == (1, True)
