"""Running the service: until the process is told to end, or in a thread for as long as a block."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from dagster_l2.base.errors import L2Error
from dagster_l2.base.listening import end_quietly, listen

_START_S = 60.0
_GRACE_S = 5


class ServiceFailed(L2Error):
    """The service could not be started."""


def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serve until the process is told to end (interrupt or terminate); requests in flight are finished.

    Raises
    ------
    ServiceFailed
        When the port is taken or the host is not one of this machine's addresses.
    """
    with (
        listen(host, port, "The service", ServiceFailed) as listening,
        contextlib.suppress(KeyboardInterrupt),
    ):
        uvicorn.Server(_config(app)).run(sockets=[listening])


class RunningService:
    """The service on a free port of loopback, for as long as a ``with`` block."""

    def __init__(self, app: ASGIApp) -> None:
        self._server = uvicorn.Server(_config(app))
        self._socket = listen("127.0.0.1", 0, "The service", ServiceFailed)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="service", daemon=True
        )

    @property
    def url(self) -> str:
        """The base address, without a path."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise ServiceFailed("The service did not start; its log says why.")
            time.sleep(0.005)
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()


def _config(app: ASGIApp) -> uvicorn.Config:
    end_quietly()
    return uvicorn.Config(
        app,
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
