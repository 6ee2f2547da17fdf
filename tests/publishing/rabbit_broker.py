"""A real RabbitMQ on this host, of Debian's package: on loopback, all its files in one temporary folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pika
import pika.exceptions

_START_S = 120
_SERVER = "/usr/lib/rabbitmq/bin/rabbitmq-server"


class Broker:
    """A broker for the time of a ``with`` block; it can be killed, and started again on its disk."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="l2-rabbit-"))
        self._port, self._distribution, self._names = _free_ports(3)
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"amqp://guest:guest@127.0.0.1:{self._port}/%2F"

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def start(self) -> None:
        """Start it unless it runs, and wait until it answers."""
        if self._process is not None:
            return
        config = self._folder / "rabbitmq.conf"
        config.write_text(f"listeners.tcp.1 = 127.0.0.1:{self._port}\n")
        (self._folder / "plugins").write_text("[].")
        with (self._folder / "out").open("ab") as out:
            self._process = subprocess.Popen(
                [_SERVER], env=self._environment(), stdout=out, stderr=out, start_new_session=True
            )
        until = time.monotonic() + _START_S
        while True:
            try:
                socket.create_connection(("127.0.0.1", self._port)).close()  # pika logs each that fails
                self.connect().close()
                return
            except (pika.exceptions.AMQPError, OSError):
                if time.monotonic() > until or self._process.poll() is not None:
                    raise AssertionError((self._folder / "out").read_text()[-4000:]) from None
                time.sleep(0.2)

    def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def connect(self) -> Any:
        """A connection to it."""
        return pika.BlockingConnection(pika.URLParameters(self.url))

    def _environment(self) -> dict[str, str]:
        folder = str(self._folder)
        return os.environ | {
            "HOME": folder,
            # The process is then the broker itself and no shell in front of it: killed and waited for, it is
            # gone, with its connections, its port and its name.
            "RUNNING_UNDER_SYSTEMD": "true",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._names),
            "ERL_EPMD_RELAXED_COMMAND_CHECK": "true",  # else it stays for a node that was just killed
            "RABBITMQ_NODENAME": "l2@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/none",
        }

    def _end(self) -> None:
        self.kill()
        subprocess.run(
            ["epmd", "-port", str(self._names), "-kill"],
            check=False,
            capture_output=True,
            env=self._environment(),
        )
        shutil.rmtree(self._folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
