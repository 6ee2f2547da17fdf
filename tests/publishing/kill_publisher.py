"""A process that lets copies of itself hand over and publish an inversion, and kills each at another step.

Forked from here a run costs hundredths of a second, where a new interpreter would cost a second. Nothing
that makes threads may be called in this process itself, only in the copies. A line in says which OP, where it
lies, and at which step to die; a line out says how the copy ended, and which steps it took.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import astropy.io.fits  # noqa: F401 - loaded once, here, and not by each copy

import dagster_l2.products.level2.asdf_file
from dagster_l2.base.files import watch_steps
from dagster_l2.ledger import Ledger
from dagster_l2.pipeline.receiving import Places
from dagster_l2.pipeline.steps import publish_inverted, settle_events
from dagster_l2.publishing import Outbox, PublishArea
from dagster_l2.store import StoreClient

# A third of a second, and no step that could be killed.
dagster_l2.products.level2.asdf_file.write_asdf = lambda path, *_: path.write_bytes(b"#ASDF")

STEP = {"actor": "pipeline", "run_id": "run"}


def work(told: dict[str, Any]) -> list[str]:
    """What a hand-over run does; what came of it, as far as a person should know."""
    data = Path(told["data"])
    with Ledger.open(told["ledger"], schema=told["schema"]) as ledger:
        settled = settle_events(ledger, data, places=Places(may_be_synthetic=True), **STEP)
        published = publish_inverted(
            ledger,
            lambda: StoreClient(told["store"], attempts=1, patience_s=0.1),
            data,
            area=PublishArea(data / "published"),
            bus=Outbox(data / "published" / "outbox"),
            mode="auto",
            default_bucket="data",
            publish_embargoed=False,
            now=datetime.now(UTC),
            **STEP,
        )
    return [str(what) for report in (settled, published) for what in (*report.refused, *report.failed)]


def _run(told: dict[str, Any], out: Path) -> None:
    steps: list[str] = []

    def watch(name: str) -> None:
        if len(steps) == told["die_at"]:
            os.kill(os.getpid(), signal.SIGKILL)
        steps.append(name)

    watch_steps(watch)
    said = work(told)
    out.write_text(json.dumps({"steps": steps, "said": said}))


def main() -> None:
    gc.disable()  # a collection in a copy would touch, and so copy, every page
    for line in sys.stdin:
        told = json.loads(line)
        out = Path(told["data"]) / "out.json"
        out.unlink(missing_ok=True)
        child = os.fork()
        if child == 0:
            try:
                _run(told, out)
                os._exit(0)
            finally:
                os._exit(1)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        report = json.loads(out.read_text()) if code == 0 else {}
        print(json.dumps({"code": code, **report}), flush=True)


if __name__ == "__main__":
    main()
