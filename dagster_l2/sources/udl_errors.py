"""What can go wrong with the UDL, each as one sentence for a person, with what to do about the chunk."""

from __future__ import annotations

from dagster_l2.base.errors import L2Error
from dagster_l2.batch import FailureClass


class UdlError(L2Error):
    """The UDL did not take the question as it was asked; asking again will not help."""

    failure_class = FailureClass.PERMANENT


class UdlRefused(UdlError):
    """The UDL refused the token, or the token or the address is not usable."""

    exit_code = 2
    stops_job = True


class UdlUnreachable(UdlError):
    """No usable answer in all the time there was: down, failing, overloaded, too slow or broken off."""

    failure_class = FailureClass.PASSING
    transient = True
    cause = "other"

    def __init__(self, message: str, *, cause: str | None = None) -> None:
        super().__init__(message)
        self.cause = cause or self.cause


class UdlTurnedDown(UdlUnreachable):
    """The UDL said that there are too many requests."""

    cause = "turned_down"


class UdlAnswerInvalid(UdlUnreachable):
    """The UDL answered with something else than what was asked for: a web page, broken JSON, no list."""

    cause = "invalid_answer"


class CountMismatch(UdlAnswerInvalid):
    """The UDL counts another number of records than it sends."""


class UdlStopped(UdlUnreachable):
    """The client was closed while it waited."""
