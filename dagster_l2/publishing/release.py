"""What of an inversion goes out: its files, their object names, and the catalog messages that tell of them.

Plain values: who makes the files, where they are copied to and who carries the messages is elsewhere.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dagster_l2.base.files import safe_name

FRAME_KEY = "catalog.frame.m"
OBJECT_KEY = "catalog.object.m"

_CONVERSATIONS = uuid.UUID("6f6b0b62-5f0e-5d53-9d2c-6f3f3c1f0d4e")  # any; the same for ever


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """One file: where it lies here, the name it gets, its size in bytes and its SHA-256.

    ``is_asdf`` marks the one file that stands for the whole inversion.
    """

    source: Path
    name: str
    size: int
    sha256: str
    is_asdf: bool = False


@dataclass(frozen=True, slots=True)
class Release:
    """The files of one inversion of a proposal."""

    inversion_id: str
    proposal_id: str
    files: tuple[ReleaseFile, ...] = ()

    @property
    def prefix(self) -> str:
        """``<proposal>/inv_XXXXXX``, as the observatory writes paths of inversions."""
        return f"{safe_name(self.proposal_id)}/{safe_name(self.inversion_id.replace('.', '_'))}"

    def object_name(self, file: ReleaseFile) -> str:
        """The name of a file inside its bucket."""
        return f"{self.prefix}/{file.name}"

    @property
    def asdf_object_key(self) -> str | None:
        """The object name of the file that stands for all, None without one."""
        return next((self.object_name(file) for file in self.files if file.is_asdf), None)


@dataclass(frozen=True, slots=True)
class Message:
    """One message for the catalog: its routing key and its JSON."""

    routing_key: str
    body: dict[str, Any]

    @property
    def conversation_id(self) -> str:
        """What tells a message that is sent again from a new one."""
        return str(self.body["conversationId"])


def catalog_messages(bucket: str, release: Release) -> Sequence[Message]:
    """The messages of a release, one per file.

    The conversation id follows from the inversion and the file's name, so that a message which is sent again
    after a crash bears the same one, without anything having been written down before.
    """
    return [_message(bucket, release, file) for file in release.files]


def _message(bucket: str, release: Release, file: ReleaseFile) -> Message:
    name = release.object_name(file)
    body: dict[str, Any] = {
        "bucket": bucket,
        "objectName": name,
        "incrementDatasetCatalogReceiptCount": False,
        "conversationId": str(uuid.uuid5(_CONVERSATIONS, f"{release.inversion_id}\n{name}")),
    }
    if not file.is_asdf:
        return Message(FRAME_KEY, body)
    body |= {"objectType": "ASDF", "groupId": release.inversion_id, "groupName": "DATASET"}
    return Message(OBJECT_KEY, body)
