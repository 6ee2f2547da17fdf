"""Records of the store become columns, one bad record at a time set aside.

A page that is well formed has its columns already (``page``). Any other goes column by column, and only a
column that does not convert as a whole is looked at value by value, so that the record that is wrong is named
and the others go on. What was wrong is kept with the raw record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any

import polars as pl

from dagster_l2.store.fields import STRUCT_KEYS, Field, FieldType, RecordType
from dagster_l2.store.moments import moments
from dagster_l2.store.page import Page

_PYTHON_TYPES: dict[FieldType, tuple[type, ...]] = {
    FieldType.TEXT: (str,),
    FieldType.INT: (int,),
    FieldType.FLOAT: (int, float),
    FieldType.BOOL: (bool,),
    FieldType.DATETIME: (str,),
    FieldType.TEXT_LIST: (list,),
}
_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that cannot be used: its id if it has one, why, and the record as the store sent it."""

    record_id: str | None
    reason: str
    raw_json: str

    @property
    def content_hash(self) -> str:
        """SHA-256 of the raw record, so that the same bad record is written once."""
        return hashlib.sha256(self.raw_json.encode("utf-8", "surrogatepass")).hexdigest()


def parse_records(record_type: RecordType, raw: Sequence[Any]) -> tuple[pl.DataFrame, list[Rejected]]:
    """Parse records as the store sent them.

    Parameters
    ----------
    record_type
        Which fields to expect. Unknown fields are ignored, missing ones are null.
    raw
        The records; anything that is no JSON object is rejected.

    Returns
    -------
    frame
        One row per usable record, columns and types of ``record_type.schema``; of records with the same
        key the one updated last stays, and of those the one whose content hash is the greatest, so that the
        same records give the same row in whatever order they come.
    rejected
        The others, each with its reason.
    """
    if isinstance(raw, Page) and raw.record_type == record_type:
        return newest_of_each(raw.frame, record_type.key_column), []
    records = [record for record in raw if isinstance(record, dict)]
    problems: dict[int, list[str]] = {}
    columns = [_column(field, records, problems) for field in record_type.fields]
    frame = pl.DataFrame(columns, schema=record_type.schema)
    rejected = [
        Rejected(None, "the record is no JSON object", _raw(r)) for r in raw if not isinstance(r, dict)
    ]
    if problems:
        rejected += [_reject(record_type, records[i], problems[i]) for i in sorted(problems)]
        frame = frame.filter(~pl.int_range(pl.len()).is_in(list(problems)))
    return newest_of_each(frame, record_type.key_column), rejected


def newest_of_each(frame: pl.DataFrame, key: str) -> pl.DataFrame:
    """One row a key: the one updated last, and of those the one with the greatest content hash."""
    if not frame[key].is_duplicated().any():
        return frame
    ranked = frame.with_columns(content_hashes(frame), pl.int_range(pl.len()).alias("_place"))
    ranked = ranked.sort("update_date", "content_hash", nulls_last=False).unique(key, keep="last")
    return ranked.sort("_place").select(frame.columns)


def content_hashes(frame: pl.DataFrame, *, without: Sequence[str] = ("update_date",)) -> pl.Series:
    """SHA-256 of each row's content, in hexadecimal.

    ``update_date`` is left out: real embargo flips left it as it was, and it moves when nothing else
    does. Nulls are left out too, so that a field the store gains later changes only the records it fills.

    Parameters
    ----------
    frame
        Parsed records.
    without
        Columns that do not count as content.

    Returns
    -------
    pl.Series
        Named ``content_hash``, one text per row.
    """
    # A column without a value adds nothing, and the store leaves many of them empty.
    held = tuple((c.name, c.dtype) for c in frame if c.name not in without and c.null_count() < len(c))
    if not held:
        texts = [b""] * len(frame)
    else:
        texts = frame.select(_content_text(held).cast(pl.Binary)).to_series().to_list()
    return pl.Series("content_hash", [hashlib.sha256(text).hexdigest() for text in texts], pl.String)


@lru_cache(maxsize=64)
def _content_text(schema: tuple[tuple[str, pl.DataType], ...]) -> pl.Expr:
    parts = []
    for name, dtype in schema:
        column = pl.col(name)
        if isinstance(dtype, pl.Struct):
            for part in dtype.fields:
                value = column.struct.field(part.name).cast(pl.String)
                parts.append(pl.lit(f"{name}.{part.name}=") + value)
        elif isinstance(dtype, pl.List):
            parts.append(pl.lit(f"{name}=") + column.list.join("\x1e"))
        else:
            parts.append(pl.lit(f"{name}=") + column.cast(pl.String))
    return pl.concat_str(parts, separator="\x1f", ignore_nulls=True)


