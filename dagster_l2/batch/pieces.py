"""Pieces of files: the span that each covers, how many rows overlap, and reading them.

What is done with the rows is in ``merge``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from dagster_l2.base.errors import L2Error

INPUT = "__input"
"""The column that says which input a row is from; runs between two levels hold it."""

_FILES_AT_ONCE = 32


class OtherColumns(L2Error):
    """A file does not have the columns that it should."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Rows that are read at once: where they are, and between which values of the leading column.

    A whole parquet file, a row group of one from row ``offset`` on, or batch number ``offset`` of a run.
    ``low`` None: it may begin anywhere (nulls, or no statistics); ``high`` None: it may end anywhere.
    """

    file: int
    path: Path
    offset: int
    rows: int
    low: Any
    high: Any
    form: Literal["file", "group", "batch"]

    @classmethod
    def of_file(cls, path: Path, number: int, lead: str, columns: list[str]) -> list[Piece]:
        """The row groups of a parquet file that have rows.

        Raises
        ------
        OtherColumns
            When the file has other columns, or the same in another order.
        """
        metadata = pq.read_metadata(path)
        names = metadata.schema.to_arrow_schema().names
        if names != columns:
            other = sorted(set(names) ^ set(columns)) or ["their order"]
            raise OtherColumns(f"{path.name} differs from its schema in {', '.join(other)}; make it anew.")
        paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        column = paths.index(lead)
        form: Literal["file", "group"] = "file" if metadata.num_row_groups == 1 else "group"
        out, offset = [], 0
        for i in range(metadata.num_row_groups):
            group = metadata.row_group(i)
            low, high = _bounds(group.column(column).statistics)
            if group.num_rows:
                out.append(cls(number, path, offset, group.num_rows, low, high, form))
            offset += group.num_rows
        return out

    @classmethod
    def of_run(cls, path: Path, number: int, lead: str) -> list[Piece]:
        """The batches of an Arrow file that is sorted by the leading column, nulls first."""
        with pa.OSFile(str(path)) as source:
            column = pa.ipc.open_file(source).schema.get_field_index(lead)
            options = pa.ipc.IpcReadOptions(included_fields=[column])
            reader = pa.ipc.open_file(source, options=options)
            out = []
            for i in range(reader.num_record_batches):
                values: Any = pl.from_arrow(reader.get_batch(i).column(0))
                if len(values):
                    low, high = _told(values[0], values[-1])
                    out.append(cls(number, path, i, len(values), low, high, "batch"))
        return out

    def by_low(self) -> tuple[Any, ...]:
        """Sorts pieces by where they begin, those that may begin anywhere first."""
        if self.low is None:
            return (0, self.file, self.offset)
        return (1, self.low, self.file, self.offset)


def _bounds(statistics: Any) -> tuple[Any, Any]:
    if statistics is None or not statistics.has_min_max:
        return None, None
    low, high = _told(statistics.min, statistics.max)
    has_nulls = not statistics.has_null_count or statistics.null_count > 0
    return (None if has_nulls else low), high


def _told(low: Any, high: Any) -> tuple[Any, Any]:
    # Not a number is in no statistics, and naive times are what the frames hold.
    if isinstance(low, float) or isinstance(high, float):
        return None, None
    return tuple(  # type: ignore[return-value]
        value.replace(tzinfo=None) if isinstance(value, datetime) else value for value in (low, high)
    )


def overlap_rows(pieces: Sequence[Piece]) -> int:
    """The most rows of pieces that cover one value together."""
    known = [piece for piece in pieces if piece.low is not None and piece.high is not None]
    everywhere = sum(piece.rows for piece in pieces) - sum(piece.rows for piece in known)
    # A piece that ends where another begins overlaps it: beginnings come first.
    events = [(piece.low, 0, piece.rows) for piece in known] + [(p.high, 1, -p.rows) for p in known]
    now = most = 0
    for _value, _is_end, rows in sorted(events):
        now += rows
        most = max(most, now)
    return everywhere + most


def read_pieces(pieces: Sequence[Piece], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    """The rows of the pieces, one after the other, each with the input that it is from."""
    full = {**schema, INPUT: pl.Int64()}
    frames = list(_read(pieces))
    frame = pl.concat(frames) if frames else pl.DataFrame(schema=full)
    return frame.cast(full) if frame.schema != pl.Schema(full) else frame  # type: ignore[arg-type]


def _read(pieces: Sequence[Piece]) -> Iterator[pl.DataFrame]:
    for form, group in groupby(pieces, key=lambda piece: piece.form):
        run = list(group)
        if form == "file":
            for i in range(0, len(run), _FILES_AT_ONCE):
                some = run[i : i + _FILES_AT_ONCE]
                paths: list[Any] = [piece.path for piece in some]
                numbers = np.repeat([piece.file for piece in some], [piece.rows for piece in some])
                frame = pl.read_parquet(paths, glob=False, hive_partitioning=False)
                yield frame.with_columns(pl.Series(INPUT, numbers, dtype=pl.Int64))
            continue
        for piece in run:
            if form == "batch":
                with pa.OSFile(str(piece.path)) as source:
                    batch: Any = pl.from_arrow(pa.ipc.open_file(source).get_batch(piece.offset))
                yield batch
            else:
                scan = pl.scan_parquet(piece.path, glob=False, hive_partitioning=False)
                rows = scan.slice(piece.offset, piece.rows).collect()
                yield rows.with_columns(pl.lit(piece.file, pl.Int64).alias(INPUT))
