"""The rules of publishing, as plain functions: the bucket, what holds one back, what counts as equal.

Nothing here speaks to the store or the ledger.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time
from typing import Any, Literal

from dagster_l2.base.errors import L2Error

_LISTS = ("datasetIds", "spectralLines")
_LONGEST = 300


class PublishError(L2Error):
    """An inversion cannot be published; the message is one sentence."""


class NoBucket(PublishError):
    """The inputs lie in several buckets, or in none, and no bucket is set."""


class NotInverted(PublishError):
    """The observing program is not in a state from which it is published."""


class PublishFailed(PublishError):
    """It could not be published, for a reason of its own; the OP is in Error with the same text."""


class NotTaken(PublishError):
    """The store is up and answers, but does not hold the record it was given."""

    transient = True


class RecordDiffers(PublishError):
    """The store holds another record under the inversion's id."""


class FilesDiffer(PublishError):
    """A file of the inversion is gone or is not what was verified or published."""


class RecordIncomplete(PublishError):
    """The history of the observing program lacks what the store's record needs."""


def choose_bucket(package_buckets: Iterable[str], default_bucket: str | None) -> str:
    """The bucket to publish in: the one that the inputs share, else the default.

    Raises
    ------
    NoBucket
        When there is neither.
    """
    shared = sorted({bucket for bucket in package_buckets if bucket})
    if len(shared) == 1:
        return shared[0]
    if default_bucket:
        return default_bucket
    where = (
        f"lie in {len(shared)} buckets ({', '.join(map(repr, shared[:3]))})" if shared else "name no bucket"
    )
    raise NoBucket(f"The inputs {where}: set L2_PUBLISH_BUCKET to say where to publish, then retry.")


def publish_blocker(
    *,
    mode: Literal["auto", "approve"],
    approved: bool,
    is_embargoed: bool | None,
    embargo_end_date: datetime | date | str | None,
    publish_embargoed: bool,
    now: datetime,
) -> str | None:
    """Why an inverted OP is not published now, in words; None when it may be.

    Parameters
    ----------
    mode
        ``auto`` publishes at the ready event, ``approve`` waits for an operator.
    is_embargoed, embargo_end_date
        As the store has them: the flag can be false with an end date, which is no embargo. An unknown flag
        with an end date to come counts as one. A date without a zone is UTC.
    publish_embargoed
        The setting that publishes regardless of an embargo.

    Notes
    -----
    The embargo comes first: approval does not lift it.
    """
    if not publish_embargoed:
        end = _moment(embargo_end_date)
        is_over = end is not None and end <= _utc(now)
        if end is not None and not is_over and is_embargoed is not False:
            return f"embargoed until {_day(end)}"
        if end is None and is_embargoed:
            return "embargoed (no end date)"
    if mode == "approve" and not approved:
        return "waits for approval: l2 publish OP"
    return None


def differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """What a record of the store says otherwise than wanted, field by field; empty when equal.

    Only wanted fields are compared. Lists are sets to the store: their order is not kept, null is empty.
    """
    out = []
    for name, value in wanted.items():
        ours, theirs = _comparable(name, value), _comparable(name, found.get(name))
        if ours != theirs:
            out.append(f"{name} is {_shown(theirs)} there and {_shown(ours)} here")
    return out


def _comparable(name: str, value: Any) -> Any:
    if name in _LISTS and (value is None or isinstance(value, list | tuple)):
        return sorted(str(entry) for entry in value or ())
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."


def _moment(value: datetime | date | str | None) -> datetime | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None  # an embargo whose end cannot be read has no known end, and so goes on
    if isinstance(value, datetime):
        return _utc(value)
    return datetime.combine(value, time.min, tzinfo=UTC)


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def _day(end: datetime) -> str:
    # To the day where it ends at midnight, as nearly all do; else a reader would expect it hours too early.
    return f"{end:%Y-%m-%d}" if end.time() == time.min else f"{end:%Y-%m-%d %H:%M} UTC"
