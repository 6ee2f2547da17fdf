"""Products come home from wherever they lie, and what is only away blames nobody."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from dagster_l2.base.files import sha256
from dagster_l2.inputs import Collection, Transfers
from dagster_l2.ledger import State
from dagster_l2.pipeline.receiving import Places
from dagster_l2.pipeline.steps import settle_events
from dagster_l2.pipeline.wiring import places_of
from dagster_l2.products import PRODUCT_FILES, Limits, ProductsRefused
from dagster_l2.settings import load_settings
from dagster_l2.store.server import LocalStoreServer
from tests.inputs.test_globus import TOKEN as GLOBUS_TOKEN
from tests.inputs.test_globus import Globus
from tests.recovery.recovery_world import STEP, World

pytestmark = pytest.mark.xdist_group("dagster")


def test_products_on_a_disk_that_fails_are_not_refused(prepared: World) -> None:
    """The hand-over waits for the retry and is then taken up as it is."""
    folder, other = prepared.hand_over("op1"), prepared.hand_over("op2")
    kept = (folder / PRODUCT_FILES[0]).rename(folder / "kept")
    # Reading the start of one's own memory is answered with an input/output error, as by a broken disk.
    (folder / PRODUCT_FILES[0]).symlink_to("/proc/self/mem")
    report = prepared.verify()
    assert prepared.error("op1") == ("Error", "verify", "transient", 1)
    assert "Input/output error" in prepared.ledger.present("op1").details["message"]
    assert ([op_id for op_id, _ in report.failed], len(report.done)) == (["op1"], 1)
    assert other.exists()
    assert prepared.ledger.pending_events() == []
    assert prepared.verify().failed == []

    kept.replace(folder / PRODUCT_FILES[0])
    prepared.ledger.retry_transient(3, **STEP)
    assert len(prepared.verify().done) == 1
    assert prepared.states("op1")[-3:] == ["Error", "Working", "Inverted"]


def test_a_file_that_is_not_the_one_whose_sum_was_handed_over_is_refused(prepared: World) -> None:
    prepared.hand_over("op1", wrong_sum_of=PRODUCT_FILES[1])
    prepared.hand_over("op2")
    report = prepared.verify()
    assert report.refused == [("op1", f"{PRODUCT_FILES[1]} is not the file whose SHA-256 was handed over.")]
    assert prepared.ledger.present("op1").state is State.WORKING
    assert prepared.ledger.present("op2").state is State.INVERTED


def test_what_came_home_is_what_is_verified_also_when_the_source_changes(
    prepared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster_l2.pipeline import receiving

    folder = prepared.hand_over("op1")
    (event,) = prepared.ledger.pending_events()
    original = sha256(folder / PRODUCT_FILES[0])
    real = receiving.verify

    def after_a_change(*arguments: Any, **more: Any) -> Any:
        # The sums are recorded before anybody looks into the files.
        files = prepared.ledger.steps_of(event.event_id)["fetched"].details["files"]
        assert files[0]["sha256"] == original
        (folder / PRODUCT_FILES[0]).write_bytes(b"changed")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(receiving, "verify", after_a_change)
    assert len(prepared.verify().failed) == 1
    monkeypatch.setattr(receiving, "verify", real)
    prepared.ledger.retry_transient(3, **STEP)
    assert len(prepared.verify().done) == 1
    home = prepared.data / "products" / str(event.inversion_id)
    assert sha256(home / PRODUCT_FILES[0]) == original


def test_a_copy_that_is_lost_is_not_replaced_by_something_else(
    prepared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster_l2.pipeline import receiving

    folder = prepared.hand_over("op1")
    (event,) = prepared.ledger.pending_events()
    with monkeypatch.context() as patch:
        patch.setattr(receiving, "verify", lambda *_, **__: Path("/nowhere").read_bytes())
        prepared.verify()
    shutil.rmtree(prepared.data / "products" / event.inversion_id)
    with (folder / PRODUCT_FILES[0]).open("ab") as file:
        file.write(b"x")
    prepared.ledger.retry_transient(3, **STEP)
    ((op_id, reason),) = prepared.verify().refused
    assert op_id == "op1"
    assert reason.endswith("the copy here is lost; hand over again.")
    assert prepared.ledger.present("op1").state is State.WORKING
    assert prepared.verify().refused == []


def test_products_come_by_every_way_and_what_is_away_blames_nobody(prepared: World, tmp_path: Path) -> None:
    ledger, folders = prepared.ledger, [prepared.hand_over("op1"), prepared.hand_over("op2")]
    for event in ledger.pending_events():
        ledger.settle(event, _refuse, refusals=(ProductsRefused,), **STEP)
    app = Starlette(routes=[Mount("/", StaticFiles(directory=folders[0]))])
    with LocalStoreServer(app) as server:
        ledger.submit_ready("op1", products=f"{server.url}/", commit_hash="c0ffee1", actor="ann")
    ledger.submit_ready("op2", products=folders[1].name, commit_hash="c0ffee1", actor="ann")
    places = Places(root=tmp_path / "away", limits=Limits(pause=lambda _: None))
    assert len(settle_events(ledger, prepared.data, places=places, **STEP).failed) == 2
    assert [prepared.error(op_id)[2] for op_id in ("op1", "op2")] == ["transient", "transient"]

    port = int(server.url.rpartition(":")[2])
    ledger.retry_transient(3, **STEP)
    with LocalStoreServer(app, port=port):
        places = Places(root=folders[1].parent, may_be_synthetic=True)
        assert len(settle_events(ledger, prepared.data, places=places, **STEP).done) == 2


def test_globus_brings_products_while_others_go_on(prepared: World) -> None:
    folder, ledger = prepared.hand_over("op1"), prepared.ledger
    (event,) = ledger.pending_events()
    ledger.settle(event, _refuse, refusals=(ProductsRefused,), **STEP)
    ledger.submit_ready("op1", products=f"globus://aaa/{folder.name}", commit_hash="c0ffee1", actor="ann")
    prepared.hand_over("op2")
    globus = Globus({"aaa": folder.parent, "bbb": prepared.data.parent})
    with LocalStoreServer(globus.app) as server:
        places = Places(
            open_transfers=lambda: Transfers(GLOBUS_TOKEN, url=server.url),
            here=Collection("bbb", f"/{prepared.data.name}"),
            patience_s=0,
            may_be_synthetic=True,
        )
        report = settle_events(ledger, prepared.data, places=places, **STEP)
        ((op_id, reason),) = report.refused
        assert (op_id, len(report.done)) == ("op1", 1)
        assert "still brings the products" in reason
        assert ledger.present("op1").state is State.WORKING
        assert len(settle_events(ledger, prepared.data, places=places, **STEP).done) == 1
    assert len(globus.tasks) == 1
    assert not list((prepared.data / "globus" / "products").iterdir())


def test_a_transfer_that_globus_forgot_or_failed_leaves_nothing_behind(prepared: World) -> None:
    folder, ledger = prepared.hand_over("op1"), prepared.ledger
    (event,) = ledger.pending_events()
    ledger.settle(event, _refuse, refusals=(ProductsRefused,), **STEP)
    order = {"products": f"globus://aaa/{folder.name}", "commit_hash": "c0ffee1", "actor": "ann"}
    ledger.submit_ready("op1", **order)
    globus = Globus({"aaa": folder.parent, "bbb": prepared.data.parent})
    landing = prepared.data / "globus" / "products"
    with LocalStoreServer(globus.app) as server:
        places = Places(
            open_transfers=lambda: Transfers(GLOBUS_TOKEN, url=server.url),
            here=Collection("bbb", f"/{prepared.data.name}"),
            patience_s=0,
            may_be_synthetic=True,
        )
        settle_events(ledger, prepared.data, places=places, **STEP)
        globus.tasks.clear()
        ((_, reason),) = settle_events(ledger, prepared.data, places=places, **STEP).failed
        assert "No such task" in reason
        ledger.retry("op1", actor="olga")
        ((_, reason),) = settle_events(ledger, prepared.data, places=places, **STEP).refused
        assert "still brings" in reason
        assert len(globus.tasks) == 1

        (landing / "half").mkdir()
        (note,) = landing.glob("*.json")
        (landing / "half").rename(note.with_suffix(""))
        globus.fail = "no room"
        ((_, reason),) = settle_events(ledger, prepared.data, places=places, **STEP).refused
        assert "no room" in reason
        assert not list(landing.iterdir())
        globus.fail = None
        ledger.submit_ready("op1", **order)
        settle_events(ledger, prepared.data, places=places, **STEP)
        assert len(settle_events(ledger, prepared.data, places=places, **STEP).done) == 1


def test_a_configured_store_takes_no_made_up_products_unless_told(prepared: World) -> None:
    prepared.hand_over("op1")
    real = load_settings().model_copy(update={"synthetic_products": None})
    assert load_settings().takes_synthetic
    ((_, reason),) = settle_events(prepared.ledger, prepared.data, places=places_of(real), **STEP).refused
    assert "SYNTHET = T" in reason
    assert "L2_SYNTHETIC_PRODUCTS" in reason
    assert prepared.ledger.present("op1").state is State.WORKING


def _refuse(_: Any) -> dict[str, Any]:
    raise ProductsRefused(["Another way, please"])
