"""Ctrl-C and SIGTERM as a word to stop: work ends by itself within two seconds, or is ended."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import click

_PATIENCE_S = 1.4
_WORDS_S = 0.2
_NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Interrupt(threading.Event):
    """Set by the first interrupt. ``advice`` says how to go on; it is told when the process is ended."""

    advice = "run the command again"


def be_ended_by_sigterm() -> None:
    """Let SIGTERM end this process, and those that it starts, also where it was ignored from birth.

    A shell's background jobs ignore SIGINT, and Dagster gives SIGTERM the same meaning. A process that was
    started from there could not be ended, and nor could the `tail` by which Dagster mirrors the output of a
    step: it would stay for ever, and with it the pipe that our output goes to.
    """
    if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


@contextmanager
def stop_on_interrupt() -> Iterator[Interrupt]:
    """An event that is set by the first interrupt inside the block.

    Work that does not end by itself then is ended with its process: whatever counts is committed, and the
    next run goes on from there.

    A thread of its own hears the signal. Python lets a handler run only between two steps of the main
    thread, which may be waiting for a lock of the database, a disk or a full pipe for as long as those
    like; the system's own half of the handler writes to a socket at once, whatever the main thread does.
    """
    stop, has_ended = Interrupt(), threading.Event()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)

    def listen() -> None:
        with ours:
            while numbers := ours.recv(1):
                if numbers[0] not in _NUMBERS:
                    continue
                if stop.is_set():
                    _give_up(stop, has_ended)
                stop.set()
                # It is not called off when the work has ended: the end of the process counts, too.
                timer = threading.Timer(_PATIENCE_S, _give_up, (stop, has_ended))
                timer.daemon = True
                timer.start()

    threading.Thread(target=listen, daemon=True, name="interrupt").start()
    # The Python half does nothing, but without one the process would end at once.
    before = {number: signal.signal(number, lambda _number, _frame: None) for number in _NUMBERS}
    woken = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        yield stop
    finally:
        has_ended.set()
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        theirs.close()


def _give_up(stop: Interrupt, has_ended: threading.Event) -> None:
    if not has_ended.is_set():
        # Nobody may be reading, and another thread may hold the stream: a few words are not worth a wait.
        words = threading.Thread(target=_say, args=(stop.advice,), daemon=True)
        words.start()
        words.join(_WORDS_S)
    os._exit(130)


def _say(advice: str) -> None:
    with suppress(OSError, ValueError):
        click.echo(f"Error: Interrupted; what is finished is kept, {advice}.", err=True)
