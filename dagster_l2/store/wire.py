"""What the client writes and reads beside records: questions, filters, waits. No request is sent here."""

from __future__ import annotations

import email.utils
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import httpx

from dagster_l2.store.fields import COUNT, DATASETS, RecordType

_MAX_RETRY_AFTER_S = 60.0
_COUNT_INPUT = "$countParams: DatasetInventoryRecordCountRequest"
_COUNT_OUTPUT = f"{COUNT}(filterParams: $countParams) {{ recordCount }}"


def selection(record_type: RecordType) -> str:
    """The question for records with all their fields."""
    fields = " ".join(field.name for field in record_type.fields)
    return f"{record_type.query}(filterParams: $filterParams) {{ {fields} }}"


def count_query() -> str:
    """The question for a number of dataset records."""
    return f"query ({_COUNT_INPUT}) {{ {_COUNT_OUTPUT} }}"


def counted_query() -> str:
    """The question for dataset records and their number."""
    return (
        f"query ($filterParams: DatasetInventoriesRequest, {_COUNT_INPUT})"
        f" {{ {selection(DATASETS)} {_COUNT_OUTPUT} }}"
    )


def texts(filters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Filters as the store takes them: moments as ISO text without a zone, in UTC."""
    out: dict[str, Any] = {}
    for name, value in (filters or {}).items():
        if isinstance(value, datetime):
            moment = value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value
            out[name] = moment.isoformat(timespec="microseconds")
        else:
            out[name] = value
    return out


def retry_after(response: httpx.Response) -> float | None:
    """Seconds of a Retry-After header (a number or a date), capped; None when absent or nonsense."""
    text = response.headers.get("Retry-After")
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = (email.utils.parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError):
            return None
    return min(seconds, _MAX_RETRY_AFTER_S) if seconds > 0 else None


def one_line(text: object) -> str:
    """A text of unknown origin as the part of a sentence."""
    return " ".join(str(text).split())[:300]
