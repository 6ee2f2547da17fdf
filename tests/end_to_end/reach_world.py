"""A UDL over a coarse fleet, and the command on a data folder that downloads from it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from dagster_l2.lake import committed_files
from dagster_l2.store.server import ReachFleet
from tests.end_to_end.kit import Done, Pipeline
from tests.sources.reach_kit import LIST, TOKEN, UdlWorld, served

CADENCE_S = 1800
A_DAY = 2 * 86_400 // CADENCE_S
FAST = ("--initial-rate", "500", "--max-rate", "500")
_SIX_HOURS = timedelta(hours=6)


@dataclass
class ReachWorld:
    """The server and the command."""

    udl: UdlWorld
    l2: Pipeline

    def download(self, first: int, last: int, *options: str, code: int = 0, **more: str) -> Done:
        """Download days of May 2025 of one sensor (unless told otherwise), in this process."""
        return self.l2.here(*self.arguments(first, last, *options), code=code, **more)

    def arguments(self, first: int, last: int, *options: str) -> tuple[str, ...]:
        days = ("--start", f"2025-05-{first:02}", "--end", f"2025-05-{last:02}")
        sensor = () if "--sensor" in options else ("--sensor", "REACH-101")
        return ("download", "reach", *days, *sensor, *FAST, "--json", *options)

    def asked(self) -> Counter[str]:
        """The chunks that were asked for since the last look, by their start (day and hour)."""
        spans = [
            re.search(r"obTime=(\S+?)\.\.([^&]+)", query) for path, query in self.udl.asked if path == LIST
        ]
        self.udl.app.state.requests.clear()
        out: Counter[str] = Counter()
        for span in spans:
            assert span is not None
            start, end = (datetime.fromisoformat(text) for text in span.groups())
            if end - start == _SIX_HOURS:  # the others only look how long an answer may be
                out[f"{start:%dT%H}"] += 1
        return out

    def rows(self) -> pl.DataFrame:
        """What bronze holds."""
        files = committed_files(self.l2.data / "lake" / "bronze" / "reach")
        return pl.concat([pl.read_parquet(file) for file in files])

    def counts(self, done: Done) -> tuple[int, ...]:
        """Planned, attempted, downloaded, existing, no data, failed."""
        found = done.json
        names = ("planned", "attempted", "downloaded", "skipped_existing", "skipped_no_data", "failed")
        planned, _attempted, *parts = counts = tuple(found[name] for name in names)
        assert planned == sum(parts)
        return counts

    def job(self, done: Done, *command: str, code: int = 0) -> Any:
        return self.l2.here("jobs", *command[:1], done.json["job_id"], *command[1:], "--json", code=code).json


def all_of(*days: int) -> dict[str, int]:
    """Every chunk of these days, once."""
    return {f"{day:02}T{hour:02}": 1 for day in days for hour in (0, 6, 12, 18)}


@contextmanager
def reach_world(l2: Pipeline, folder: Path) -> Iterator[ReachWorld]:
    with served(folder) as udl:
        udl.stock.now = ReachFleet(
            satellites=2, cadence_s=CADENCE_S, quirks=False, now=datetime(2026, 1, 1, tzinfo=UTC)
        )
        l2.settings = {
            "L2_UDL_URL": udl.url,
            "L2_UDL_TOKEN": TOKEN,
            "L2_REACH_CADENCE_S": str(CADENCE_S),
            "L2_REACH_SATELLITES": "2",
        }
        yield ReachWorld(udl, l2)
