"""Who carries catalog messages: RabbitMQ, or a folder where they wait for somebody who does.

A message is sent once per conversation id as far as the carrier allows: the folder exactly once; RabbitMQ at
least once, and whoever reads it tells a repeated one by its conversation id.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.base.files import fsync_folder, step, write_json
from dagster_l2.publishing.release import OBJECT_KEY, Message

_STALL_S = 30.0


class BusUnavailable(L2Error):
    """The message bus is down or refuses; no OP is to blame."""

    transient = True


class Bus(Protocol):
    """What publishing needs of a message bus."""

    def send(self, messages: Sequence[Message]) -> None:
        """Send all; when this returns the bus has taken each, and has it on disk.

        Raises
        ------
        BusUnavailable
            Not all were taken; all can be sent again.
        """


class Outbox:
    """Messages as files, ``<proposal>/inv_XXXXXX/<conversation id>.json``: for a bus that others feed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def send(self, messages: Sequence[Message]) -> None:
        """See `Bus`; a message that lies there already is left as it is."""
        folders = {self._folder(message) for message in messages}
        for folder in folders:
            # A kill leaves the temporary file of `write_json`.
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
        for message in messages:
            path = self._folder(message) / f"{message.conversation_id}.json"
            if not path.exists():
                write_json(path, {"routingKey": message.routing_key, **message.body}, is_last=False)
        for folder in folders:
            step(f"fsync {folder.name}")
            fsync_folder(folder)

    def _folder(self, message: Message) -> Path:
        return (self.folder / str(message.body["objectName"])).parent


class RabbitBus:
    """A direct exchange of RabbitMQ, with confirmations and durable messages.

    Parameters
    ----------
    url
        ``amqp[s]://user:password@host:port/vhost``; the password is never part of a message.
    """

    def __init__(self, url: str, exchange: str) -> None:
        self._url, self._exchange = url, exchange

    def send(self, messages: Sequence[Message]) -> None:
        """See `Bus`."""
        import json

        pika = import_pika()
        try:
            connection = connect(pika, self._url)
            try:
                channel = connection.channel()
                channel.confirm_delivery()
                # The one for the ASDF first: where nobody takes it, none of the many frames goes out before
                # that is said, and again with each try.
                for message in sorted(messages, key=lambda message: message.routing_key != OBJECT_KEY):
                    channel.basic_publish(
                        self._exchange,
                        message.routing_key,
                        json.dumps(message.body, sort_keys=True).encode(),
                        pika.BasicProperties(
                            content_type="application/json",
                            delivery_mode=2,
                            message_id=message.conversation_id,
                        ),
                        mandatory=True,
                    )
            finally:
                connection.close()
        except pika.exceptions.UnroutableError:
            raise BusUnavailable(
                f"No queue of the exchange {self._exchange!r} takes catalog messages; bind one, then"
                " publishing goes on."
            ) from None
        except (pika.exceptions.AMQPError, OSError) as error:
            raise BusUnavailable(
                f"The message bus cannot be used ({type(error).__name__}); publishing goes on when it is"
                " back."
            ) from None


def import_pika() -> Any:
    """The library that speaks to RabbitMQ, an extra.

    Raises
    ------
    WrongUse
        When it is not installed.
    """
    try:
        import pika
        import pika.exceptions
    except ImportError:
        raise WrongUse("L2_BUS_URL needs the library pika: install the extra dagster_l2[bus].") from None
    return pika


def connect(pika: Any, url: str, *, stall_s: float = _STALL_S) -> Any:
    """A connection that gives up on a broker which is silent for so many seconds.

    Raises
    ------
    WrongUse
        When the address is none.
    """
    try:
        parameters = pika.URLParameters(url)
    except (ValueError, TypeError, KeyError, IndexError):
        raise WrongUse("L2_BUS_URL is no address such as amqp://user:password@host:5672/vhost.") from None
    parameters.socket_timeout = parameters.stack_timeout = stall_s
    parameters.blocked_connection_timeout = stall_s
    return pika.BlockingConnection(parameters)
