"""A process that lets copies of itself scan, or download a day of REACH, and kills each at another step.

Forked from here a run costs hundredths of a second, where a new interpreter would cost seconds. Nothing that
makes threads may be called in this process itself, only in the copies. A line in says what is done with which
settings, and at which step to die; a line out says how the copy ended, and which steps it took.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import numpy.ma  # noqa: F401 - loaded once, here, and not by each copy; so are the next

import dagster_l2.handlers  # noqa: F401
from dagster_l2.base.files import watch_steps
from dagster_l2.pipeline.downloads import download_reach, reach_request
from dagster_l2.pipeline.revision import git_commit
from dagster_l2.pipeline.scans import one_scan, scan_all
from dagster_l2.pipeline.wiring import open_ledger, open_store
from dagster_l2.settings import load_settings

FAST = {"initial": 500.0, "max": 500.0}


def scan(_day: str) -> dict[str, Any]:
    settings = load_settings()
    with one_scan(settings), open_store(settings) as store, open_ledger(settings) as ledger:
        return dict(scan_all(settings, store, ledger).counts())


def reach(day: str) -> dict[str, Any]:
    settings, wanted = load_settings(), date.fromisoformat(day)
    request = reach_request(
        settings, wanted, wanted, sensor="REACH-101", rate=FAST, max_concurrent_requests=1
    )
    return asdict(download_reach(settings, request))


def _run(told: dict[str, Any], out: Path) -> None:
    steps: list[str] = []

    def watch(name: str) -> None:
        if len(steps) == told["die_at"]:
            os.kill(os.getpid(), signal.SIGKILL)
        steps.append(name)

    os.environ.update(told["settings"])
    watch_steps(watch)
    said = {"scan": scan, "reach": reach}[told["what"]](told["day"])
    out.write_text(json.dumps({"steps": steps, "said": said}, default=str))


def main() -> None:
    git_commit()  # asks git once for all copies
    # What would be read for TLS, which is spoken to nobody here, takes a run as long as its requests.
    context = httpx.create_ssl_context()
    httpx._transports.default.create_ssl_context = lambda *_given, **_named: context
    httpx.Client().close()
    gc.freeze()  # a collection in a copy would touch, and so copy, every page
    gc.disable()
    for line in sys.stdin:
        told = json.loads(line)
        out = Path(told["settings"]["L2_DATA_DIR"]) / "out.json"
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
