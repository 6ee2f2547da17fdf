"""Whether an error may pass by itself, and what people read of it."""

from __future__ import annotations

import pytest

from dagster_l2.base.errors import L2Error, error_class, one_sentence_of
from dagster_l2.store import StoreRefused, StoreUnreachable


class _Away(L2Error):
    transient = True


def _from(error: L2Error, cause: BaseException) -> L2Error:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(28, "No space left on device"), "transient"),
        (PermissionError(13, "Permission denied"), "transient"),
        (StoreUnreachable("away"), "transient"),
        (StoreRefused("no"), "permanent"),
        (_Away("away"), "transient"),
        (L2Error("no"), "permanent"),
        (_from(L2Error("not written"), OSError(28, "full")), "transient"),
        (_from(L2Error("a"), _from(L2Error("b"), OSError(5, "io"))), "transient"),
        (_from(L2Error("not read"), ValueError("not JSON")), "permanent"),
        (KeyError("x"), "permanent"),
    ],
)
def test_the_class_of_an_error(error: BaseException, expected: str) -> None:
    assert error_class(error) == expected


def test_every_error_is_one_sentence() -> None:
    assert one_sentence_of(L2Error("A sentence.")) == "A sentence."
    full = OSError(28, "No space left on device", "/data/x")
    assert one_sentence_of(full).startswith("The disk refused (/data/x): No space left on device. ")
    assert one_sentence_of(ValueError("a\nb")).endswith("report it: ValueError: a b")
