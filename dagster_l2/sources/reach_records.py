"""Observations as the UDL sends them become typed columns, one bad record at a time set aside.

Every value is found by its key, so neither the order of keys nor an unknown one moves anything. Fetching
is in ``udl``, windows and chunks in ``reach``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import accumulate, chain
from typing import Any

import polars as pl
import pyarrow as pa

MOMENT = pl.Datetime("us")
_MEASURED: dict[str, tuple[str, pl.DataType]] = {
    "obType": ("ob_type", pl.String()),
    "obUoM": ("ob_uom", pl.String()),
    "obValue": ("ob_value", pl.Float64()),
    "obQuality": ("ob_quality", pl.String()),
    "obDescription": ("ob_description", pl.String()),
}
_SEO_SCHEMA: dict[str, pl.DataType] = dict(_MEASURED.values())
_SEO = pl.Struct(_SEO_SCHEMA)
_POSITION = pl.List(pl.Float64())
_POSITION_PARTS = 3

FIELDS: dict[str, tuple[str, pl.DataType]] = {
    "id": ("id", pl.String()),
    "classificationMarking": ("classification_marking", pl.String()),
    "dataType": ("data_type", pl.String()),
    "genTime": ("gen_time", MOMENT),
    "idOnOrbit": ("id_on_orbit", pl.String()),
    "satNo": ("sat_no", pl.Int64()),
    "idSensor": ("id_sensor", pl.String()),
    "origSensorId": ("orig_sensor_id", pl.String()),
    "observatoryType": ("observatory_type", pl.String()),
    "observatoryName": ("observatory_name", pl.String()),
    "instrumentType": ("instrument_type", pl.String()),
    "lat": ("lat", pl.Float64()),
    "lon": ("lon", pl.Float64()),
    "alt": ("alt", pl.Float64()),
    "senPos": ("sen_pos", _POSITION),
    "obSetId": ("ob_set_id", pl.String()),
    "particleType": ("particle_type", pl.String()),
    "obTime": ("ob_time", MOMENT),
    "seoList": ("seo_list", pl.List(_SEO)),
    "descriptor": ("descriptor", pl.String()),
    "createdAt": ("created_at", MOMENT),
    "createdBy": ("created_by", pl.String()),
    "source": ("source", pl.String()),
    "dataMode": ("data_mode", pl.String()),
    "origNetwork": ("orig_network", pl.String()),
}
"""By key of a record: its column and type."""

DUPLICATE_KEY = "duplicate_key"
SCHEMA: dict[str, pl.DataType] = {**dict(FIELDS.values()), DUPLICATE_KEY: pl.String()}
_REQUIRED = ("idSensor", "obTime")

_WORDS: dict[pl.DataType, str] = {
    pl.String(): "a text",
    pl.Int64(): "a whole number",
    pl.Float64(): "a number",
    MOMENT: "a moment",
    _POSITION: "three numbers",
    FIELDS["seoList"][1]: "a list of measurements",
}
_INT64 = range(-(2**63), 2**63)
_MOMENT_TEXT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:?\d\d)?")
_UNREADABLE = (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError)


def parse_observations(raw: Sequence[Any]) -> tuple[pl.DataFrame, dict[int, str]]:
    """Parse records as the UDL sent them.

    ``duplicate_key`` tells a sensor's observations of one moment apart: the ``obDescription`` of all of its
    ``seoList``, sorted and joined, or the record's ``id`` where there is none, because without a
    description nobody knows which observations are the same one.

    Parameters
    ----------
    raw
        The records. Missing keys are null and unknown ones ignored. NaN stays NaN.

    Returns
    -------
    frame
        One row per record, of ``SCHEMA``, in order; a value that cannot be used is null.
    problems
        By row: why the record cannot be used.
    """
    if not raw:
        return pl.DataFrame(schema=SCHEMA), {}
    problems: dict[int, list[str]] = {}
    records = [record if isinstance(record, dict) else {} for record in raw]
    columns: dict[str, pl.Series] = {}
    for key, (name, dtype) in FIELDS.items():
        values = [record.get(key) for record in records]
        try:
            series = _CONVERT.get(dtype, _plain)(values, dtype)
        except _UNREADABLE:
            series = _CONVERT.get(dtype, _plain)(_checked(key, dtype, values, problems), dtype)
        columns[name] = series
        if key in _REQUIRED and series.null_count():
            for i in series.is_null().arg_true().to_list():
                if values[i] is None:
                    problems.setdefault(i, []).append(f"{key} is missing")
    for i, record in enumerate(raw):
        if not isinstance(record, dict):
            problems[i] = ["the record is no JSON object"]
    columns[DUPLICATE_KEY] = _duplicate_keys(columns["seo_list"], columns["id"])
    frame = pl.DataFrame(columns, schema=SCHEMA)
    return frame, {i: "; ".join(problems[i]) for i in sorted(problems)}


def raw_json(record: Any) -> str:
    """The record as JSON text; ASCII, so that a lone surrogate stays readable as an escape."""
    return json.dumps(record, ensure_ascii=True, default=str)


def _plain(values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    _only(_PYTHON_TYPES[dtype], values)
    # Whole numbers among floats are fine, so polars may convert, but not drop what it cannot.
    series = pl.Series(values, dtype=dtype, strict=dtype != pl.Float64)
    if dtype == pl.Float64 and series.null_count() != sum(value is None for value in values):
        raise ValueError("a number that is too large")
    return series


def _moments(values: Sequence[Any], _dtype: pl.DataType) -> pl.Series:
    _only((str,), values)
    plain = pl.Series(values, dtype=pl.String).str.strip_suffix("Z").str.replace(" ", "T", literal=True)
    return plain.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=True).cast(MOMENT)


def _positions(values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    _only((list,), values)
    if any(value is not None and len(value) != _POSITION_PARTS for value in values):
        raise ValueError("not three numbers")
    flat = _plain(list(chain.from_iterable(value for value in values if value is not None)), pl.Float64())
    return _listed(flat, values, dtype)


def _measurements(values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    _only((list,), values)
    flat = list(chain.from_iterable(value for value in values if value is not None))
    if not set(map(type, flat)) <= {dict}:
        raise TypeError("a measurement that is no JSON object")
    parts = {
        name: _plain([part.get(key) for part in flat], part_type)
        for key, (name, part_type) in _MEASURED.items()
    }
    return _listed(pl.DataFrame(parts, schema=_SEO_SCHEMA).to_struct(), values, dtype)


def _listed(flat: pl.Series, values: Sequence[Any], dtype: pl.DataType) -> pl.Series:
    """The flat values as lists, as long as the given ones; None is null."""
    ends = accumulate((0 if value is None else len(value) for value in values), initial=0)
    offsets = [None if value is None else end for value, end in zip([*values, ()], ends, strict=True)]
    lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), flat.to_arrow())
    series = pl.from_arrow(lists)
    assert isinstance(series, pl.Series)
    return series.cast(dtype)


def _duplicate_keys(measured: pl.Series, ids: pl.Series) -> pl.Series:
    descriptions = pl.col("seo").list.eval(pl.element().struct.field("ob_description")).list.drop_nulls()
    joined = descriptions.list.sort().list.join("; ")
    return (
        pl.DataFrame({"seo": measured, "id": ids})
        .select(pl.when(descriptions.list.len() > 0).then(joined).otherwise(pl.col("id").fill_null("")))
        .to_series()
    )


def _only(types: tuple[type, ...], values: Sequence[Any]) -> None:
    # polars would quietly read a truth value as a number, or a number as a text.
    if not set(map(type, values)) <= {*types, type(None)}:
        raise TypeError("a value of another type")


def _checked(
    key: str, dtype: pl.DataType, values: Sequence[Any], problems: dict[int, list[str]]
) -> list[Any]:
    """The values one by one: what does not fit becomes null and is noted."""
    out: list[Any] = []
    for i, value in enumerate(values):
        try:
            out.append(None if value is None else _CHECKS[dtype](value))
        except _UNREADABLE:
            shown = raw_json(value)
            shown = shown if len(shown) <= 60 else shown[:57] + "…"
            problems.setdefault(i, []).append(f"{key} is {shown}, expected {_WORDS[dtype]}")
            out.append(None)
    return out


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode("utf-8")
    return value


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _int(value: Any) -> int:
    number = _float(value)
    if number != int(number) or int(value) not in _INT64:
        raise ValueError
    return int(value)


def _moment(value: Any) -> str:
    if not _MOMENT_TEXT.fullmatch(_text(value)):
        raise ValueError
    parsed = datetime.fromisoformat(value)
    plain = parsed.astimezone(UTC).replace(tzinfo=None) if parsed.tzinfo else parsed
    return plain.isoformat(timespec="microseconds")


def _position(value: Any) -> list[float | None]:
    if not isinstance(value, list) or len(value) != _POSITION_PARTS:
        raise ValueError
    return [None if part is None else _float(part) for part in value]


def _measurement(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not all(isinstance(part, dict) for part in value):
        raise TypeError
    return [
        {
            key: None if (found := part.get(key)) is None else _CHECKS[part_type](found)
            for key, (_, part_type) in _MEASURED.items()
        }
        for part in value
    ]


_PYTHON_TYPES: dict[pl.DataType, tuple[type, ...]] = {
    pl.String(): (str,),
    pl.Int64(): (int,),
    pl.Float64(): (int, float),
}
_CONVERT: dict[pl.DataType, Callable[[Sequence[Any], pl.DataType], pl.Series]] = {
    MOMENT: _moments,
    _POSITION: _positions,
    FIELDS["seoList"][1]: _measurements,
}
_CHECKS: dict[pl.DataType, Callable[[Any], Any]] = {
    pl.String(): _text,
    pl.Int64(): _int,
    pl.Float64(): _float,
    MOMENT: _moment,
    _POSITION: _position,
    FIELDS["seoList"][1]: _measurement,
}
