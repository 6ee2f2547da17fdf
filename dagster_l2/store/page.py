"""A page of well-formed records becomes columns at once, without one Python object per value.

What is odd in any way is left to ``parse``, which looks at each value and says the same of a page that is
well formed; a property test holds the two equal.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, overload

import orjson
import polars as pl
import pyarrow as pa
from pyarrow import compute
from pyarrow import json as arrow_json

from dagster_l2.store.fields import COUNT, STRUCT_KEYS, FieldType, RecordType
from dagster_l2.store.moments import moments

Record = dict[str, Any]

_MAX_BYTES = 2**30  # Arrow reads a page as one block, whose size is a 32-bit number.
_PLAIN_LENGTHS = (19, 26)  # of 2024-02-28T00:27:50, and with six digits of a fraction
_MOMENT = pa.timestamp("us")
_PLAIN: dict[FieldType, pa.DataType] = {
    FieldType.TEXT: pa.string(),
    FieldType.INT: pa.int64(),
    FieldType.FLOAT: pa.float64(),
    FieldType.BOOL: pa.bool_(),
    FieldType.DATETIME: pa.string(),
    FieldType.TEXT_LIST: pa.list_(pa.string()),
}


def loads(content: bytes) -> Any:
    """JSON as Python objects; ``ValueError`` when it is none."""
    try:
        return orjson.loads(content)
    except orjson.JSONDecodeError:
        # One record with NaN or a lone surrogate must not take its page with it; orjson refuses both.
        return json.loads(content)


class Page(Sequence[Record]):
    """The records of one answer: columns in ``frame``, and the records as sent when one is looked at.

    It behaves as the list of records; their number costs nothing. ``counted`` is the number that the answer
    states beside them, if it does.
    """

    def __init__(
        self, record_type: RecordType, content: bytes, frame: pl.DataFrame, counted: int | None = None
    ) -> None:
        self.record_type = record_type
        self.frame = frame
        self.counted = counted
        self._content = content
        self._records: list[Record] | None = None

    def __len__(self) -> int:
        return len(self.frame)

    @overload
    def __getitem__(self, index: int) -> Record: ...

    @overload
    def __getitem__(self, index: slice) -> list[Record]: ...

    def __getitem__(self, index: int | slice) -> Record | list[Record]:
        return self._as_sent()[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self._as_sent())

    def __eq__(self, other: object) -> bool:
        return list(self) == list(other) if isinstance(other, Sequence) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<{len(self)} records of {self.record_type.table}>"

    def _as_sent(self) -> list[Record]:
        if self._records is None:
            self._records = loads(self._content)["data"][self.record_type.query]
        return self._records


def read_page(record_type: RecordType, content: bytes) -> Page | None:
    """The records of a GraphQL answer, None when any part of it is not as the schema says.

    None stands for no judgement: the answer may be an error, may hold one odd record, or may say the same
    in another way (``630.0`` for an integer). The caller then reads it value by value.
    """
    if not content or len(content) > _MAX_BYTES or not _is_utf8(content):
        return None
    try:
        table = arrow_json.read_json(
            pa.BufferReader(content),
            read_options=arrow_json.ReadOptions(use_threads=False, block_size=len(content) + 1),
            parse_options=_parse_options(record_type),
        )
    except pa.ArrowException:
        return None
    if table.num_rows != 1:
        return None
    data = table.column("data").chunk(0)
    listed = data.field(record_type.query)
    if listed.null_count:
        return None
    records = listed.flatten()
    if records.null_count or any(
        records.field(field.name).values.null_count
        for field in record_type.fields
        if field.type is FieldType.TEXT_LIST
    ):
        return None
    frame = _columns(record_type, records)
    if frame is None:
        return None
    counted = data.field(COUNT).field("recordCount")[0].as_py()
    return Page(record_type, content, frame, counted)


def _columns(record_type: RecordType, records: pa.StructArray) -> pl.DataFrame | None:
    arrays = []
    for field, array in zip(record_type.fields, records.flatten(), strict=True):
        if field.required and array.null_count:
            return None
        try:
            arrays.append(_moments(array) if field.type is FieldType.DATETIME else array)
        except (ValueError, pl.exceptions.PolarsError):
            return None
    names = [field.column for field in record_type.fields]
    # One step for all columns: one by one they cost more than the values of a small page.
    return pl.DataFrame(pa.RecordBatch.from_arrays(arrays, names=names))


def _moments(texts: pa.StringArray) -> pa.Array:
    """The same as `moments`, and much faster for texts as the store writes them."""
    if texts.null_count == len(texts):
        return pa.nulls(len(texts), _MOMENT)
    # Arrow takes days without a time as well; those are shorter.
    lengths = compute.min_max(compute.binary_length(texts))
    if _PLAIN_LENGTHS[0] <= lengths["min"].as_py() and lengths["max"].as_py() <= _PLAIN_LENGTHS[1]:
        try:
            return compute.cast(texts, _MOMENT)
        except pa.ArrowInvalid:
            pass
    return moments(pl.Series(texts)).to_arrow()


def _is_utf8(content: bytes) -> bool:
    # Arrow takes any bytes as text; what no reader of the lake could decode must not get into it.
    offsets = pa.py_buffer(struct.pack("=2i", 0, len(content)))
    text = pa.Array.from_buffers(pa.string(), 1, [None, offsets, pa.py_buffer(content)])
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


@cache
def _parse_options(record_type: RecordType) -> arrow_json.ParseOptions:
    row = pa.struct([(field.name, _arrow_type(field.type)) for field in record_type.fields])
    data = pa.struct([(record_type.query, pa.list_(row)), (COUNT, pa.struct([("recordCount", pa.int64())]))])
    # Errors beside the data fit no column of nulls, so an answer that has any is not read here.
    return arrow_json.ParseOptions(
        explicit_schema=pa.schema([("data", data), ("errors", pa.null())]),
        newlines_in_values=True,
        unexpected_field_behavior="ignore",
    )


def _arrow_type(kind: FieldType) -> pa.DataType:
    if kind in STRUCT_KEYS:
        inner = pa.float64() if kind is FieldType.DISTRIBUTION else pa.int64()
        return pa.struct([(key, inner) for key in STRUCT_KEYS[kind]])
    return _PLAIN[kind]
