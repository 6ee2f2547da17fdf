"""Downloaded days as files of their own, for those who work without the lake: parquet, CSV or JSON.

A file is the rows of one day as its last download brought them. It counts with its marker ``<file>.done``,
and one that does is left as it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import polars as pl
import pyarrow.parquet as pq

from dagster_l2.base.errors import L2Error
from dagster_l2.base.files import sha256, write_durably, write_json
from dagster_l2.batch import JobRequest, LastAttempt, Window
from dagster_l2.lake import is_intact

DayFormat: TypeAlias = Literal["parquet", "csv", "json"]

_MOMENT = "%Y-%m-%dT%H:%M:%S%.6fZ"


@dataclass(frozen=True, slots=True)
class Day:
    """The rows of a file between two moments, UTC without zone."""

    source: Path
    start: datetime
    end: datetime

    def rows(self, offset: int = 0, length: int | None = None) -> pl.LazyFrame:
        """Those of them in a slice of the file."""
        rows = pl.scan_parquet(self.source, glob=False, hive_partitioning=False).slice(offset, length)
        return rows.filter((pl.col("ob_time") >= self.start) & (pl.col("ob_time") < self.end))


def write_days(
    table: Path, request: JobRequest, found: Mapping[Window, LastAttempt], folder: Path, form: DayFormat
) -> list[Path]:
    """Write the downloaded days of a request to ``folder``; the files of all of them, in order.

    Parameters
    ----------
    table
        The folder of the table that the days were committed to.
    found
        The latest attempt at each day.

    Raises
    ------
    L2Error
        When what a day was committed to is not there any more.
    """
    out = []
    for window in request.windows:
        last = found.get(window)
        if last is None or last.status != "DOWNLOADED":
            continue
        params = request.source_params
        path = (
            folder
            / f"{params['sensor'] or 'REACH-ALL'}_{params['descriptor']}_{window.start:%Y-%m-%d}.{form}"
        )
        if not _is_there(path, str(last.job_id)):
            source = table / f"{last.job_id}.parquet"
            if not is_intact(source):
                raise L2Error(f"{source.name} is not in bronze as it was committed; download its days again.")
            _write(source, window, path, form, str(last.job_id))
        out.append(path)
    return out


def _marker(path: Path) -> Path:
    return path.with_name(f"{path.name}.done")


def _is_there(path: Path, job_id: str) -> bool:
    try:
        content = json.loads(_marker(path).read_text(encoding="utf-8"))
        is_same = content["job_id"] == job_id and content["bytes"] == path.stat().st_size
        return bool(is_same and content["sha256"] == sha256(path))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _write(source: Path, window: Window, path: Path, form: DayFormat, job_id: str) -> None:
    start, end = (moment.astimezone(UTC).replace(tzinfo=None) for moment in (window.start, window.end))
    day = Day(source, start, end)
    _marker(path).unlink(missing_ok=True)
    write_durably(path, lambda temporary: _WRITERS[form](day, temporary))
    content = {"job_id": job_id, "bytes": path.stat().st_size, "sha256": sha256(path)}
    write_json(_marker(path), {**content, "written_at": datetime.now(UTC).isoformat()})


def _parquet(day: Day, path: Path) -> None:
    day.rows().sink_parquet(path, compression="zstd", maintain_order=True)


def _csv(day: Day, path: Path) -> None:
    """Nested values as JSON texts."""
    nested = [name for name, dtype in day.rows().collect_schema().items() if dtype.is_nested()]
    texts = [
        pl.when(pl.col(name).is_not_null())
        .then(pl.struct(name).struct.json_encode().str.slice(len(name) + 4).str.strip_suffix("}"))
        .alias(name)
        for name in nested
    ]
    with path.open("wb") as file:
        for number, frame in enumerate(_frames(day)):
            frame.with_columns(texts).write_csv(file, include_header=number == 0, datetime_format=_MOMENT)


def _json(day: Day, path: Path) -> None:
    """One list of records."""
    moments = [name for name, dtype in day.rows().collect_schema().items() if isinstance(dtype, pl.Datetime)]
    texts = [pl.col(name).dt.strftime(_MOMENT) for name in moments]
    with path.open("w", encoding="utf-8") as file:
        between = "[\n"
        for frame in _frames(day):
            for line in frame.with_columns(texts).write_ndjson().splitlines():
                file.write(between + line)
                between = ",\n"
        file.write("[]\n" if between == "[\n" else "\n]\n")


def _frames(day: Day) -> Iterator[pl.DataFrame]:
    """The rows, a row group at a time: the text of a day is several times its rows."""
    metadata, offset = pq.read_metadata(day.source), 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        if _may_hold(group, day):
            frame = day.rows(offset, group.num_rows).collect()
            if len(frame):
                yield frame
        offset += group.num_rows


def _may_hold(group: pq.RowGroupMetaData, day: Day) -> bool:
    columns = (group.column(number) for number in range(group.num_columns))
    found = next(column.statistics for column in columns if column.path_in_schema == "ob_time")
    return found is None or not found.has_min_max or bool(found.min < day.end and found.max >= day.start)


_WRITERS: dict[DayFormat, Callable[[Day, Path], None]] = {
    "parquet": _parquet,
    "csv": _csv,
    "json": _json,
}
