"""Moments of the store, as it writes them in text, become a column of UTC; nothing else is known here."""

from __future__ import annotations

import polars as pl

from dagster_l2.store.fields import DATETIME

_TEXT = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?Z?$"


def moments(texts: pl.Series) -> pl.Series:
    """ISO texts, with or without a fraction and ``Z``, as moments.

    Raises
    ------
    ValueError
        When one of them is no such text.
    polars.exceptions.PolarsError
        When one of them is no day or no time of day.
    """
    if not texts.str.contains(_TEXT).fill_null(True).all():
        raise ValueError("not a moment")
    plain = texts.str.strip_suffix("Z").str.replace(" ", "T", literal=True)
    return plain.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=True).cast(DATETIME)
