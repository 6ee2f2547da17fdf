"""Ctrl-C and SIGTERM as a word to stop: work ends by itself within two seconds, or is ended."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import click

_PATIENCE_S = 1.4


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """An event that is set by the first interrupt inside the block.

    Work that does not end by itself then is ended with its process: whatever counts is committed, and the
    next run goes on from there.
    """
    stop, has_ended = threading.Event(), threading.Event()

    def give_up() -> None:
        if not has_ended.is_set():
            click.echo("Error: Interrupted; what is finished is kept, run the command again.", err=True)
        os._exit(130)

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            give_up()
        stop.set()
        # It is not called off when the work has ended: the end of the process counts, too.
        timer = threading.Timer(_PATIENCE_S, give_up)
        timer.daemon = True
        timer.start()

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        has_ended.set()
        for number, handler in before.items():
            signal.signal(number, handler)
