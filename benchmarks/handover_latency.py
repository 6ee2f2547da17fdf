"""From "ready" to Published through the running system: where each second goes.

`l2 ui` is started as people start it (webserver, daemon, code server, local store) on a data folder of its
own. OPs are brought to Working, and of one after the other is said that its products are ready; then the
records of Dagster and of the ledger tell what happened when. A run is ended when it has published: the states
and gold, which it makes next, are not what anybody waits for here.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import kit
from latency import working

MOST_S, MOST_OWN_S = 15.0, 2.0
PATIENCE_S = 180.0
TICK_S = 5.0

OWN = "our own work: fetch, verify, files, publish"
START_UP = ("a process and Dagster in it", "the code location in it", "its first step")
PARTS = ("until the sensor looks", "the sensor, until a run is queued", "in the queue", *START_UP, OWN)

T = TypeVar("T")


def until(look: Callable[[], T | None], what: str) -> T:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if (found := look()) is not None:
            return found
        time.sleep(0.1)
    raise SystemExit(f"{what} did not come in {PATIENCE_S:.0f} s")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def running_ui(log: Path) -> Iterator[None]:
    command = [str(Path(sys.executable).parent / "l2"), "ui", "--port", str(free_port())]
    with log.open("wb") as out:
        # Started in the background, it may have been told to ignore what ends it.
        process = subprocess.Popen(
            ["env", "--default-signal=INT,TERM", *command], stdout=out, stderr=out, start_new_session=True
        )
        try:
            yield
        except SystemExit:
            sys.stderr.write(log.read_text()[-3000:])
            raise
        finally:
            process.terminate()
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)


def ticks(instance: Any, limit: int = 1) -> list[Any]:
    """The last looks of the sensor, newest first."""
    from dagster._core.scheduler.instigation import InstigatorType

    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.name == "ready_events":
            return list(instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=limit))
    return []


def next_tick(instance: Any) -> None:
    seen = {tick.tick_id for tick in ticks(instance)}
    until(lambda: {tick.tick_id for tick in ticks(instance)} - seen or None, "a look of the sensor")


def moments_of(instance: Any, run: Any) -> list[float]:
    """When, in seconds since 1970, each of `PARTS` but the last was over."""
    times: dict[str, float] = {}
    for event in instance.all_logs(run.run_id):
        kind = event.dagster_event.event_type_value if event.dagster_event else ""
        name = "PROCESS" if "Started process for run" in event.message else kind
        times.setdefault(name, event.timestamp)
    tick_id = run.tags["dagster/tick"]
    looked = next(tick.timestamp for tick in ticks(instance, 50) if str(tick.tick_id) == tick_id)
    names = ("PIPELINE_ENQUEUED", "PIPELINE_STARTING", "PROCESS", "PIPELINE_START", "STEP_START")
    return [looked, *(times[name] for name in names)]


def one_turn(instance: Any, ledger: Any, op_id: str, place: Path, wait_s: float) -> list[float]:
    """Say ready so many seconds after a look of the sensor; how long each of `PARTS` took."""
    next_tick(instance)
    time.sleep(wait_s)
    known = {run.run_id for run in instance.get_runs()}
    ledger.submit_ready(op_id, products=str(place), commit_hash="c0ffee1", actor="ana")
    said = time.time()

    def ended() -> str | None:
        state = ledger.present(op_id).state.value
        return state if state in ("Published", "Error") else None

    if until(ended, f"{op_id} as Published") == "Error":
        raise SystemExit(f"{op_id}: {ledger.present(op_id).details['message']}")
    (run,) = [run for run in instance.get_runs() if run.run_id not in known]
    moments = [said, *moments_of(instance, run), ledger.present(op_id).recorded_at.timestamp()]
    instance.run_launcher.terminate(run.run_id)
    until(lambda: instance.get_run_by_id(run.run_id).is_finished or None, "the end of the run")
    return [after - before for before, after in pairwise(moments)]


def measured(data: Path, times: int) -> list[list[float]]:
    import dagster as dg

    from dagster_l2.cli.runner import prepare_dagster_home
    from dagster_l2.ledger import Ledger, Verdict
    from dagster_l2.settings import load_settings
    from dagster_l2.store.server import generate

    settings = load_settings()
    prepare_dagster_home(settings)
    generated = generate(settings.demo_observing_programs, seed=1, small_frames=True)
    record = next(one for one in generated.datasets if one.get("instrumentName") == "VISP")
    ops = [f"op{number}" for number in range(times)]
    with Ledger.open(settings.state_url) as ledger:
        found = [Verdict(op, True, True, True, inputs_hash="h", rule_version="r") for op in ops]
        ledger.decide(found, actor="bench")
        places = [working(ledger, data, op_id, record) for op_id in ops]
        with running_ui(data / "ui.log"), dg.DagsterInstance.get() as instance:
            # The first look loads what the later ones find loaded.
            next_tick(instance)
            return [
                one_turn(instance, ledger, op_id, place, TICK_S * (number + 0.5) / times)
                for number, (op_id, place) in enumerate(zip(ops, places, strict=True))
            ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("L2_")]:
        del os.environ[name]
    # As an installation is: compiled once, ours too.
    for name in ("DAGSTER_HOME", "PYTHONDONTWRITEBYTECODE"):
        os.environ.pop(name, None)
    with tempfile.TemporaryDirectory(prefix="l2_bench_") as folder:
        os.environ |= {
            "L2_DATA_DIR": folder,
            "L2_STORE_PORT": str(free_port()),
            "L2_SCAN_EVERY": "0 0 1 1 *",
            "L2_PUBLISH_EMBARGOED": "true",
        }
        turns = measured(Path(folder), options.times)
    parts = dict(zip(PARTS, zip(*turns, strict=True), strict=True))
    start_up = [sum(values) for values in zip(*(parts[name] for name in START_UP), strict=True)]
    totals = [sum(turn) for turn in turns]
    shown = {**parts, "start of a run, together": start_up, "ready to Published": totals}
    limits = {OWN: MOST_OWN_S, "ready to Published": MOST_S}
    rows = [
        {
            "what": name,
            "median s": statistics.median(values),
            "worst s": max(values),
            "limit s": limits.get(name),
        }
        for name, values in shown.items()
    ]
    kit.report(f"ready to Published, {options.times} times", rows, as_json=options.json)
    return 0 if all(statistics.median(shown[name]) < limit for name, limit in limits.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
