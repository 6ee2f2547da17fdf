"""Ready events and catalog messages by a real RabbitMQ that is killed in between: none lost, none twice.

Run by ``make test-rabbitmq``; it has another name than the tests that always run.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pika
import pytest
from publishing_world import OP, PACKAGE, PROPOSAL, World
from rabbit_broker import Broker

from dagster_l2.ledger import Delivery, Ledger, ReadyWord, Receipt, State, Verdict
from dagster_l2.pipeline.intake import take_queue
from dagster_l2.publishing import BusUnavailable, PublishArea, Publisher, RabbitBus

QUEUE, EXCHANGE, CATALOG = "l2.ready", "l2", "catalog"
OPERATORS = frozenset({"operator"})
ORDER: dict[str, Any] = {"proposal_id": PROPOSAL, "actor": "pipeline", "run_id": None}


@pytest.fixture(scope="module")
def running() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def broker(running: Broker) -> Broker:
    running.start()
    connection = running.connect()
    channel = connection.channel()
    for queue in (QUEUE, CATALOG):
        channel.queue_delete(queue)
        channel.queue_declare(queue, durable=True)
    channel.exchange_declare(EXCHANGE, "direct", durable=True)
    for key in ("catalog.frame.m", "catalog.object.m"):
        channel.queue_bind(CATALOG, EXCHANGE, key)
    connection.close()
    return running


def say(broker: Broker, *bodies: bytes | dict[str, Any]) -> None:
    connection = broker.connect()
    channel = connection.channel()
    channel.confirm_delivery()
    for body in bodies:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        channel.basic_publish("", QUEUE, content, pika.BasicProperties(delivery_mode=2), mandatory=True)
    connection.close()


def delivered(broker: Broker, queue: str) -> list[tuple[str | None, dict[str, Any]]]:
    """The messages that lie in a queue with the ids that the bus knows them by, taken out of it."""
    connection = broker.connect()
    channel, found = connection.channel(), []
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            connection.close()
            return found
        found.append((properties.message_id, json.loads(body)))


def waiting(broker: Broker, queue: str) -> list[dict[str, Any]]:
    """What lies in a queue, taken out of it."""
    return [body for _, body in delivered(broker, queue)]


def working(ledger: Ledger, *op_ids: str) -> None:
    verdicts = [Verdict(op_id, True, True, True, inputs_hash="h1", rule_version="r1") for op_id in op_ids]
    ledger.decide(verdicts, actor="pipeline")
    for op_id in op_ids:
        ledger.record_preprocessed(op_id, inputs_hash="h1", details=PACKAGE, run_id=None, actor="pipeline")
        ledger.claim(op_id, actor="ana")


def event(number: int = 1, **changes: Any) -> dict[str, Any]:
    said = {"event_id": f"e{number}", "op_id": OP, "products": "/there", "commit": "c0ffee1", "actor": "ana"}
    return {**said, **changes}


def test_ready_events_of_a_queue_have_their_outcomes(world: World, broker: Broker) -> None:
    working(world.ledger, OP)
    say(
        broker,
        b"no event",
        event(2, op_id="nobody"),
        event(3, inversion_id="inv.OTHERS"),
        event(4, actor="eve"),
        event(sent_at="2026-01-02T00:00:00+00:00"),
        event(sent_at="2026-01-02T00:00:00+00:00"),
        event(5, sent_at="2026-01-01T00:00:00+00:00"),
    )
    taken = take_queue(world.ledger, broker.url, QUEUE, OPERATORS)
    assert [receipt.outcome for receipt in taken] == [
        "malformed", "unknown_op", "wrong_inversion", "refused", "taken", "duplicate", "out_of_order",
    ]  # fmt: skip
    assert take_queue(world.ledger, broker.url, QUEUE, OPERATORS) == []
    assert len(world.ledger.receipts()) == 7
    assert [pending.event_id for pending in world.ledger.pending_events()] == ["e1"]


class Cutting(Ledger):
    """A ledger behind whose third record the broker dies, before it hears of it."""

    broker: Broker
    left = 3

    def receive(self, word: ReadyWord, delivery: Delivery, *, is_operator: bool) -> Receipt:
        receipt = super().receive(word, delivery, is_operator=is_operator)
        self.left -= 1
        if self.left == 0:
            self.broker.kill()
        return receipt


def test_a_broker_that_is_killed_loses_and_doubles_no_event(world: World, broker: Broker) -> None:
    ops = [f"op{number}" for number in range(8)]
    working(world.ledger, *ops)
    say(broker, *(event(number, op_id=op_id) for number, op_id in enumerate(ops)))
    with Cutting.open(world.ledger_url, schema=world.schema) as ledger:
        assert isinstance(ledger, Cutting)
        ledger.broker = broker
        with pytest.raises(BusUnavailable, match="are taken in when it is back"):
            take_queue(ledger, broker.url, QUEUE, OPERATORS)
    assert [receipt.outcome for receipt in world.ledger.receipts()] == ["taken"] * 3
    with pytest.raises(BusUnavailable):
        take_queue(world.ledger, broker.url, QUEUE, OPERATORS)
    broker.start()
    take_queue(world.ledger, broker.url, QUEUE, OPERATORS)
    assert sorted(pending.op_id for pending in world.ledger.pending_events()) == ops
    assert sorted(str(receipt.op_id) for receipt in world.ledger.receipts() if receipt.is_taken) == ops
    assert waiting(broker, QUEUE) == []


def test_catalog_messages_are_confirmed_and_survive_the_broker(world: World, broker: Broker) -> None:
    inversion_id = world.inverted()
    bus = RabbitBus(broker.url, EXCHANGE)
    publisher = Publisher(world.store, world.ledger, None, area=PublishArea(world.folder / "area"), bus=bus)
    order: dict[str, Any] = {
        "proposal_id": PROPOSAL,
        "actor": "pipeline",
        "run_id": None,
        "files": world.files(),
    }

    broker.kill()
    with pytest.raises(BusUnavailable, match="when it is back"):
        publisher.publish(OP, **order)
    assert world.states()[-1] is State.INVERTED
    assert world.published() == []

    broker.start()
    assert publisher.publish(OP, **order).inversion_id == inversion_id
    broker.kill()
    broker.start()
    told = waiting(broker, CATALOG)
    assert sorted(str(message["objectName"]).rpartition("/")[2] for message in told) == [
        "a.fits", "all.asdf", "b.fits",
    ]  # fmt: skip
    assert len({message["conversationId"] for message in told}) == 3
    assert len(world.published()) == 1


def test_an_exchange_that_nobody_listens_to_is_said(world: World, broker: Broker) -> None:
    connection = broker.connect()
    connection.channel().queue_unbind(CATALOG, EXCHANGE, "catalog.object.m")
    connection.close()
    world.inverted()
    bus = RabbitBus(broker.url, EXCHANGE)
    publisher = Publisher(world.store, world.ledger, None, area=PublishArea(world.folder / "area"), bus=bus)
    with pytest.raises(BusUnavailable, match="No queue"):
        publisher.publish(OP, **ORDER, files=world.files())
    assert world.states()[-1] is State.INVERTED
    assert waiting(broker, CATALOG) == []  # no frame was told of, to be told of again with each try


DYING = """
import json, os, signal, sys
from pathlib import Path
from dagster_l2.base.files import watch_steps
from dagster_l2.ledger import Ledger
from dagster_l2.publishing import PublishArea, Publisher, RabbitBus, ReleaseFile
from dagster_l2.store import StoreClient
told = json.loads(sys.argv[1])
files = [ReleaseFile(Path(source), *rest) for source, *rest in told["files"]]
def die(step):
    if step == "record announced":
        os.kill(os.getpid(), signal.SIGKILL)
