"""Blocking sockets: connections that threads take in turn, and a stream that a thread of its own listens to."""

from __future__ import annotations

import contextlib
import socket
import threading
from time import monotonic
from typing import Final

from accessguard.client.events import Events
from accessguard.client.following import FIRST_PAUSE_S, LONGEST_PAUSE_S, SILENCE_S
from accessguard.client.holding import Holding
from accessguard.client.wire import END, Address, Chunks, Heads, Reader, Reply, WireError, head

CONNECT_S: Final = 5.0
PIECE: Final = 65_536
MOST_HEAD: Final = 65_536


class LostError(Exception):
    """Nothing came: the connection broke, or the time was over. `used`: it had answered before, and may have been idle for too long."""

    def __init__(self, *, used: bool) -> None:
        super().__init__("the exchange was lost")
        self.used = used


def connected(at: Address, seconds: float) -> socket.socket:
    """A new connection. Raises OSError."""
    if at.path is None:
        made = socket.create_connection((at.host, at.port), timeout=seconds)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return made
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(seconds)
    try:
        made.connect(at.path)
    except OSError:
        made.close()
        raise
    return made


class Line:
    """Connections that are kept open between the exchanges of any thread, at most `most` of them idle."""

    def __init__(self, at: Address, most: int) -> None:
        self._at = at
        self._most = most
        self._idle: list[socket.socket] = []

    def exchange(self, data: bytes, due: float) -> Reply:
        """Send, and return the answer that came until `due` (monotonic seconds); once more where the connection was stale. Raises LostError."""
        try:
            return self._exchange(data, due)
        except LostError as lost:
            if not lost.used or monotonic() >= due:
                raise
        self.close()  # what idled beside a stale one is stale
        return self._exchange(data, due)

    def close(self) -> None:
        """Close what is idle; in a forked process that closes its copies only."""
        idle, self._idle = self._idle, []
        for one in idle:
            one.close()

    def _exchange(self, data: bytes, due: float) -> Reply:
        made, used = self._taken(due)
        try:
            reply = _answered(made, data, due)
        except (OSError, WireError) as error:
            made.close()
            raise LostError(used=used and not isinstance(error, TimeoutError)) from error
        if reply.keep and len(self._idle) < self._most:
            self._idle.append(made)
        else:
            made.close()
        return reply

    def _taken(self, due: float) -> tuple[socket.socket, bool]:
        try:
            return self._idle.pop(), True
        except IndexError:
            pass
        try:
            return connected(self._at, max(0.001, due - monotonic())), False
        except OSError as error:
            raise LostError(used=False) from error


def _answered(made: socket.socket, data: bytes, due: float) -> Reply:
    reader = Reader()
    made.settimeout(max(0.001, due - monotonic()))
    made.sendall(data)
    while (reply := reader.feed(_piece(made, due))) is None:
        continue
    return reply


def _piece(made: socket.socket, due: float) -> bytes:
    left = due - monotonic()
    if left <= 0:
        raise TimeoutError
    made.settimeout(left)
    data = made.recv(PIECE)
    if not data:
        raise ConnectionError("the connection was closed")
    return data


class Listener:
    """The stream, in a thread that ends with the process."""

    def __init__(self, at: Address, heads: Heads, holding: Holding) -> None:
        self._at = at
        self._heads = heads
        self._holding = holding
        self._ended = threading.Event()
        self._socket: socket.socket | None = None
        self._pause_s = FIRST_PAUSE_S
        self.last: str | None = None
        self.following = False
        threading.Thread(target=self._for_ever, name="accessguard-stream", daemon=True).start()

    def stop(self) -> None:
        """Listen no longer."""
        self._ended.set()
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Close this process's copy of a stream that its parent listens to."""
        self._ended.set()
        if self._socket is not None:
            self._socket.close()

    def _for_ever(self) -> None:
        while not self._ended.is_set():
            events = Events()
            with contextlib.suppress(OSError, WireError, ValueError):
                self._once(events)
            self.following = False
            self._ended.wait(self._pause_s if events.retry_ms is None else events.retry_ms / 1000)
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)

    def _once(self, events: Events) -> None:
        with connected(self._at, CONNECT_S) as made:
            self._socket = made
            made.sendall(self._heads.stream(self.last))
            start, rest = _head(made)
            found = head(start)
            if found.status != 200 or found.length is not None:
                raise WireError("no stream")
            if self.last is None:  # what happened until now was not told
                self._holding.drop_all()
            self.following, self._pause_s = True, FIRST_PAUSE_S
            made.settimeout(SILENCE_S)
            self._listen(made, events, rest)

    def _listen(self, made: socket.socket, events: Events, data: bytes) -> None:
        chunks = Chunks()
        while not chunks.ended and not self._ended.is_set():
            for event in events.feed(chunks.feed(data)):
                self._holding.heard(event)
            self.last = events.last or self.last
            data = made.recv(PIECE)
            if not data:
                return


def _head(made: socket.socket) -> tuple[bytes, bytes]:
    """The head of an answer, and what came with it."""
    data = b""
    while END not in data:
        piece = made.recv(PIECE)
        if not piece or len(data) > MOST_HEAD:
            raise WireError("no head")
        data += piece
    start, _, rest = data.partition(END)
    return start, rest
