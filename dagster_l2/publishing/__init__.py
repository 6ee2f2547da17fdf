"""The store is told, once: when an inversion may be published, where, and that it was.

Here: the rules of publishing and the create with its check before and its read-back after. Not here: HTTP
(store), the history (ledger), and the files themselves (products).
"""

from __future__ import annotations

from dagster_l2.publishing.op_document import (
    OP_DOCUMENT_SCHEMA,
    OP_DOCUMENT_VERSION,
    etag,
    op_document,
)
from dagster_l2.publishing.publisher import Outcome, Publisher, PublishResult
from dagster_l2.publishing.rules import (
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
    "NoBucket",
    "NotInverted",
    "NotTaken",
    "Outcome",
    "PublishError",
    "PublishFailed",
    "PublishResult",
    "Publisher",
    "RecordDiffers",
    "RecordIncomplete",
    "choose_bucket",
    "differences",
    "etag",
    "op_document",
    "publish_blocker",
]
