"""What fails by itself comes right by itself: real steps over a real store, disk and ledger, no person."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.staticfiles import StaticFiles

from dagster_l2.assets import ledger as assets
from dagster_l2.errors import L2Error, error_class, one_sentence_of
from dagster_l2.files import sha256
from dagster_l2.homecoming import Places
from dagster_l2.inputs import Collection, Transfers
from dagster_l2.ledger import Ledger, State, Verdict
from dagster_l2.products import PRODUCT_FILES, Limits, ProductsRefused, SyntheticShape, write_products
from dagster_l2.publishing import Outbox, PublishArea
from dagster_l2.resources import default_resources
from dagster_l2.settings import load_settings
from dagster_l2.steps import StepReport, prepare_inputs, publish_inverted, settle_events
from dagster_l2.store import StoreClient, StoreRefused, StoreUnreachable
from dagster_l2.store.server import LocalStoreServer
from dagster_l2.wiring import places_of
from tests.end_to_end.kit import TOKEN, Row, Store, by_op, generated, inversions
from tests.inputs.test_globus import TOKEN as GLOBUS_TOKEN
from tests.inputs.test_globus import Globus

pytestmark = pytest.mark.xdist_group("dagster")

CREATE = "createL2InversionInventory"
LINES = ["Fe I (630.15 nm)"]
STEP = {"actor": "pipeline", "run_id": "r"}


@dataclass
class World:
    """A store with the datasets of some OPs, the rows that the warehouse has of them, and a ledger."""

    data: Path
    store: Store
    ledger: Ledger
    rows: dict[str, Row]
    settings: dict[str, str]
    reports: list[StepReport] = field(default_factory=list)

    def decide(self) -> None:
        verdicts = [
            Verdict(op_id, True, True, True, inputs_hash="h", rule_version="r") for op_id in self.rows
        ]
        self.ledger.decide(verdicts, actor="pipeline")

    def prepare(self) -> StepReport:
        return prepare_inputs(self.ledger, self.data, self.rows.values(), **STEP)

    def verify(self) -> StepReport:
        places = Places(may_be_synthetic=True)
        return settle_events(self.ledger, self.data, places=places, **STEP)

    def publish(self) -> StepReport:
        def client() -> StoreClient:
            return StoreClient(self.settings["L2_STORE_URL"], token=TOKEN, attempts=1, patience_s=0.1)

        now = datetime.now(UTC)
        rules = {"mode": "auto", "default_bucket": "data", "publish_embargoed": False, "now": now}
        out = self.data / "published"
        rules |= {"area": PublishArea(out), "bus": Outbox(out / "outbox")}
        return publish_inverted(self.ledger, client, self.data, **rules, **STEP)

    def hand_over(self, op_id: str, wrong_sum_of: str | None = None) -> Path:
        inversion = str(self.ledger.claim(op_id, actor="ann").inversion_id)
        folder = self.data.parent / "inbox" / op_id
        shape = SyntheticShape(depth=3, wavelengths=8, y=4, x=4)
        write_products(folder, op_id=op_id, inversion_id=inversion, lines=LINES, seed=1, shape=shape)
        sums = {path.name: sha256(path) for path in folder.glob("*.fits")}
        if wrong_sum_of is not None:
            sums[wrong_sum_of] = "0" * 64
        self.ledger.submit_ready(
            op_id, products=str(folder), commit_hash="c0ffee1", actor="ann", checksums=sums
        )
        return folder

    def states(self, op_id: str) -> list[str]:
        return [str(row.to_state) for row in self.ledger.history(op_id)]

    def error(self, op_id: str) -> tuple[Any, ...]:
        """State, step, class and tries of an OP in Error."""
        present = self.ledger.present(op_id)
        return (str(present.state), *(present.details.get(name) for name in ("step", "class", "tries")))


@pytest.fixture
def world(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    store = Store(tmp_path, generated(3, seed=2))
    with store.served() as settings:
        for name, text in settings.items():
            monkeypatch.setenv(name, text)
        datasets = [records[0] for records in by_op(store.records.datasets).values()]
        rows = {f"op{number}": _row(f"op{number}", record) for number, record in enumerate(datasets, start=1)}
        data.mkdir()
        with Ledger.open(load_settings().state_url) as ledger:
            yield World(data, store, ledger, rows, settings)


def _row(op_id: str, record: Row) -> Row:
    return {
        "op_id": op_id,
        "dataset_id": record["datasetId"],
        "instrument_program_id": record["instrumentProgramExecutionId"],
        "proposal_id": record["primaryProposalId"],
        "frame_count": record["frameCount"],
        "spectral_lines": LINES,
        "bucket": record["bucket"],
    }


def in_the_way(path: Path) -> Path:
    """Let no folder be made here."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("in the way")
    return path


