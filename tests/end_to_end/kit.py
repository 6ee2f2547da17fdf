"""What the end-to-end tests run with: the real command, a store whose records a test chooses, an oracle.

The oracle judges records in plain Python, from the written rules, so that a slip in the SQL shows.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from dagster_l2.cli import _run
from dagster_l2.store import StoreClient
from dagster_l2.store.server import Faults, LocalStoreServer, RecordSet, generate, store_app

COMMAND = Path(sys.executable).with_name("l2")
TOKEN = "the-token-of-the-test"
# Long enough ago that every generated OP has been quiet for more than the 7 days, whatever day it is today.
LONG_AGO = datetime(2025, 6, 1, tzinfo=UTC)
PATIENCE_S = 300

Row = dict[str, Any]


@dataclass(frozen=True)
class Done:
    """A command that ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed with ``--json``."""
        return json.loads(self.out)

    @property
    def error(self) -> str:
        """Its one sentence on standard error; fails when there is any more to an error than that."""
        lines = self.err.splitlines()
        errors = [line for line in lines if line.startswith("Error: ")]
        assert len(errors) == 1, self.err
        assert errors[0] == lines[-1], self.err
        assert all(line.startswith(("  ", "! ", "Error: ")) for line in lines), self.err
        assert "Traceback" not in self.out + self.err
        return errors[0].removeprefix("Error: ")


@dataclass
class Pipeline:
    """The ``l2`` command on one data folder, in an environment of its own."""

    home: Path
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def data(self) -> Path:
        return self.home / "data"

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        kept = {name: text for name, text in os.environ.items() if not name.startswith(("L2_", "DAGSTER_"))}
        return {**kept, "L2_DATA_DIR": str(self.data), **self.settings, **more}

    def start(self, *arguments: str, **more: str) -> subprocess.Popen[str]:
        """Start a command; its settings are given as keywords."""
        return subprocess.Popen(
            [str(COMMAND), *arguments],
            env=self.environment(more),
            cwd=self.home,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __call__(self, *arguments: str, code: int = 0, **more: str) -> Done:
        """Run a command that is to end with ``code``, in a process of its own."""
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == code, f"l2 {arguments} ended with {process.returncode}\n{out}\n{err}"
        return Done(code, out, err)

    def here(self, *arguments: str, code: int = 0, **more: str) -> Done:
        """The same in this process: a command that starts no run takes longer to load than to do its work."""
        out, err, before = io.StringIO(), io.StringIO(), dict(os.environ)
        environment = self.environment(more)
        try:
            os.environ.clear()
            os.environ.update(environment)
            with contextlib.chdir(self.home), redirect_stdout(out), redirect_stderr(err):
                found = _run(list(arguments))
        finally:
            os.environ.clear()
            os.environ.update(before)
        assert found == code, f"l2 {arguments} ended with {found}\n{out.getvalue()}\n{err.getvalue()}"
        return Done(found, out.getvalue(), err.getvalue())

    def sql(self, query: str) -> list[Row]:
        rows: list[Row] = self.here("sql", "--json", query).json
        return rows

    def states(self) -> dict[str, str]:
        """The state of each OP, from gold."""
        return {row["op_id"]: row["state"] for row in self.sql("select op_id, state from op_latest_state")}

    def steps(self) -> dict[str, list[str]]:
        """The states each OP has gone through, from gold."""
        out: dict[str, list[str]] = {}
        for row in self.sql("select op_id, to_state from op_history order by op_id, seq"):
            out.setdefault(row["op_id"], []).append(row["to_state"])
        return out

    def bronze(self) -> dict[str, int]:
        """The files of bronze and when each was written, apart from the logs of the scans."""
        folder = self.data / "lake" / "bronze"
        return {
            str(path.relative_to(folder)): path.stat().st_mtime_ns
            for path in folder.rglob("*")
            if path.is_file() and path.relative_to(folder).parts[0] not in ("attempts", "job_tasks")
        }


@dataclass
class Store:
    """A store in this process: its records can be changed between two servings, its inversions stay."""

    folder: Path
    records: RecordSet
    faults: Faults = field(default_factory=Faults)
    requests: list[tuple[str, ...]] = field(default_factory=list)

    @contextmanager
    def served(self) -> Iterator[dict[str, str]]:
        """Serve; yields the settings of a command that is to use it."""
        app = store_app(
            self.records,
            token=TOKEN,
            inversions_file=self.folder / "inversions.sqlite",
            faults=self.faults,
        )
        with LocalStoreServer(app) as server:
            try:
                # Products of tests are made up, which a configured store takes only when told so.
                yield {
                    "L2_STORE_URL": server.url,
                    "L2_STORE_TOKEN": TOKEN,
                    "L2_SYNTHETIC_PRODUCTS": "true",
                }
            finally:
                self.requests += [names for _, names in app.state.requests]

    @property
    def creates(self) -> int:
        """How many creates the store was asked for, over all servings that have ended."""
        return sum("createL2InversionInventory" in names for names in self.requests)


def inversions(settings: Mapping[str, str]) -> list[Row]:
    """What the store answers to anybody who asks for its inversions."""
    with StoreClient(settings["L2_STORE_URL"], token=settings["L2_STORE_TOKEN"]) as client:
        return client.inversions()


def generated(observing_programs: int, seed: int) -> RecordSet:
    """Generated records, all of them quiet for long and none embargoed."""
    records = copy.deepcopy(generate(observing_programs, seed=seed, now=LONG_AGO))
    for record in records.datasets:
        record.update(isEmbargoed=False, embargoEndDate=None)
    return records


def by_op(records: Iterable[Row]) -> dict[str, list[Row]]:
    """Dataset records by OP."""
    out: dict[str, list[Row]] = {}
    for record in records:
        out.setdefault(record["observingProgramExecutionId"], []).append(record)
    return out


def rename_op(records: RecordSet, old: str, new: str) -> None:
    """Give an OP another id in all records that name it."""
    for record in (*records.datasets, *records.history, *records.processing_candidates):
        if record["observingProgramExecutionId"] == old:
            record["observingProgramExecutionId"] = new


def current(records: Iterable[Row]) -> list[Row]:
    """The newest ACTIVE record of each product."""
    active = [record for record in records if record.get("status") in (None, "ACTIVE")]
    newest = {r["productId"]: r for r in sorted(active, key=lambda r: (r["createDate"], r["datasetId"]))}
    return list(newest.values())


def expected_states(records: RecordSet) -> dict[str, str]:
    """The state of each OP after one pass over quiet records, by the rules of the qualification."""
    out = {}
    for op_id, datasets in by_op(current(records.datasets)).items():
        visp = [record for record in datasets if record["instrumentName"] == "VISP"]
        is_good = bool(visp) and all(map(_is_sound, visp)) and any(map(_has_iron, visp))
        out[op_id] = "Preprocessed" if is_good else "NotInvertible"
    return out


def expected_steps(state: str) -> list[str]:
    """The states that one undisturbed pass takes an OP through."""
    between = ["Invertible"] if state == "Preprocessed" else []
    return ["Discovered", *between, state]


def _is_sound(record: Row) -> bool:
    frames = record["frameCount"]
    health, gos = record["health"] or {}, record["gosStatus"] or {}
    not_open = sum(gos.get(name) or 0 for name in ("closed", "closing", "opening", "undefined"))
    return (
        frames > 0
        and record["stokesParameters"] == "IQUV"
        and (health.get("good") or 0) >= 0.75 * frames
        and (record["aoLocked"] or 0) >= 0.75 * frames
        and (gos.get("open") or 0) >= frames
        and not_open == 0
        and _is_on_disk(record)
    )


def _is_on_disk(record: Row) -> bool:
    if record["boundingBox"] is None:
        return False
    corners = [float(n) for n in record["boundingBox"].replace("(", "").replace(")", "").split(",")]
    day = datetime.fromisoformat(record["startTime"]).timetuple().tm_yday
    distance_km = 149_600_000 * (1 - 0.0167 * math.cos(2 * math.pi * (day - 3) / 365))
    radius = math.atan(696_340 / distance_km) * 206_265
    return all(math.hypot(x, y) < radius for x in corners[::2] for y in corners[1::2])


def _has_iron(record: Row) -> bool:
    if record["spectralLines"]:
        return any(line.startswith("Fe I (") for line in record["spectralLines"])
    return bool(record["wavelengthMin"] - 0.5 <= 630.15012 <= record["wavelengthMax"] + 0.5)


def wait_until(true: Callable[[], bool], process: subprocess.Popen[str], what: str) -> None:
    """Wait for something that ``process`` is to bring about."""
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        if process.poll() is not None:
            out, err = process.communicate()
            raise AssertionError(f"the command ended before {what}\n{out}\n{err}")
        assert time.monotonic() < deadline, f"waited too long for: {what}"
        time.sleep(0.02)
