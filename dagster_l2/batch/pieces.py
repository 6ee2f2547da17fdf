"""Row groups of parquet files: the span that each covers, how many rows overlap, and reading them.

What is done with the rows is in ``merge``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from dagster_l2.errors import L2Error

_FILES_AT_ONCE = 64


class OtherColumns(L2Error):
    """A file does not have the columns that it should."""


@dataclass(frozen=True, slots=True)
class Piece:
    """One row group: where it is, and between which values of the leading column.

    ``low`` None: it may begin anywhere (nulls, or no statistics); ``high`` None: it may end anywhere.
    """

    file: int
    path: Path
    offset: int
    rows: int
    low: Any
    high: Any
    is_whole_file: bool

    @classmethod
    def of_file(cls, path: Path, number: int, lead: str, columns: list[str]) -> list[Piece]:
        """The row groups of a file that have rows.

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
        out, offset = [], 0
        for i in range(metadata.num_row_groups):
            group = metadata.row_group(i)
            low, high = _bounds(group.column(column).statistics)
            if group.num_rows:
                is_whole = metadata.num_row_groups == 1
                out.append(cls(number, path, offset, group.num_rows, low, high, is_whole))
            offset += group.num_rows
        return out

    def by_low(self) -> tuple[Any, ...]:
        """Sorts pieces by where they begin, those that may begin anywhere first."""
        if self.low is None:
            return (0, self.file, self.offset)
        return (1, self.low, self.file, self.offset)


def _bounds(statistics: Any) -> tuple[Any, Any]:
    if statistics is None or not statistics.has_min_max:
        return None, None
    low, high = statistics.min, statistics.max
    # Not a number is in no statistics, and naive times are what the frames hold.
    if isinstance(low, float) or math.nan in (low, high):
        return None, None
    if isinstance(low, datetime):
        low, high = low.replace(tzinfo=None), high.replace(tzinfo=None)
    has_nulls = not statistics.has_null_count or statistics.null_count > 0
    return (None if has_nulls else low), high


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
    """The rows of the pieces, one after the other."""
    frames = list(_read(pieces))
    frame = pl.concat(frames) if frames else pl.DataFrame(schema=dict(schema))
    return frame.cast(dict(schema)) if frame.schema != pl.Schema(schema) else frame  # type: ignore[arg-type]


def _read(pieces: Sequence[Piece]) -> Iterator[pl.DataFrame]:
    for is_whole, group in groupby(pieces, key=lambda piece: piece.is_whole_file):
        run = list(group)
        if is_whole:
            for i in range(0, len(run), _FILES_AT_ONCE):
                paths: list[Any] = [piece.path for piece in run[i : i + _FILES_AT_ONCE]]
                yield pl.read_parquet(paths, glob=False, hive_partitioning=False)
        else:
            for piece in run:
                scan = pl.scan_parquet(piece.path, glob=False, hive_partitioning=False)
                yield scan.slice(piece.offset, piece.rows).collect()
