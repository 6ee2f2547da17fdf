"""Many sorted parquet files into one: sorted, each key once (newest wins), in bounded memory.

It reads and writes rows. Which files take part, and how the result comes to count, is the caller's.
"""

from __future__ import annotations

import errno
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

import polars as pl
from polars.io.plugins import register_io_source

from dagster_l2.base.errors import L2Error
from dagster_l2.base.files import temporary_suffix
from dagster_l2.batch.pieces import INPUT, Piece, overlap_rows, read_pieces

MEMORY_BYTES = 16 * 2**20
_GROUP_BYTES = 8 * 2**20
_MORSEL_ROWS = 2**15
_MAX_GROUP_ROWS = 2**17
_MIN_GROUP_ROWS = 2**10
_ZSTD_LEVEL = 1  # measured: a quarter less time to write than level 3, for files as large within 5 %
_ROW = "__row"
_REFUSED = re.compile(r"\(os error (\d+)\)")


class MergeError(L2Error):
    """Files that cannot be merged as they are."""


@dataclass(frozen=True, slots=True)
class Order:
    """How rows are sorted, and which of several with one key stays.

    ``sort_by`` may use columns of ``key`` only: rows of one key then lie side by side, whichever file they
    come from. Null sorts first; a null in ``newest_by`` loses against every value.
    """

    sort_by: tuple[str, ...]
    key: tuple[str, ...]
    newest_by: str

    def __post_init__(self) -> None:
        others = set(self.sort_by) - set(self.key)
        if others or not self.sort_by:
            named = ", ".join(sorted(others)) or "nothing"
            raise MergeError(f"Rows are sorted by {named}, which is no part of their key; sort by the key.")

    @property
    def columns(self) -> list[str]:
        """The columns that order rows of different keys."""
        return [*self.sort_by, *(name for name in self.key if name not in self.sort_by)]

    @property
    def lead(self) -> str:
        """The column that decides first."""
        return self.sort_by[0]

    def once(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows sorted, one of each key: the newest, the first of equally new ones."""
        if INPUT not in frame.columns:
            if self._is_met_by(frame):
                return frame
            return self.once(frame.with_row_index(INPUT)).drop(INPUT)
        by = [*self.columns, self.newest_by, INPUT]
        last = [name == self.newest_by for name in by]
        # The keys alone are sorted, and each row that stays is copied once.
        ordered = frame.select(by).with_row_index(_ROW).sort(by, descending=last, nulls_last=last)
        is_first = pl.any_horizontal(pl.col(name).ne_missing(pl.col(name).shift()) for name in self.key)
        kept = ordered.lazy().filter(is_first | (pl.int_range(pl.len()) == 0)).select(_ROW).collect()
        return frame[kept.to_series()]

    def _is_met_by(self, frame: pl.DataFrame) -> bool:
        """Whether the rows are sorted, each key once, as what a source sorts itself mostly is."""
        if len(frame) == 1:
            return True
        is_after = pl.lit(False)
        for name in reversed(self.columns):
            before = pl.col(name).shift()
            is_after = (pl.col(name) > before) | ((pl.col(name) == before) & is_after)
        # A null, and the first row, compare as null: one too many sends the rows the long way.
        return int(frame.lazy().select(is_after.sum()).collect().item()) == len(frame) - 1


@dataclass(frozen=True, slots=True)
class Merged:
    """What a merge did: rows written, rows dropped because a newer one had their key, levels of the tree."""

    rows: int
    duplicates_removed: int
    levels: int


def merge_files(
    inputs: Sequence[Path],
    output: Path,
    *,
    order: Order,
    schema: Mapping[str, pl.DataType],
    scratch: Path,
    fan_in: int | None = None,
    memory_bytes: int = MEMORY_BYTES,
    check: Callable[[], object] = bool,
) -> Merged:
    """Merge sorted files whose own keys are unique into ``output``.

    The same inputs give the same bytes, whatever ``fan_in`` and ``memory_bytes`` are. Files that share no
    span of the leading column are passed through block by block, however many they are; where more rows
    overlap than fit, files are merged in groups first, and then the groups.

    Parameters
    ----------
    inputs
        Parquet files written by `write_rows`. Of rows equally new, the one of the earlier input stays.
    output
        Written directly, neither synced nor validated.
    schema
        The columns of every input and of the output.
    scratch
        Folder for the files between two levels; they are removed.
    fan_in
        Files merged at once at most; None is as many as the memory allows.
    memory_bytes
        Size of the rows held at once, in memory. The process needs a few times that, and more where
        more rows than that share one value of the leading column.
    check
        Called for every block; what it raises ends the merge.

    Raises
    ------
    MergeError
        When an input has other columns, or fan_in is below 2.
    """
    if fan_in is not None and fan_in < 2:
        raise MergeError(f"A merge of {fan_in} files at a time never ends; take 2 or more.")
    merge = _Merge(order, dict(schema), fan_in or 2**31, memory_bytes, check)
    sources = [merge.look(path, number) for number, path in enumerate(inputs)]
    merge.measure(inputs)
    with tempfile.TemporaryDirectory(prefix=".merge-", suffix=temporary_suffix(), dir=scratch) as folder:
        while (width := merge.width(sources)) < len(sources):
            merge.levels += 1
            sources = merge.level(sources, width, Path(folder))
        return merge.into(sources, output)


def write_rows(
    frames: Callable[[], Iterator[pl.DataFrame]],
    path: Path,
    schema: Mapping[str, pl.DataType],
    *,
    group_rows: int = _MAX_GROUP_ROWS,
) -> int:
    """Write frames, in their order, as one parquet file; the number of rows.

    The bytes depend on the rows alone, not on how they were cut into frames.
    """

    def sink(lazy: pl.LazyFrame, file: BinaryIO) -> None:
        lazy.sink_parquet(
            file,
            compression="zstd",
            compression_level=_ZSTD_LEVEL,
            row_group_size=group_rows,
            statistics=True,
            maintain_order=True,
        )

    return _pour(frames, path, schema, sink)


def _write_run(
    frames: Callable[[], Iterator[pl.DataFrame]],
    path: Path,
    schema: Mapping[str, pl.DataType],
    *,
    batch_rows: int,
) -> None:
    """Write frames where only this merge reads them: Arrow's own format costs half of what parquet does."""

    def sink(lazy: pl.LazyFrame, file: BinaryIO) -> None:
        lazy.sink_ipc(file, compression="uncompressed", record_batch_size=batch_rows, maintain_order=True)

    _pour(frames, path, schema, sink)


def _pour(
    frames: Callable[[], Iterator[pl.DataFrame]],
    path: Path,
    schema: Mapping[str, pl.DataType],
    sink: Callable[[pl.LazyFrame, BinaryIO], None],
) -> int:
    rows = 0
    failed: list[Exception] = []

    def produce(
        _columns: list[str] | None, _predicate: pl.Expr | None, _n_rows: int | None, _size: int | None
    ) -> Iterator[pl.DataFrame]:
        nonlocal rows
        try:
            for frame in frames():
                rows += len(frame)
                # What is not written yet waits in a queue that is bounded by number, not by size.
                yield from frame.iter_slices(_MORSEL_ROWS)
        except Exception as error:
            failed.append(error)
            raise

    try:
        # Given a path, polars makes the file in a thread of its own, on a busy machine only after the failure
        # was told and the file removed: it would stay for ever.
        with path.open("wb") as file:
            sink(register_io_source(produce, schema=pl.Schema(schema)), file)
    except pl.exceptions.PolarsError as error:
        if failed:
            raise failed[0] from None
        # What the system refused is the disk's fault, and not that of the rows.
        if refused := _REFUSED.search(str(error)):
            number = int(refused[1])
            raise OSError(number, os.strerror(number), str(path)) from None
        if "Invalid thrift: transport error" in str(error):
            # Of a footer that could not be written the number is lost; nothing is read here.
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path)) from None
        raise
    return rows


