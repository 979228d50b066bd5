"""One kept-alive connection that asks and waits, with nothing between it and the socket."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

from benchmarks.model import BenchError

TIMEOUT_S = 10


class Exchange:
    """A blocking HTTP/1.1 connection to a port of the loopback interface; one request at a time."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def fileno(self) -> int:
        """Let `select` wait for an answer."""
        return self._socket.fileno()

    def send(self, data: bytes) -> None:
        """Send one whole request."""
        self._socket.sendall(data)

    def receive(self) -> bytes:
        """Return the body of the answer; raises BenchError when its status is not 200."""
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._some()
        head = data[:end].lower()
        missing = end + 4 + _length(head) - len(data)
        while missing > 0:
            more = self._some()
            data, missing = data + more, missing - len(more)
        if not head.startswith(b"http/1.1 200"):
            raise BenchError(f"an unexpected answer: {data[:400]!r}")
        return data[end + 4 :]

    def _some(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise BenchError("the service closed the connection")
        return data


def _length(head: bytes) -> int:
    _, found, rest = head.partition(b"\r\ncontent-length:")
    return int(rest.partition(b"\r\n")[0]) if found else 0
