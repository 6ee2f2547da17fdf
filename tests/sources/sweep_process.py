"""A scan in a process of its own that dies at a durable step: ``FOLDER URL STEP COUNT``."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from dagster_l2.base.files import watch_steps
from dagster_l2.ledger import Ledger
from dagster_l2.store import StoreClient

from .conftest import World


def main(folder: Path, url: str, name: str, count: int) -> None:
    left = count

    def die(step: str) -> None:
        nonlocal left
        left -= step.startswith(name)
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    world = World(folder)
    world.sweep_options = {"window_records": 3, "workers": 1}
    with StoreClient(url) as client, Ledger.open(f"sqlite:///{folder / 'l2.sqlite'}") as ledger:
        watch_steps(die)
        world.sweep(client, ledger).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]))
