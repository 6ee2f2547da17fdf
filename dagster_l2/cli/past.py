"""Looking back: the options ``--as-of`` and ``--known-at``, and how long a state lasted, in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, TypeVar

import click

from dagster_l2.base.errors import WrongUse
from dagster_l2.cli.output import shown

F = TypeVar("F", bound=Callable[..., Any])


def parse_time(text: str) -> datetime:
    """A moment in UTC from ISO 8601: a date alone is its first moment, no zone means UTC.

    Raises
    ------
    WrongUse
        When it is no time.
    """
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise WrongUse(
            f"{shown(text)!r} is no time; write it like 2026-11-21, 2026-11-21T09:30 or"
            " 2026-11-21T09:30+01:00 (UTC unless it says a zone)."
        ) from None


class _Time(click.ParamType[datetime]):
    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:  # noqa: ARG002
        return value if isinstance(value, datetime) else parse_time(value)


def as_of_options(command: F) -> F:
    """Add the options ``--as-of`` (``as_of``) and ``--known-at`` (``known_at``) to a command."""
    known_at = click.option(
        "--known-at", type=_Time(), metavar="TIME", help="What was recorded by then (ISO 8601, UTC)."
    )
    as_of = click.option("--as-of", type=_Time(), metavar="TIME", help="As it was then (ISO 8601, UTC).")
    return as_of(known_at(command))


@dataclass(frozen=True, slots=True)
class Moment:
    """The moment a command looks back to; what of both is None is the present."""

    at: datetime | None
    known_at: datetime | None

    def __bool__(self) -> bool:
        return self.until is not None

    @property
    def until(self) -> datetime | None:
        """The earlier of both: what is recorded as it happens was there up to then."""
        return min((moment for moment in (self.at, self.known_at) if moment is not None), default=None)

    def pairs(self) -> dict[str, Any]:
        """Both as they are printed with ``--json``."""
        return {"as_of": self.at, "known_at": self.known_at}

    def __str__(self) -> str:
        at = f"As it was at {shown(self.at)} UTC" if self.at else "As it is"
        return f"{at}, as known at {shown(self.known_at)} UTC" if self.known_at else at


def lasted(duration: timedelta) -> str:
    """A duration in its two largest units, such as ``3 d 4 h``."""
    seconds = int(duration.total_seconds())
    units = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)]
    for (unit, size), (smaller, part) in pairwise(units):
        if seconds >= size:
            rest = seconds % size // part
            return f"{seconds // size} {unit}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"
