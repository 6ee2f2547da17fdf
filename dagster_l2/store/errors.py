"""What can go wrong with the metadata store, each as one sentence for a person.

``transient`` says whether the same call may well succeed later by itself.
"""

from __future__ import annotations

from dagster_l2.base.errors import L2Error


class StoreError(L2Error):
    """The store could not be used as asked."""

    transient = False
    cause = "other"
    """Why it is asked again, if it is: one of the causes that are counted."""

    @property
    def failure_class(self) -> str:
        """Whether to ask again within a budget of time, as the batch engine calls it."""
        return "passing" if self.transient else "permanent"


class StoreUnreachable(StoreError):
    """No usable answer: refused, timed out, cut off, or overloaded."""

    transient = True
    cause = "server_error"
    retry_after_s: float | None = None
    """Seconds that the store asked to be left alone, None when it did not say."""

    def __init__(self, message: str, *, cause: str | None = None) -> None:
        super().__init__(message)
        self.cause = cause or self.cause


class StoreTurnedDown(StoreUnreachable):
    """Too many requests for the store; asked more slowly it would have answered."""

    cause = "turned_down"


class StoreAnswerInvalid(StoreError):
    """An answer that is not what the store speaks (HTML, broken JSON, a missing part)."""

    transient = True
    cause = "invalid_answer"


class StoreRefused(StoreError):
    """The store refused the token, or the token is missing."""

    stops_job = True


class StoreQueryError(StoreError):
    """The store answered with GraphQL errors."""


class DuplicateInversion(StoreError):
    """The store holds an inversion with this id already."""


class StoreReadOnly(StoreError):
    """The public dataset search has no inversions and takes none."""
