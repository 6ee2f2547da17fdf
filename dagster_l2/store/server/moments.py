"""Moments as the store writes them (ISO text, UTC, no zone), made comparable.

Writing them is the business of whoever makes a record.
"""

from __future__ import annotations

from datetime import UTC, datetime


def moment(value: object) -> datetime | None:
    """The moment in a stored value, in UTC without a zone; None when it holds none.

    Parameters
    ----------
    value
        ISO text of 19 or 26 characters, perhaps ending in ``Z``. Anything else is no moment.
    """
    if not isinstance(value, str) or len(value) < 19:
        return None
    try:
        parsed = datetime.fromisoformat(value)
        return parsed if parsed.tzinfo is None else parsed.astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        return None


def asked_moment(value: object) -> datetime:
    """The moment that a caller asks for; a plain date means its first instant.

    Raises
    ------
    ValueError
        When it is no moment.
    """
    found = moment(f"{value}T00:00:00" if isinstance(value, str) and len(value) == 10 else value)
    if found is None:
        raise ValueError(f"{value!r} is no DateTime; write it like 2025-10-23T00:00:00.000000.")
    return found