def _column(field: Field, records: Sequence[dict[str, Any]], problems: dict[int, list[str]]) -> pl.Series:
    values = [record.get(field.name) for record in records]
    try:
        series = _convert(field, values)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError, AttributeError):
        series = _convert(field, _checked(field, values, problems))
    if field.required and series.null_count():
        for i in series.is_null().arg_true().to_list():
            if not any(text.startswith(field.name) for text in problems.get(i, ())):
                problems.setdefault(i, []).append(f"{field.name} is missing")
    return series


def _checked(field: Field, values: Sequence[Any], problems: dict[int, list[str]]) -> list[Any]:
    """The values one by one: what does not fit becomes null and is noted."""
    out = []
    for i, value in enumerate(values):
        try:
            out.append(None if value is None else _CHECKS[field.type](value))
        except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError):
            shown = _raw(value)
            shown = shown if len(shown) <= 60 else shown[:57] + "…"
            problems.setdefault(i, []).append(f"{field.name} is {shown}, expected {field.type.value}")
            out.append(None)
    return out


def _convert(field: Field, values: Sequence[Any]) -> pl.Series:
    kind = field.type
    if kind in STRUCT_KEYS:
        return _struct(field, values)
    _only(_PYTHON_TYPES[kind], values)
    if kind is FieldType.DATETIME:
        texts = pl.Series(field.column, values, pl.String, strict=True)
        return moments(texts)
    if kind is FieldType.TEXT_LIST:
        _only((str,), list(chain.from_iterable(value for value in values if value is not None)), null=False)
    return pl.Series(field.column, values, field.dtype, strict=kind is not FieldType.FLOAT)


def _only(types: tuple[type, ...], values: Sequence[Any], *, null: bool = True) -> None:
    # polars would quietly read a text as a list, or an integer as a text.
    if not set(map(type, values)) <= {*types, *([type(None)] if null else [])}:
        raise TypeError("a value of another type")


def _struct(field: Field, values: Sequence[Any]) -> pl.Series:
    keys = STRUCT_KEYS[field.type]
    if all(value is None for value in values):
        return pl.Series(field.column, [None] * len(values), field.dtype)
    inner = FieldType.FLOAT if field.type is FieldType.DISTRIBUTION else FieldType.INT
    parts = []
    for key in keys:
        part = Field(key, inner)
        parts.append(_convert(part, [None if value is None else value.get(key) for value in values]))
    absent = pl.Series([value is None for value in values])
    frame = pl.DataFrame([part.alias(key) for part, key in zip(parts, keys, strict=True)])
    whole = frame.select(pl.when(~absent).then(pl.struct(keys)).alias(field.column)).to_series()
    return whole.cast(field.dtype)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    value.encode("utf-8")
    return value


def _int(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    if value != int(value) or int(value) not in _INT64:
        raise ValueError
    return int(value)


def _float(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError
    return float(value)


def _bool(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError
    return value


def _moment(value: Any) -> str:
    series = _convert(Field("moment", FieldType.DATETIME), [_text(value)])
    if series.null_count():
        raise ValueError
    return _text(value)


def _texts(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise TypeError
    return [_text(item) for item in value]


def _counts(check: Callable[[Any], float]) -> Callable[[Any], dict[str, float | None]]:
    def whole(value: Any) -> dict[str, float | None]:
        if isinstance(value, str):  # the store's scalar is also seen as JSON text
            value = json.loads(value)
        if not isinstance(value, dict):
            raise TypeError
        return {key: None if item is None else check(item) for key, item in value.items()}

    return whole


_CHECKS: dict[FieldType, Callable[[Any], Any]] = {
    FieldType.TEXT: _text,
    FieldType.INT: _int,
    FieldType.FLOAT: _float,
    FieldType.BOOL: _bool,
    FieldType.DATETIME: _moment,
    FieldType.TEXT_LIST: _texts,
    FieldType.DISTRIBUTION: _counts(_float),
    FieldType.HEALTH: _counts(_int),
    FieldType.GOS: _counts(_int),
}


def _reject(record_type: RecordType, record: dict[str, Any], reasons: Sequence[str]) -> Rejected:
    key = record.get(record_type.key)
    try:
        record_id = _text(key)
    except (TypeError, ValueError):
        record_id = None
    return Rejected(record_id, "; ".join(reasons), _raw(record))


def _raw(value: Any) -> str:
    # ASCII, so that a lone surrogate (which no file can hold as UTF-8) stays readable as an escape.
    return json.dumps(value, sort_keys=True, ensure_ascii=True, default=str)
