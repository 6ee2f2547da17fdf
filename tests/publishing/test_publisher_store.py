"""A store that misbehaves, lists late, refuses or is another's: nothing is lost and nothing doubled."""

from __future__ import annotations

from typing import Any

import pytest
from publishing_world import OP, World, other_record, publish

from dagster_l2.ledger import State
from dagster_l2.publishing import Outcome, PublishFailed
from dagster_l2.store import (
    StoreAnswerInvalid,
    StoreClient,
    StoreError,
    StoreKind,
    StoreQueryError,
    StoreReadOnly,
    StoreRefused,
    StoreUnreachable,
)
from dagster_l2.store.server import LocalStoreServer, RecordSet, store_app

CREATE = "createL2InversionInventory"


def retried(world: World) -> list[str]:
    """What a pass finds failed and brings back."""
    failed = [row.cause for row in world.ledger.errors()]
    assert len(world.ledger.retry_transient(3, actor="pipeline", run_id="run-2").retried) == len(failed)
    return failed


def test_a_lost_answer_is_taken_up_by_the_next_run(world: World) -> None:
    inversion_id = world.inverted()
    world.faults.add("crash_after_create", times=1)
    with pytest.raises(StoreUnreachable):
        publish(world)
    assert world.states()[-1] is State.INVERTED
    assert len(world.published()) == 1

    result = publish(world)
    assert (result.outcome, result.is_created) == (Outcome.PUBLISHED, False)
    assert [record["inversionId"] for record in world.published()] == [inversion_id]
    assert world.creates() == 1
    assert world.states().count(State.PUBLISHED) == 1


FAULTS: list[tuple[str, dict[str, Any], type[StoreError]]] = [
    ("status", {"status": 503}, StoreUnreachable),
    ("status", {"status": 429, "headers": {"Retry-After": "0"}}, StoreUnreachable),
    ("status", {"status": 401}, StoreRefused),
    ("html", {}, StoreAnswerInvalid),
    ("cut", {}, StoreUnreachable),
    ("graphql_errors", {}, StoreQueryError),
]


@pytest.mark.parametrize(("kind", "options", "expected"), FAULTS)
@pytest.mark.parametrize("where", ["look", "create", "read back"])
def test_a_misbehaving_store_loses_and_doubles_nothing(
    world: World, kind: str, options: dict[str, Any], expected: type[StoreError], where: str
) -> None:
    world.inverted()
    match = CREATE if where == "create" else "l2Inversions"
    world.faults.add(kind, match=match, skip=1 if where == "read back" else 0, **options)
    # Where everything else is answered well, the store is up, and it is this record that it does not take.
    is_its_own = where == "create" and expected in (StoreAnswerInvalid, StoreQueryError)
    with pytest.raises(PublishFailed if is_its_own else expected):
        publish(world)
    assert world.states()[-1] is (State.ERROR if is_its_own else State.INVERTED)

    world.faults.clear()
    if is_its_own:
        assert retried(world) == ["publish failed (transient)"]
    assert publish(world).outcome is Outcome.PUBLISHED
    assert len(world.published()) == 1
    assert world.states()[-2:] == [State.INVERTED, State.PUBLISHED]


def test_a_store_that_does_not_answer_in_time(world: World) -> None:
    world.inverted()
    world.faults.add("slow", match=CREATE, seconds=1.0, times=1)
    with world.open_store(timeout_s=0.3) as impatient, pytest.raises(StoreUnreachable):
        publish(world, world.publisher(store=impatient))
    world.faults.clear()
    assert publish(world).outcome is Outcome.PUBLISHED
    assert len(world.published()) == 1


def test_a_store_that_lists_late_is_asked_again_later(world: World) -> None:
    world.inverted()

    class Late(StoreClient):
        def inversions(self, *arguments: Any, **named: Any) -> list[dict[str, Any]]:
            assert super().inversions(*arguments, **named) is not None
            return []

    with Late(world.store_url) as late:
        # The second create is refused as a duplicate, which is not an end either.
        for number in (1, 2):
            with pytest.raises(PublishFailed, match="does not list it yet"):
                publish(world, world.publisher(store=late))
            failed = world.ledger.present(OP)
            assert (failed.state, failed.details["tries"]) == (State.ERROR, number)
            assert retried(world) == ["publish failed (transient)"]
    assert world.creates() == 2
    assert publish(world).outcome is Outcome.PUBLISHED
    assert world.creates() == 2
    assert len(world.published()) == 1


def test_a_store_that_refuses_and_then_is_down_blames_no_op(world: World) -> None:
    """A create that is answered with nonsense counts against the OP only where the store is up."""
    world.inverted()
    world.faults.add("html", match=CREATE)
    world.faults.add("status", status=503, match="l2Inversions", skip=1)
    with pytest.raises(StoreUnreachable):
        publish(world)
    assert world.states()[-1] is State.INVERTED


def test_another_inversion_is_never_taken_for_ours(world: World) -> None:
    inversion_id = world.inverted()
    world.store.create_inversion(other_record("inv.OTHER1"))

    class Unfiltered(StoreClient):
        def inversions(self, *arguments: Any, **named: Any) -> list[dict[str, Any]]:
            return super().inversions()

    with Unfiltered(world.store_url) as client:
        assert publish(world, world.publisher(store=client)).is_created
    assert sorted(record["inversionId"] for record in world.published()) == sorted(
        ["inv.OTHER1", inversion_id]
    )


def test_the_public_search_takes_nothing_and_moves_nothing(world: World) -> None:
    world.inverted(buckets=[])
    with world.open_store(kind=StoreKind.PUBLIC) as public, pytest.raises(StoreReadOnly):
        publish(world, world.publisher(store=public))
    assert world.states()[-1] is State.INVERTED


def test_a_wrong_token_moves_nothing(world: World) -> None:
    world.inverted()
    app = store_app(RecordSet(), token="right", inversions_file=world.inversions_file)
    with LocalStoreServer(app) as server:
        with StoreClient(server.url, token="wrong") as client, pytest.raises(StoreRefused):
            publish(world, world.publisher(store=client))
        assert world.states()[-1] is State.INVERTED
        with StoreClient(server.url, token="right") as client:
            assert publish(world, world.publisher(store=client)).outcome is Outcome.PUBLISHED