watch_steps(die)
with Ledger.open(told["ledger"], schema=told["schema"]) as ledger, StoreClient(told["store"]) as store:
    bus = RabbitBus(told["bus"], told["exchange"])
    publisher = Publisher(store, ledger, None, area=PublishArea(Path(told["area"])), bus=bus)
    publisher.publish(told["op_id"], **told["order"], files=files)
"""


def test_killed_before_the_record_it_repeats_each_message_under_its_id(world: World, broker: Broker) -> None:
    inversion_id, files = world.inverted(), world.files()
    told = {
        "ledger": world.ledger_url,
        "schema": world.schema,
        "store": world.store_url,
        "bus": broker.url,
        "exchange": EXCHANGE,
        "area": str(world.folder / "area"),
        "op_id": OP,
        "order": ORDER,
        "files": [[str(one.source), one.name, one.size, one.sha256, one.is_asdf] for one in files],
    }
    died = subprocess.run(
        [sys.executable, "-c", DYING, json.dumps(told)], check=False, capture_output=True, text=True
    )
    assert died.returncode == -signal.SIGKILL, died.stderr[-2000:]
    assert list(world.ledger.steps_of(inversion_id)) == ["copied"]
    first = delivered(broker, CATALOG)
    assert len(first) == len(files)  # the broker has confirmed each, and we have not noted it

    publisher = Publisher(
        world.store,
        world.ledger,
        None,
        area=PublishArea(world.folder / "area"),
        bus=RabbitBus(broker.url, EXCHANGE),
    )
    for _ in range(2):
        publisher.publish(OP, **ORDER, files=files)
    again = delivered(broker, CATALOG)
    # Once more, and never again: byte for byte the same under the same id, by which a reader drops it.
    assert again == first
    assert len({message_id for message_id, _ in first}) == len(files)
    assert all(message_id == body["conversationId"] for message_id, body in first)
    assert len(world.published()) == 1
