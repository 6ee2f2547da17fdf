"""How far a bronze table has taken over a source that only grows, from what its files' manifests claim.

Rows have an ascending key above 0 that the source gives once. Where they come from, and up to which key the
source can claim anything, is the caller's to know.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq

from dagster_l2.lake.bronze import BronzeTable
from dagster_l2.lake.commit import Claim, ResultManifest, committed


@dataclass(frozen=True, slots=True)
class _Extent:
    """A file and the lowest and highest key in it."""

    path: Path
    low: int
    high: int


class GrowingTable:
    """A bronze table that follows a source which only grows; one writer at a time.

    Parameters
    ----------
    table
        Where the rows go.
    key
        The integer column that identifies a row.

    Notes
    -----
    A file may claim an interval ``after < key <= through``: together with the files ``beside`` it, it has
    each row that the source has there. Claims that follow on each other from 0 say up to where nothing is
    missing. A file that is lost or damaged takes its claims, and those that rely on it, out of that chain,
    and what is above is compared again with the source. Files without a claim count as rows, not as a claim.
    """

    def __init__(self, table: BronzeTable, key: str) -> None:
        self.table, self.key = table, key
        table.ensure()
        files = committed(table.folder)
        claims = claims_of(files)
        self.complete_through = _chain(claims.values())
        """Up to this key every row of the source is here."""
        self._extents = [
            extent
            for path in files
            if path not in claims or claims[path].through > self.complete_through
            for extent in _extent(path, key)
        ]

    def files_with_keys(self, after: int, through: int) -> list[Path]:
        """The files that can hold keys in the interval, above `complete_through`."""
        return [extent.path for extent in self._extents if extent.low <= through and extent.high > after]

    def missing(self, frame: pl.DataFrame, after: int, through: int) -> tuple[pl.DataFrame, set[str]]:
        """The rows of ``frame`` that are not here yet, and the names of the files that have the others."""
        names: set[str] = set()
        for path in self.files_with_keys(after, through):
            in_interval = pl.col(self.key).is_between(after, through, closed="right")
            held = pl.scan_parquet(path, glob=False).filter(in_interval).select(self.key).collect()
            found = frame.height
            frame = frame.join(held, on=self.key, how="anti", maintain_order="left")
            if frame.height < found:
                names.add(path.name)
        return frame, names


def claims_of(files: Mapping[Path, ResultManifest]) -> dict[Path, Claim]:
    """The claims of the files that count, without those that rely on a file which does not."""
    names = {path.name for path in files}
    return {
        path: manifest.claim
        for path, manifest in files.items()
        if manifest.claim is not None and names.issuperset(manifest.claim.beside)
    }


def _chain(claims: Collection[Claim]) -> int:
    through = 0
    for claim in sorted(claims, key=lambda claim: claim.after):
        if claim.after > through:
            break
        through = max(through, claim.through)
    return through


def _extent(path: Path, key: str) -> Iterator[_Extent]:
    metadata = pq.ParquetFile(path).metadata
    index = metadata.schema.names.index(key)
    columns = [metadata.row_group(number).column(index) for number in range(metadata.num_row_groups)]
    bounds = [(column.statistics.min, column.statistics.max) for column in columns if column.num_values]
    if bounds:
        yield _Extent(path, min(low for low, _ in bounds), max(high for _, high in bounds))