class _Merge:
    def __init__(
        self,
        order: Order,
        schema: dict[str, pl.DataType],
        fan_in: int,
        memory_bytes: int,
        check: Callable[[], object],
    ) -> None:
        self._order, self._schema, self._check = order, schema, check
        self._fan_in, self._memory_bytes = fan_in, memory_bytes
        self._budget_rows = self._group_rows = _MIN_GROUP_ROWS
        self._dropped = 0
        self._runs = 0
        self.levels = 1

    def look(self, path: Path, number: int) -> list[Piece]:
        """The row groups of a file."""
        return Piece.of_file(path, number, self._order.lead, list(self._schema))

    def measure(self, inputs: Sequence[Path]) -> None:
        """Turn bytes into rows, by the width of the rows of a few inputs."""
        size = rows = 0
        for path in inputs[:: max(1, len(inputs) // 8)]:
            head = pl.read_parquet(path, n_rows=_MIN_GROUP_ROWS, glob=False, hive_partitioning=False)
            size, rows = size + int(head.estimated_size()), rows + len(head)
        row_bytes = max(1, size // max(1, rows))
        self._budget_rows = max(2 * _MIN_GROUP_ROWS, self._memory_bytes // row_bytes)
        fitting = _GROUP_BYTES // row_bytes
        self._group_rows = 2 ** (min(_MAX_GROUP_ROWS, max(_MIN_GROUP_ROWS, fitting)).bit_length() - 1)

    def width(self, sources: list[list[Piece]]) -> int:
        """How many of the files can be merged at once."""
        overlap = overlap_rows([piece for pieces in sources for piece in pieces])
        fitting = len(sources) * self._budget_rows // max(1, overlap)
        return max(2, min(self._fan_in, fitting))

    def level(self, sources: list[list[Piece]], width: int, folder: Path) -> list[list[Piece]]:
        """One level of the tree: every ``width`` neighbours become one run, sorted by the leading column.

        Sorting by one column costs a third of the whole order, which only the last level needs.
        """
        groups = [sources[i : i + width] for i in range(0, len(sources), width)]
        rows = min(_MAX_GROUP_ROWS, max(_MIN_GROUP_ROWS, self._budget_rows // (2 * len(groups))))
        schema = {**self._schema, INPUT: pl.Int64()}
        out = []
        for number, group in enumerate(groups):
            self._runs += 1
            path = folder / f"{self._runs}.arrow"
            _write_run(lambda group=group: self._sweep(group, self._by_lead), path, schema, batch_rows=rows)  # type: ignore[misc]
            out.append(Piece.of_run(path, number, self._order.lead))
            for file in {piece.path for pieces in group for piece in pieces if piece.path.parent == folder}:
                file.unlink()
        return out

    def into(self, sources: list[list[Piece]], output: Path) -> Merged:
        """The last level."""

        def frames() -> Iterator[pl.DataFrame]:
            for frame in self._sweep(sources, self._order.once):
                yield frame.drop(INPUT)

        rows = write_rows(frames, output, self._schema, group_rows=self._group_rows)
        return Merged(rows, self._dropped, self.levels)

    def _by_lead(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.sort(self._order.lead)

    def _sweep(
        self, sources: list[list[Piece]], ordered: Callable[[pl.DataFrame], pl.DataFrame]
    ) -> Iterator[pl.DataFrame]:
        """The rows of the files in order, a block at a time.

        The row groups are read in the order of their lowest value. Rows below the lowest value that is
        still to be read are complete and leave; the rest is held for the next block.
        """
        waiting = sorted((piece for pieces in sources for piece in pieces), key=Piece.by_low)
        held: pl.DataFrame | None = None
        at = 0
        while at < len(waiting):
            self._check()
            end, rows = at, 0 if held is None else len(held) // 2
            while end < len(waiting) and (end == at or rows + waiting[end].rows <= self._budget_rows):
                rows += waiting[end].rows
                end += 1
            block, following = waiting[at:end], waiting[end] if end < len(waiting) else None
            at = end
            fresh = read_pieces(block, self._schema)
            if held is None and _are_apart(block, following):
                yield fresh
                continue
            both = fresh if held is None else pl.concat([held, fresh])
            done = ordered(both)
            self._dropped += len(both) - len(done)
            ready, held = self._split(done, following)
            if held is not None and len(held) > self._budget_rows // 2:
                # Many rows of one moment: what has a newer version need not be held.
                some, held = len(held), self._order.once(held)
                self._dropped += some - len(held)
            if not ready.is_empty():
                yield ready
        if held is not None:
            yield held

    def _split(
        self, frame: pl.DataFrame, following: Piece | None
    ) -> tuple[pl.DataFrame, pl.DataFrame | None]:
        if following is None:
            return frame, None
        if following.low is None:
            return frame.clear(), frame
        lead = pl.col(self._order.lead)
        count = int(frame.select((lead.is_null() | (lead < following.low)).sum()).item())
        rest = frame[count:]
        return frame[:count], rest if len(rest) else None


def _are_apart(block: Sequence[Piece], following: Piece | None) -> bool:
    """Whether the block is in order as it is: each piece is, and ends before the next begins."""
    chain = [*block, following] if following is not None else list(block)
    return all(piece.form != "batch" for piece in block) and all(
        left.high is not None and right.low is not None and left.high < right.low
        for left, right in pairwise(chain)
    )
