"""The client of the cluster, and a way to the service on which answers are cut off. No tests here."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CLIENT = Path(__file__).resolve().parents[1] / "contrib" / "l2-ready.py"


@contextmanager
def cutting(url: str, cuts: int) -> Iterator[str]:
    """A way to the service on which the first answers are cut off in their middle, though all was done."""
    host, port = url.removeprefix("http://").split(":")
    left = [cuts]
    listening = socket.create_server(("127.0.0.1", 0))

    def carry(connection: socket.socket) -> None:
        with connection, socket.create_connection((host, int(port))) as service:
            request = connection.recv(65536)
            while b"\r\n\r\n" not in request or len(request.split(b"\r\n\r\n", 1)[1]) < _length(request):
                request += connection.recv(65536)
            service.sendall(request.replace(b"Connection: keep-alive", b"Connection: close"))
            answer = b""
            while part := service.recv(65536):
                answer += part
            if left[0] > 0:
                left[0] -= 1
                answer = answer[: len(answer) - 20]
            connection.sendall(answer)

    def serve() -> None:
        while True:
            try:
                connection, _address = listening.accept()
            except OSError:
                return
            threading.Thread(target=carry, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.close()


def _length(request: bytes) -> int:
    for line in request.split(b"\r\n\r\n", 1)[0].lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            return int(line.split(b":")[1])
    return 0
