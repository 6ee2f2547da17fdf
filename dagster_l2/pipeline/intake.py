"""The doors by which ready events come in: files that are dropped into the inbox, and a RabbitMQ queue.

What comes in is recorded in the ledger with what became of it, and taken from its door only then, so that
nothing is lost or taken twice. Who may say ready, and of what, is the ledger's.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from dagster_l2.base.errors import L2Error, WrongUse
from dagster_l2.base.files import safe_name, write_durably
from dagster_l2.ledger import Delivery, Ledger, ReadyWord, Receipt
from dagster_l2.publishing import BusUnavailable, connect, import_pika
from dagster_l2.settings import Settings

_LOG = logging.getLogger(__name__)

REFUSED = "refused"
TAKEN = "taken"

SHA256 = r"^[0-9a-fA-F]{64}$"

_COMMIT = r"^[0-9a-fA-F]{7,64}$"
_MOST_BYTES = 1_000_000
_MOST_AT_ONCE = 1_000
_STALL_S = 5.0


class NotReadable(L2Error):
    """What came in is no ready event; the message says why."""


class _Event(BaseModel):
    """A ready event as JSON; names that are not here are left aside, for later versions."""

    model_config = ConfigDict(strict=True)

    event_id: str = Field(min_length=1, max_length=200)
    op_id: str = Field(min_length=1, max_length=2000)
    products: str = Field(min_length=1, max_length=4000)
    commit: str = Field(pattern=_COMMIT)
    actor: str = Field(min_length=1, max_length=200)
    inversion_id: str | None = Field(None, max_length=200)
    dataset_ids: list[str] | None = None
    inputs_changed_ok: bool = False
    sent_at: str | None = None
    checksums: dict[str, Annotated[str, Field(pattern=SHA256)]] | None = Field(None, max_length=1000)

    @field_validator("products")
    @classmethod
    def _without_secret(cls, value: str) -> str:
        from dagster_l2.products import check_address

        try:
            return check_address(value)
        except WrongUse as error:
            raise ValueError(str(error).rstrip(".")) from None

    @field_validator("sent_at")
    @classmethod
    def _with_zone(cls, value: str | None) -> str | None:
        if value is not None and datetime.fromisoformat(value).tzinfo is None:
            raise ValueError("the time says no zone")
        return value


def read_ready(body: bytes) -> ReadyWord:
    """A ready event from its JSON.

    Raises
    ------
    NotReadable
        When it is none; the message names the first thing that is wrong.
    """
    if len(body) > _MOST_BYTES:
        raise NotReadable(f"It has more than {_MOST_BYTES} bytes, so it is no ready event.")
    try:
        event = _Event.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise NotReadable(f"It is no ready event: {where + ': ' if where else ''}{first['msg']}.") from None
    except ValueError as error:
        raise NotReadable(f"It is no ready event: {error}.") from None
    return ReadyWord(
        event_id=event.event_id,
        op_id=event.op_id,
        products=event.products,
        commit_hash=event.commit,
        actor=event.actor,
        inversion_id=event.inversion_id,
        dataset_ids=None if event.dataset_ids is None else tuple(event.dataset_ids),
        inputs_changed_ok=event.inputs_changed_ok,
        sent_at=None if event.sent_at is None else datetime.fromisoformat(event.sent_at).astimezone(UTC),
        checksums=event.checksums,
    )


def inbox_folder(settings: Settings) -> Path:
    """Where files are dropped."""
    return settings.data / "inbox"


def take_in(settings: Settings, ledger: Ledger) -> list[Receipt]:
    """Take in what waits at all doors; a bus that is down is logged, and holds up no other door."""
    inbox = inbox_folder(settings)
    with contextlib.suppress(OSError):  # so that whoever drops a file finds it
        inbox.mkdir(parents=True, exist_ok=True)
    receipts = list(take_files(ledger, inbox, settings.operator_names))
    if settings.bus_url is not None:
        url = settings.bus_url.get_secret_value()
        try:
            receipts += take_queue(ledger, url, settings.bus_queue, settings.operator_names)
        except BusUnavailable as error:
            _LOG.warning("%s", error)
    return receipts


def take_files(ledger: Ledger, inbox: Path, operators: frozenset[str]) -> Iterator[Receipt]:
    """Take in the JSON files that lie in ``inbox``, by name; hidden ones are still being written.

    What is taken moves to ``taken/``; anything else to ``refused/``, with the reason beside it.
    """
    found = sorted(inbox.glob("[!.]*.json")) if inbox.is_dir() else []
    for path in found[:_MOST_AT_ONCE]:
        # One file that the disk refuses to read or move stops no other; met again, its receipt is the same.
        try:
            body, stamp = _read(path), path.lstat().st_mtime_ns
        except FileNotFoundError:
            continue  # another process took it
        except OSError as error:
            _LOG.warning("%s cannot be read (%s); it is tried again.", path, error.strerror or error)
            continue
        sum_ = hashlib.sha256(body if isinstance(body, bytes) else b"").hexdigest()
        delivery = Delivery(_digest("file", path.name, str(stamp), sum_), "file", path.name)
        receipt = _received(ledger, body, delivery, operators)
        try:
            _put_away(path, receipt)
        except OSError as error:
            why = error.strerror or error
            _LOG.warning("%s was looked at and cannot be moved (%s); move it away.", path, why)
        yield receipt


def take_queue(ledger: Ledger, url: str, queue: str, operators: frozenset[str]) -> list[Receipt]:
    """Take in the messages of a RabbitMQ queue; each is acknowledged when its outcome is recorded.

    Raises
    ------
    BusUnavailable
        The broker is down, or has no such queue; what was recorded is recorded.
    """
    pika = import_pika()
    receipts: list[Receipt] = []
    try:
        connection = connect(pika, url, stall_s=_STALL_S)
        try:
            channel = connection.channel()
            while len(receipts) < _MOST_AT_ONCE:
                method, properties, body = channel.basic_get(queue)
                if method is None:
                    break
                sum_ = hashlib.sha256(body).hexdigest()
                delivery_id = _digest("queue", queue, str(properties.message_id), sum_)
                if not method.redelivered and ledger.is_received(delivery_id):
                    delivery_id += f"-{uuid.uuid4().hex[:8]}"  # the same said again, and not met again
                delivery = Delivery(delivery_id, "queue", queue)
                receipts.append(_received(ledger, body, delivery, operators))
                channel.basic_ack(method.delivery_tag)
        finally:
            if connection.is_open:
                connection.close()
    except (pika.exceptions.AMQPError, OSError) as error:
        raise BusUnavailable(
            f"Ready events cannot be read from the queue {queue!r} ({type(error).__name__}); those that wait"
            " are taken in when it is back."
        ) from None
    return receipts


def _received(
    ledger: Ledger, body: bytes | NotReadable, delivery: Delivery, operators: frozenset[str]
) -> Receipt:
    try:
        if isinstance(body, NotReadable):
            raise body
        word = read_ready(body)
    except NotReadable as error:
        said = body.decode("utf-8", "replace") if isinstance(body, bytes) else ""
        return ledger.refuse_delivery(delivery, str(error), said)
    return ledger.receive(word, delivery, is_operator=word.actor in operators)


def _read(path: Path) -> bytes | NotReadable:
    # A regular file only: opening a pipe would wait for ever.
    if path.is_symlink() or not path.is_file():
        path.lstat()
        return NotReadable("It is not a file.")
    try:
        with path.open("rb") as file:
            return file.read(_MOST_BYTES + 1)
    except PermissionError:
        return NotReadable("It cannot be read: give this user the right to.")


def _put_away(path: Path, receipt: Receipt) -> None:
    """Move a file to where its outcome says, under a name that nothing there has."""
    is_done = receipt.outcome in ("taken", "duplicate")
    folder = path.parent / (TAKEN if is_done else REFUSED)
    folder.mkdir(exist_ok=True)
    target = folder / path.name
    if target.exists():
        target = folder / f"{safe_name(path.stem)}-{receipt.delivery_id[:8]}.json"
    if not is_done:
        reason = f"{receipt.outcome}: {receipt.reason}\n"
        write_durably(
            target.with_suffix(".reason.txt"), lambda temporary: _write(temporary, reason), is_last=False
        )
    try:
        path.rename(target)
    except FileNotFoundError:
        return  # another process took it


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:40]
