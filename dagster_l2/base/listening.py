"""Opening the socket that a server of ours listens on, and its quiet end. What it serves is the rooms'.

A leaf: every room may import it, and it imports none.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket

from dagster_l2.base.errors import L2Error


def listen(host: str, port: int, what: str, failure: type[L2Error]) -> socket.socket:
    """A socket that listens, with answers sent at once.

    Parameters
    ----------
    port
        0 takes a free one.
    what
        Who listens, as the refusal says.
    failure
        Raised when the port is taken or none, or the host is not one of this machine's addresses.
    """
    if not 0 <= port <= 65535:
        raise failure(f"{port} is no port; choose one from 1 to 65535, or 0 for a free one.")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        # The system's own words; Python adds the address, which is said already.
        number = error.errno or 0
        reason = os.strerror(number) if number > 0 else error.strerror or str(error)
        raise failure(
            f"{what} cannot listen on {host}:{port} ({reason}); choose another port or stop what holds it."
        ) from None
    # Head and body are two packets; without this each answer waits 40 ms for the client's acknowledgement
    # of the first. Accepted connections inherit it, and asyncio does not set it on sockets made like this.
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listening


def end_quietly() -> None:
    """Let uvicorn say nothing of requests that are cut off when a server ends: whoever ended it knows.

    It would print a traceback for each, below the sentence of a command that was interrupted.
    """
    logging.getLogger("uvicorn.error").addFilter(_is_worth_saying)


def _is_worth_saying(record: logging.LogRecord) -> bool:
    was_cancelled = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not was_cancelled and not record.getMessage().endswith("timeout graceful shutdown exceeded")
