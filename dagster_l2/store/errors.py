"""What can go wrong with the metadata store, each as one sentence for a person.

``transient`` says whether the same call may well succeed later by itself.
"""

from __future__ import annotations

from dagster_l2.errors import L2Error


class StoreError(L2Error):
    """The store could not be used as asked."""

    transient = False


class StoreUnreachable(StoreError):
    """No usable answer: refused, timed out, cut off, or overloaded."""

    transient = True


class StoreAnswerInvalid(StoreError):
    """An answer that is not what the store speaks (HTML, broken JSON, a missing part)."""

    transient = True


class StoreRefused(StoreError):
    """The store refused the token, or the token is missing."""


class StoreQueryError(StoreError):
    """The store answered with GraphQL errors."""


class DuplicateInversion(StoreError):
    """The store holds an inversion with this id already."""


class StoreReadOnly(StoreError):
    """The public dataset search has no inversions and takes none."""
