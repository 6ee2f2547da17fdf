"""The store is told, once: when an inversion may be published, where, and that it was.

Here: the rules of publishing, the files that go out, the catalog messages, and the create with its check
before and its read-back after. Not here: HTTP (store), the history (ledger), the making of files (products).
"""

from __future__ import annotations

from dagster_l2.publishing.area import PublishArea
from dagster_l2.publishing.bus import Bus, BusUnavailable, Outbox, RabbitBus, connect, import_pika
from dagster_l2.publishing.op_document import (
    OP_DOCUMENT_SCHEMA,
    OP_DOCUMENT_VERSION,
    etag,
    op_document,
)
from dagster_l2.publishing.publisher import Outcome, Publisher, PublishResult, PublishStep
from dagster_l2.publishing.release import Message, Release, ReleaseFile, catalog_messages
from dagster_l2.publishing.rules import (
    FilesDiffer,
    NoBucket,
    NotInverted,
    NotTaken,
    PublishError,
    PublishFailed,
    RecordDiffers,
    RecordIncomplete,
    choose_bucket,
    differences,
    publish_blocker,
)

__all__ = [
    "OP_DOCUMENT_SCHEMA",
    "OP_DOCUMENT_VERSION",
    "Bus",
    "BusUnavailable",
    "FilesDiffer",
    "Message",
    "NoBucket",
    "NotInverted",
    "NotTaken",
    "Outbox",
    "Outcome",
    "PublishArea",
    "PublishError",
    "PublishFailed",
    "PublishResult",
    "PublishStep",
    "Publisher",
    "RabbitBus",
    "RecordDiffers",
    "RecordIncomplete",
    "Release",
    "ReleaseFile",
    "catalog_messages",
    "choose_bucket",
    "connect",
    "differences",
    "etag",
    "import_pika",
    "op_document",
    "publish_blocker",
]
