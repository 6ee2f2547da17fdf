"""Calls in threads that an interrupt can leave behind.

What has ended is handed out, what hangs is not waited for. What the calls are is the caller's.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from dagster_l2.base.telemetry import carried

_TICK_S = 0.1
_GRACE_S = 0.5


def in_threads(
    calls: Sequence[tuple[Any, Callable[[], Any]]], *, at_once: int, stop: Callable[[], bool]
) -> Iterator[tuple[Any, Any]]:
    """Run calls, ``at_once`` at a time, and give (its key, its result or exception) as each ends.

    When ``stop`` says so no further call begins, and those under way have half a second to end. Their threads
    are daemons: a request that hangs keeps no process from ending.
    """
    waiting = deque(calls)
    ended: queue.Queue[tuple[Any, Any]] = queue.Queue(maxsize=at_once)
    is_over = threading.Event()

    def work() -> None:
        while not is_over.is_set():
            try:
                key, call = waiting.popleft()
            except IndexError:
                return
            try:
                result: Any = call()
            except Exception as error:  # noqa: BLE001 - handed to the caller, who knows what it means
                result = error
            while not is_over.is_set():
                try:
                    ended.put((key, result), timeout=_TICK_S)
                    break
                except queue.Full:
                    continue

    threads = [
        threading.Thread(target=carried(work), daemon=True, name=f"fetch-{n}")
        for n in range(min(at_once, len(calls)))
    ]
    for thread in threads:
        thread.start()
    left = len(calls)
    deadline: float | None = None
    try:
        while left:
            if deadline is None and stop():
                waiting.clear()
                deadline = time.monotonic() + _GRACE_S
            if deadline is not None and time.monotonic() > deadline:
                return
            try:
                ended_call = ended.get(timeout=_TICK_S)
            except queue.Empty:
                if deadline is not None and not any(thread.is_alive() for thread in threads):
                    return
                continue
            left -= 1
            yield ended_call
    finally:
        is_over.set()