# -- whole passes -------------------------------------------------------------------------------------------


def a_pass(world: World) -> tuple[dict[str, Any], list[str]]:
    """The steps of a pass as Dagster runs them; what the assets say, and the checks that failed."""
    steps = [assets.decisions, assets.input_packages, assets.handovers, assets.published]
    result = dg.materialize(steps, resources=default_resources(load_settings()))
    assert result.success
    said = [event.materialization.metadata for event in result.get_asset_materialization_events()]
    failed = [one.asset_key.path[-1] for one in result.get_asset_check_evaluations() if not one.passed]
    return {name: value.value for metadata in said for name, value in metadata.items()}, failed


def test_passes_bring_right_what_failed_and_give_up_at_the_limit(world: World) -> None:
    """op1 meets failures that pass, op2 none, op3 one that stays; nobody retries anything."""
    with duckdb.connect(str(load_settings().warehouse)) as connection:
        columns = ("instrument_program_id", "spectral_lines", "failed_criteria", "warnings", "measured")
        nothing = ", ".join(f"null as {name}" for name in columns)
        connection.execute(
            f"create table op_verdicts as select unnest({list(world.rows)}) as op_id, true as has_datasets,"
            " true as is_complete, true as is_invertible, 'h' as inputs_hash, 'r' as rule_version,"
            f" null as dataset_ids, null as buckets, {nothing}"
        )
        connection.execute(
            "create table int_datasets_current as select '' as op_id, '' as instrument, null as bounding_box"
        )
        rows = list(world.rows.values())
        names = ", ".join(f"row.{name}" for name in rows[0])
        connection.execute(
            f"create table int_input_datasets as select {names} from (select unnest($rows) as row)",
            {"rows": rows},
        )
    package, home = in_the_way(world.data / "inputs" / "op1"), world.data / "products"
    in_the_way(world.data / "inputs" / "op3")

    said, failed = a_pass(world)
    assert (said["retried"], failed) == (0, ["input_packages"])
    assert world.error("op1") == ("Error", "preprocess", "transient", 1)
    assert world.states("op2")[-1] == "Preprocessed"
    assert a_pass(world)[0]["retried"] == 2
    assert world.error("op1") == ("Error", "preprocess", "transient", 2)
    package.unlink()
    a_pass(world)
    assert world.states("op1")[-5:] == ["Error", "Invertible", "Error", "Invertible", "Preprocessed"]

    in_the_way(home)
    world.hand_over("op1")
    _, failed = a_pass(world)
    assert (world.error("op1"), failed) == (("Error", "verify", "transient", 1), ["handovers"])
    home.unlink()
    world.store.faults.add("graphql_errors", match=CREATE, times=2)
    for number in (1, 2):
        _, failed = a_pass(world)
        assert (world.error("op1"), failed) == (("Error", "publish", "transient", number), ["inversions"])
    said, failed = a_pass(world)
    assert (said["retried"], said["left_in_error"], failed) == (1, 1, [])
    assert said["last inversion"].startswith("![picture](data:image/png;base64,iVBORw0KGgo")
    assert world.states("op1")[-9:] == [
        *("Working", "Error", "Working", "Inverted"),
        *("Error", "Inverted", "Error", "Inverted", "Published"),
    ]
    assert len(inversions(world.settings)) == 1
    assert {row.actor for row in world.ledger.history("op1")} == {"pipeline", "ann"}
    assert world.states("op3") == ["Discovered", *["Invertible", "Error"] * 3]

    before = list(world.ledger.transitions())
    assert "last inversion" not in a_pass(world)[0]
    assert list(world.ledger.transitions()) == before


# -- each step by itself ------------------------------------------------------------------------------------


@pytest.fixture
def prepared(world: World) -> World:
    world.decide()
    world.prepare()
    return world


