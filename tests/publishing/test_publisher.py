"""Published once, whatever happens: against the real local store and the real ledger."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from publishing_world import OP, PROPOSAL, World, other_record, publish

from dagster_l2.base.files import sha256
from dagster_l2.ledger import Conflict, LedgerError, State, UnknownOp
from dagster_l2.publishing import (
    BusUnavailable,
    NotInverted,
    Outcome,
    PublishFailed,
    PublishResult,
    PublishStep,
    RabbitBus,
)
from dagster_l2.store import (
    StoreClient,
)

CREATE = "createL2InversionInventory"


def test_an_inverted_op_is_published_and_read_back(world: World) -> None:
    inversion_id = world.inverted()
    result = publish(world)
    assert (result.outcome, result.inversion_id, result.is_created) == (
        Outcome.PUBLISHED,
        inversion_id,
        True,
    )
    (record,) = world.published()
    assert record == result.record
    stamp = record.pop("createDate")
    assert stamp
    assert record == {
        "inversionId": inversion_id,
        "primaryProposalId": PROPOSAL,
        "instrumentProgramExecutionId": "id.82591.123456",
        "bucket": "data",
        "asdfObjectKey": None,
        "datasetIds": ["BBBBB", "AAAAA"],
        "spectralLines": ["Fe I (630.15 nm)", "Ca II (854.21 nm)"],
    }
    last = world.ledger.history(OP)[-1]
    assert (last.to_state, last.inversion_id, last.run_id) == (State.PUBLISHED, inversion_id, "run-1")
    assert last.details["bucket"] == "data"
    assert last.details["dataset_ids"] == ["BBBBB", "AAAAA"]
    assert last.details["store_create_date"] == stamp


def test_only_the_inverted_datasets_are_published(world: World) -> None:
    world.inverted(datasets=["AAAAA"])
    publish(world)
    assert world.published()[0]["datasetIds"] == ["AAAAA"]


def test_a_second_time_does_nothing(world: World) -> None:
    inversion_id = world.inverted()
    publish(world)
    history, asked = world.states(), len(world.requests)
    result = publish(world)
    assert (result.outcome, result.inversion_id, result.is_created) == (
        Outcome.ALREADY,
        inversion_id,
        False,
    )
    assert world.states() == history
    assert len(world.requests) == asked


def test_an_op_that_is_withdrawn_while_it_fails_has_not_failed(world: World) -> None:
    inversion_id = world.inverted()
    world.store.create_inversion(other_record(inversion_id, bucket="raw"))

    class Withdrawing(StoreClient):
        def inversions(self, *arguments: Any, **named: Any) -> list[dict[str, Any]]:
            found = super().inversions(*arguments, **named)
            world.ledger.withdraw(OP, actor="op", reason="at the same moment")
            return found

    with Withdrawing(world.store_url) as client, pytest.raises(Conflict, match="moved on while publish"):
        publish(world, world.publisher(store=client))
    assert world.states()[-1] is State.WORKING


def test_an_equal_record_that_is_there_is_ours(world: World) -> None:
    inversion_id = world.inverted()
    world.store.create_inversion(other_record(inversion_id))
    result = publish(world)
    assert (result.outcome, result.is_created) == (Outcome.PUBLISHED, False)
    assert world.creates() == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"primaryProposalId": "pid_9_9"}, "primaryProposalId is 'pid_9_9' there and 'pid_1_118' here"),
        ({"instrumentProgramExecutionId": "id.1.1"}, "instrumentProgramExecutionId is 'id.1.1' there"),
        ({"bucket": "raw"}, "bucket is 'raw' there and 'data' here"),
        ({"datasetIds": ["AAAAA"]}, "datasetIds is ['AAAAA'] there and ['AAAAA', 'BBBBB'] here"),
        ({"spectralLines": []}, "spectralLines is [] there"),
        ({"asdfObjectKey": "x.asdf"}, "asdfObjectKey is 'x.asdf' there and None here"),
    ],
)
def test_a_different_record_under_the_id_is_a_permanent_error_with_the_difference(
    world: World, changes: dict[str, Any], said: str
) -> None:
    inversion_id = world.inverted()
    world.store.create_inversion(other_record(inversion_id, **changes))
    with pytest.raises(PublishFailed) as failed:
        publish(world)
    assert said in str(failed.value)
    assert world.creates() == 1

    present = world.ledger.present(OP)
    assert present.state is State.ERROR
    assert present.details["step"] == "publish"
    assert present.details["class"] == "permanent"
    assert present.details["message"] == str(failed.value)
    with pytest.raises(NotInverted, match="is Error"):
        publish(world)

    # The way out that the message names.
    world.ledger.retry(OP, actor="op")
    world.ledger.withdraw(OP, actor="op", reason="the id is taken")
    event = world.ledger.submit_ready(OP, products="there", commit_hash="c", actor="ana")
    world.ledger.settle(event, lambda _: {"products": {}}, run_id=None, actor="pipeline")
    assert publish(world).outcome is Outcome.PUBLISHED
    assert len(world.published()) == 2


def test_without_a_bucket_the_op_waits_in_error_until_one_is_set(world: World) -> None:
    world.inverted(buckets=["data", "raw"])
    with pytest.raises(PublishFailed, match="L2_PUBLISH_BUCKET"):
        publish(world)
    assert world.ledger.present(OP).details["class"] == "permanent"
    assert world.creates() == 0
    world.ledger.retry(OP, actor="op")
    assert publish(world, world.publisher("chosen")).outcome is Outcome.PUBLISHED
    assert world.published()[0]["bucket"] == "chosen"


@pytest.mark.parametrize("missing", ["instrument_program_id", "dataset_ids"])
def test_a_history_without_what_is_published_is_an_error_not_a_guess(world: World, missing: str) -> None:
    world.inverted(**{missing: []})
    with pytest.raises(PublishFailed, match="hand it over again"):
        publish(world)
    assert world.published() == []


def test_an_op_in_another_state_is_refused(world: World) -> None:
    with pytest.raises(UnknownOp):
        publish(world)
    world.inverted()
    world.ledger.withdraw(OP, actor="op", reason="wrong")
    with pytest.raises(NotInverted, match="is Working; only an Inverted one can be published"):
        publish(world)
    assert world.published() == []


def test_an_op_withdrawn_while_it_is_published_is_not_published(world: World) -> None:
    world.inverted()

    class Withdrawing(StoreClient):
        def create_inversion(self, params: Any) -> dict[str, Any]:
            created = super().create_inversion(params)
            world.ledger.withdraw(OP, actor="op", reason="at the same moment")
            return created

    with Withdrawing(world.store_url) as client, pytest.raises(LedgerError):
        publish(world, world.publisher(store=client))
    assert world.states()[-1] is State.WORKING


@pytest.mark.parametrize("op_id", ["../../x", "o'p\"; drop table op_transitions; --", "a\nb", "x" * 300])
def test_any_id_can_be_published(world: World, op_id: str) -> None:
    inversion_id = world.inverted(op_id, dataset_ids=["A'B\n"])
    assert publish(world, op_id=op_id).outcome is Outcome.PUBLISHED
    assert [record["inversionId"] for record in world.published()] == [inversion_id]
    assert world.published()[0]["datasetIds"] == ["A'B\n"]


@pytest.mark.parametrize("machines", ["one", "several"])
def test_publishers_at_the_same_moment_publish_once(world: World, machines: str) -> None:
    """On one machine they wait for each other; on several the store and the ledger decide."""
    inversion_id = world.inverted()
    count = 6
    start = threading.Barrier(count)
    results: list[PublishResult] = []
    errors: list[BaseException] = []

    def go() -> None:
        try:
            with world.open_ledger() as ledger, world.open_store() as store:
                publisher = world.publisher(
                    store=store, ledger=ledger, area="area" if machines == "one" else str(id(store))
                )
                start.wait()
                results.append(publish(world, publisher))
        except BaseException as error:  # noqa: BLE001 - a thread must hand on whatever it met
            errors.append(error)

    threads = [threading.Thread(target=go) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    outcomes = [result.outcome for result in results]
    assert outcomes.count(Outcome.PUBLISHED) == 1
    assert outcomes.count(Outcome.ALREADY) == count - 1
    assert sum(result.is_created for result in results) == 1
    assert machines == "several" or world.creates() == 1
    assert [record["inversionId"] for record in world.published()] == [inversion_id]
    assert world.states().count(State.PUBLISHED) == 1


def test_publishers_that_meet_the_same_conflict_record_one_error(world: World) -> None:
    inversion_id = world.inverted()
    world.store.create_inversion(other_record(inversion_id, bucket="raw"))

    class Slow(StoreClient):
        def inversions(self, *arguments: Any, **named: Any) -> list[dict[str, Any]]:
            found = super().inversions(*arguments, **named)
            meet.wait()
            return found

    meet = threading.Barrier(2)
    said: list[str] = []

    def go() -> None:
        with world.open_ledger() as ledger, Slow(world.store_url) as store:
            try:
                publish(world, world.publisher(store=store, ledger=ledger, area=str(id(store))))
            except PublishFailed as error:
                said.append(str(error))

    threads = [threading.Thread(target=go) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 2
    assert said[0] == said[1] == world.ledger.present(OP).details["message"]
    assert world.states().count(State.ERROR) == 1


def test_files_are_copied_and_the_catalog_is_told_of_each(world: World) -> None:
    inversion_id = world.inverted()
    files = world.files()
    publish(world, files=files)
    prefix = f"{PROPOSAL}/{inversion_id.replace('.', '_')}"
    for file in files:
        assert sha256(world.folder / "area" / "data" / prefix / file.name) == file.sha256
    assert world.published()[0]["asdfObjectKey"] == f"{prefix}/all.asdf"
    told = {message.pop("objectName"): message for message in world.messages()}
    assert sorted(told) == [f"{prefix}/{name}" for name in ("a.fits", "all.asdf", "b.fits")]
    assert len({message.pop("conversationId") for message in told.values()}) == 3
    frame = {"routingKey": "catalog.frame.m", "bucket": "data", "incrementDatasetCatalogReceiptCount": False}
    whole = {"objectType": "ASDF", "groupId": inversion_id, "groupName": "DATASET"}
    assert told[f"{prefix}/a.fits"] == frame
    assert told[f"{prefix}/all.asdf"] == {**frame, "routingKey": "catalog.object.m", **whole}

    steps = world.ledger.steps_of(inversion_id)
    assert list(steps) == [str(name) for name in PublishStep]
    assert steps["copied"].details["files"][0]["sha256"] == files[0].sha256
    assert steps["created"].details["is_created"] is True
    assert steps["confirmed"].details["record"] == world.published()[0]


@pytest.mark.parametrize("how", ["gone", "changed"])
def test_a_file_that_is_not_what_was_verified_is_an_error_before_anybody_is_told(
    world: World, how: str
) -> None:
    world.inverted()
    files = world.files()
    if how == "gone":
        files[1].source.unlink()
    else:
        files[1].source.write_bytes(b"x" * files[1].size)
    with pytest.raises(PublishFailed, match=r"b\.fits is no"):
        publish(world, files=files)
    assert world.ledger.present(OP).details["class"] == "permanent"
    assert (world.published(), world.messages()) == ([], [])


def test_a_bus_that_is_down_blames_no_op(world: World) -> None:
    inversion_id = world.inverted()
    files = world.files()
    publisher = world.publisher()
    publisher._bus = RabbitBus("amqp://nobody:secret@127.0.0.1:1/", "l2")
    with pytest.raises(BusUnavailable) as down:
        publish(world, publisher, files=files)
    assert "secret" not in str(down.value)
    assert world.states()[-1] is State.INVERTED
    assert list(world.ledger.steps_of(inversion_id)) == ["copied"]
    assert publish(world, files=files).outcome is Outcome.PUBLISHED
