"""How far long work is: one line that changes on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time

import click

_TERMINAL_S = 0.2
_PLAIN_S = 10.0


class Counter:
    """Prints how far the work is on standard error, seldom enough not to slow it."""

    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        self._next = time.monotonic() + (_TERMINAL_S if self._is_terminal else _PLAIN_S)
        self._width = 0

    def show(self, what: str, done: int, total: int | None = None) -> None:
        """Say that ``done`` rows (of ``total``) are ``what``, unless that was said just now."""
        of = f" of about {total:,}" if total else ""
        self.say(f"  {done:,}{of} rows {what}")

    def say(self, line: str) -> None:
        """Print a line, unless one was printed just now."""
        now = time.monotonic()
        if now < self._next:
            return
        if self._is_terminal:
            self._next = now + _TERMINAL_S
            click.echo("\r" + line.ljust(self._width), err=True, nl=False)
            self._width = len(line)
        else:
            self._next = now + _PLAIN_S
            click.echo(line, err=True)

    def close(self) -> None:
        """Leave a terminal's line empty for what comes next."""
        if self._width:
            click.echo("\r" + " " * self._width + "\r", err=True, nl=False)

    def __enter__(self) -> Counter:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
