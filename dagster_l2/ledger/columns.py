"""What a time, a text and details must be so that SQLite and PostgreSQL store the same.

No tables and no engine: those are in ``tables`` and ``database``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from dagster_l2.ledger.errors import InvalidRecord

LONGEST_ID = 2000  # bytes; PostgreSQL's index takes 2704 in one entry


def utc(moment: datetime) -> datetime:
    """``moment`` in UTC; raises `InvalidRecord` when it says no zone."""
    if moment.tzinfo is None:
        raise InvalidRecord(f"The time {moment} says no zone; give it in UTC.")
    return moment.astimezone(UTC)


def text(value: str, what: str, longest: int | None = LONGEST_ID) -> str:
    """``value`` if both databases can store it; as a key, if it has ``longest`` bytes at most.

    Raises
    ------
    InvalidRecord
        When it is empty, too long, or has a NUL or half a surrogate pair.
    """
    if not isinstance(value, str):
        raise InvalidRecord(f"The {what} {value!r} is not a text; correct it at its source.")
    try:
        size = len(value.encode("utf-8"))
    except UnicodeEncodeError:
        raise InvalidRecord(f"The {what} {value!a} is not valid Unicode; correct it at its source.") from None
    if "\0" in value:
        raise InvalidRecord(f"The {what} {value!r} has a NUL character; correct it at its source.")
    if not value.strip():
        raise InvalidRecord(f"The {what} is empty; name one.")
    if longest is not None and size > longest:
        raise InvalidRecord(
            f"The {what} {value[:60]!r}… is {size} bytes long; the ledger takes {longest} at most."
        )
    return value


def readable(value: str) -> str:
    """A message in one line that both databases store, whatever was in it: an error must get recorded."""
    kept = value.encode("utf-8", "replace").decode("utf-8").replace("\0", "?")
    return " ".join(kept.split())


@dataclass(frozen=True, slots=True)
class Serialised:
    """Details that are checked and written as JSON already, for rows that share them."""

    json: str


def serialised(value: Mapping[str, Any]) -> Serialised:
    """``value`` as it is stored; raises `InvalidRecord` when it is not JSON in valid Unicode.

    Half a surrogate pair would be stored here, and stop every export to parquet afterwards.
    """
    try:
        written = to_json(dict(value))
        if "\\ud" in written:  # how ASCII writes a surrogate, whole pairs too
            json.dumps(json.loads(written), ensure_ascii=False).encode("utf-8")
    except (TypeError, ValueError) as error:
        raise InvalidRecord(
            f"The details can't be stored as JSON ({str(error)!a}); give plain values."
        ) from None
    return Serialised(written)


def as_details(value: Mapping[str, Any]) -> dict[str, Any]:
    """``value`` as it will be read back; raises `InvalidRecord` as `serialised` does."""
    details: dict[str, Any] = json.loads(serialised(value).json)
    return details


_ENCODER = json.JSONEncoder(sort_keys=True, allow_nan=False, separators=(",", ":"))


def to_json(value: Any) -> str:
    """The one way details are written: sorted keys, ASCII, so that equal details are equal texts."""
    return value.json if isinstance(value, Serialised) else _ENCODER.encode(value)