def test_a_package_that_is_refused_needs_a_person(world: World) -> None:
    world.rows["op1"]["proposal_id"] = None
    world.decide()
    report = world.prepare()
    assert world.error("op1") == ("Error", "preprocess", "permanent", 1)
    assert [op_id for op_id, _ in report.failed] == ["op1"]
    assert report.done == ["op2", "op3"]


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
    from dagster_l2 import homecoming

    folder = prepared.hand_over("op1")
    (event,) = prepared.ledger.pending_events()
    original = sha256(folder / PRODUCT_FILES[0])
    real = homecoming.verify

    def after_a_change(*arguments: Any, **more: Any) -> Any:
        # The sums are recorded before anybody looks into the files.
        files = prepared.ledger.steps_of(event.event_id)["fetched"].details["files"]
        assert files[0]["sha256"] == original
        (folder / PRODUCT_FILES[0]).write_bytes(b"changed")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(homecoming, "verify", after_a_change)
    assert len(prepared.verify().failed) == 1
    monkeypatch.setattr(homecoming, "verify", real)
    prepared.ledger.retry_transient(3, **STEP)
    assert len(prepared.verify().done) == 1
    home = prepared.data / "products" / str(event.inversion_id)
    assert sha256(home / PRODUCT_FILES[0]) == original


def test_a_copy_that_is_lost_is_not_replaced_by_something_else(
    prepared: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dagster_l2 import homecoming

    folder = prepared.hand_over("op1")
    (event,) = prepared.ledger.pending_events()
    with monkeypatch.context() as patch:
        patch.setattr(homecoming, "verify", lambda *_, **__: Path("/nowhere").read_bytes())
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


def test_a_package_that_is_gone_needs_a_person_and_is_not_tried_for_ever(prepared: World) -> None:
    prepared.hand_over("op1")
    (prepared.data / "inputs" / "op1" / "inputs.json").unlink()
    prepared.verify()
    assert prepared.error("op1") == ("Error", "verify", "permanent", 1)
    assert prepared.ledger.retry_transient(3, **STEP).retried == []
    assert prepared.ledger.pending_events() == []


@pytest.fixture
def inverted(prepared: World) -> World:
    for op_id in ("op1", "op2"):
        prepared.hand_over(op_id)
    assert len(prepared.verify().done) == 2
    return prepared


def test_an_outage_of_the_store_blames_no_op(inverted: World) -> None:
    before = list(inverted.ledger.transitions())
    for fault in ({"kind": "status", "status": 503}, {"kind": "cut", "match": CREATE}, {"kind": "html"}):
        inverted.store.faults.add(**fault)
        assert len(inverted.publish().failed) == 1  # and no other is asked for
        inverted.store.faults.clear()
    assert list(inverted.ledger.transitions()) == before
    assert len(inverted.publish().done) == 2


def test_what_nobody_foresaw_in_one_op_stops_no_other(inverted: World) -> None:
    inverted.ledger.withdraw("op1", actor="ann", reason="to hand over by hand")
    inverted.ledger.append("op1", State.INVERTED, actor="ann", cause="by hand", details={})
    report = inverted.publish()
    assert len(report.done) == 1
    assert inverted.error("op1") == ("Error", "publish", "permanent", 1)
    message = inverted.ledger.present("op1").details["message"]
    assert "please report it: KeyError at dagster_l2.steps:" in message
    assert report.failed == [("op1", message)]


class _Away(L2Error):
    transient = True


def _from(error: L2Error, cause: BaseException) -> L2Error:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), "transient"),
        (PermissionError(13, "Permission denied"), "transient"),
        (StoreUnreachable("away"), "transient"),
        (StoreRefused("no"), "permanent"),
        (_Away("away"), "transient"),
        (L2Error("no"), "permanent"),
        (_from(L2Error("not written"), OSError(28, "full")), "transient"),
        (_from(L2Error("a"), _from(L2Error("b"), OSError(5, "io"))), "transient"),
        (_from(L2Error("not read"), ValueError("not JSON")), "permanent"),
        (KeyError("x"), "permanent"),
    ],
)
def test_the_class_of_an_error(error: BaseException, expected: str) -> None:
    assert error_class(error) == expected


def test_every_error_is_one_sentence() -> None:
    assert one_sentence_of(L2Error("A sentence.")) == "A sentence."
    full = OSError(28, "No space left on device", "/data/x")
    assert one_sentence_of(full).startswith("The disk refused (/data/x): No space left on device. ")
    assert one_sentence_of(ValueError("a\nb")).endswith("report it: ValueError: a b")
