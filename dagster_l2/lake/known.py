"""The newest version of every record that a table holds, small in memory and quick to ask in bulk.

Of each key only the number of the file that has the row, and 64 bits that stand for the hash of its content;
what a version means is not known here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

_UNSEEN, _SEEN, _SAME = 0, 1, 2
_GROWTH = 4


def standing_for(content_hash: pl.Expr) -> pl.Expr:
    """The 64 bits that stand for the hash of a content, in a query, so that the hashes are never all held."""
    return content_hash.hash()


@dataclass(slots=True)
class _Run:
    """Versions in the order of their keys, each key once, and what was found of each since it is known."""

    rows: pl.DataFrame  # key, content, file
    marks: npt.NDArray[np.uint8]


class Known:
    """What is known of each key; asked by any number of threads, extended by one while nobody asks.

    Sorted runs, each several times as long as the next: an addition is sorted alone, and merged with older
    runs only when they have grown alike. So neither a million records nor a thousand additions cost a Python
    object for each key. ``contents`` are the hashes of the hashes, `standing_for`.
    """

    def __init__(self, keys: pl.Series, contents: pl.Series, files: pl.Series) -> None:
        self._runs: list[_Run] = []
        self._add(keys, contents, files, _UNSEEN)

    def add(self, keys: pl.Series, hashes: pl.Series, file: int) -> None:
        """Take these versions, written to one file now, as the newest of their keys; each key once."""
        self._add(keys, hashes.hash(), pl.repeat(file, len(keys), dtype=pl.UInt32, eager=True), _SAME)

    def _add(self, keys: pl.Series, contents: pl.Series, files: pl.Series, mark: int) -> None:
        if keys.is_empty():
            return
        columns = [keys.alias("key"), contents.alias("content"), files.alias("file")]
        rows = pl.DataFrame(columns).sort("key")
        self._runs.append(_Run(rows, np.full(len(rows), mark, np.uint8)))
        while len(self._runs) > 1 and len(self._runs[-2].rows) <= _GROWTH * len(self._runs[-1].rows):
            self._runs[-2:] = [_merged(*self._runs[-2:])]

    def saw(self, keys: pl.Series) -> None:
        """Mark keys as if each had been looked up with its hash."""
        for run in self._runs:
            places = run.rows["key"].search_sorted(keys).clip(0, len(run.rows) - 1)
            is_here = run.rows["key"][places] == keys
            run.marks[places.to_numpy()[is_here.to_numpy()]] |= _SAME

    def look_up(self, keys: pl.Series, hashes: pl.Series) -> tuple[pl.Series, pl.Series]:
        """The number of the file that has each key, null where none has, and whether its hash is this one.

        Each key is marked as seen.
        """
        contents = hashes.hash()
        files = pl.repeat(None, len(keys), dtype=pl.UInt32, eager=True)
        same = pl.repeat(False, len(keys), dtype=pl.Boolean, eager=True)
        for run in self._runs:
            places = run.rows["key"].search_sorted(keys).clip(0, len(run.rows) - 1)
            found = run.rows[places]
            is_here = found["key"] == keys
            is_same = is_here & (found["content"] == contents)
            files = found["file"].zip_with(is_here, files)
            same = is_same.zip_with(is_here, same)
            at, here, alike = places.to_numpy(), is_here.to_numpy(), is_same.to_numpy()
            run.marks[at[here & ~alike]] |= _SEEN
            run.marks[at[alike]] |= _SAME
        return files, same

    def mark_same(self, keys: pl.Series) -> None:
        """Take these known keys as looked up with the hash of their newest version."""
        for run in self._runs:
            places = run.rows["key"].search_sorted(keys).clip(0, len(run.rows) - 1)
            run.marks[places.filter(run.rows["key"][places] == keys).to_numpy()] |= _SAME

    def files(self, keys: pl.Series) -> pl.Series:
        """The number of the file that has each key."""
        rows = self._whole().rows
        return rows["file"][rows["key"].search_sorted(keys)]

    def keys(self) -> pl.Series:
        """All keys."""
        return self._whole().rows["key"]

    def unseen(self) -> pl.Series:
        """The keys that were neither looked up nor added since the table was read."""
        run = self._whole()
        return run.rows["key"].filter(pl.Series(run.marks == _UNSEEN))

    def current(self, keys: pl.Series) -> pl.Series:
        """Of ``keys`` those whose newest version was looked up with its hash, or added."""
        run = self._whole()
        rows = run.rows["key"].filter(pl.Series(run.marks & _SAME != 0))
        return keys.filter(keys.is_in(rows.implode()))

    def _whole(self) -> _Run:
        while len(self._runs) > 1:
            self._runs[-2:] = [_merged(*self._runs[-2:])]
        if not self._runs:
            empty = pl.DataFrame(schema={"key": pl.String, "content": pl.UInt64, "file": pl.UInt32})
            return _Run(empty, np.zeros(0, np.uint8))
        return self._runs[0]


def _merged(older: _Run, newer: _Run) -> _Run:
    """One run of two: of each key the newest version, with what was found of it."""
    keys = older.rows["key"]
    places = keys.search_sorted(newer.rows["key"])
    again = places.filter(keys[places.clip(0, len(keys) - 1)] == newer.rows["key"])
    is_kept = np.full(len(keys), True)
    is_kept[again.to_numpy()] = False
    kept = older.rows.with_columns(pl.Series("mark", older.marks)).filter(pl.Series(is_kept))
    added = newer.rows.with_columns(pl.Series("mark", newer.marks))
    rows = kept.merge_sorted(added, "key").rechunk()
    return _Run(rows.drop("mark"), rows["mark"].to_numpy(writable=True))
