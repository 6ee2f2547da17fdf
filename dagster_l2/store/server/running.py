"""Running the local store: in a thread beside the caller, or as a process of its own.

What it answers is in ``app``.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from types import TracebackType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from dagster_l2.base.listening import end_quietly, listen
from dagster_l2.store.errors import StoreError

_START_S = 30.0
_GRACE_S = 2


class StoreServerFailed(StoreError):
    """The local store could not be started."""


class LocalStoreServer:
    """The local store on loopback, for as long as a ``with`` block.

    Parameters
    ----------
    app
        What `store_app` made.
    port
        0 takes a free one.

    Raises
    ------
    StoreServerFailed
        On entering, when the port is taken.
    """

    def __init__(self, app: ASGIApp, *, port: int = 0) -> None:
        self._app = app
        self._port = port
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._socket: socket.socket | None = None

    @property
    def url(self) -> str:
        """The base address, without a path."""
        return f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        self._socket = listen("127.0.0.1", self._port, "The local store", StoreServerFailed)
        self._port = self._socket.getsockname()[1]
        self._server = uvicorn.Server(_config(self._app))
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._socket]}, name="local-store", daemon=True
        )
        self._thread.start()
        deadline = time.monotonic() + _START_S
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                self.stop()
                raise StoreServerFailed("The local store did not start; its log says why.")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Stop serving; requests in flight have two seconds."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join()
        if self._socket is not None:
            self._socket.close()
        self._server = self._thread = self._socket = None


def serve(app: ASGIApp, host: str, port: int) -> None:
    """Serve until the process is told to end (interrupt or terminate).

    Raises
    ------
    StoreServerFailed
        When the port is taken or the host is not one of this machine's addresses.
    """
    with (
        listen(host, port, "The local store", StoreServerFailed) as listening,
        contextlib.suppress(KeyboardInterrupt),
    ):
        uvicorn.Server(_config(app)).run(sockets=[listening])


def _config(app: ASGIApp) -> uvicorn.Config:
    end_quietly()
    # h11 on asyncio, whatever else is installed: faults reach into its connection.
    return uvicorn.Config(
        app,
        http="h11",
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
