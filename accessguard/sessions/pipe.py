"""One connection to Valkey whose commands of one loop turn leave in one write, and whose replies come back in order.

A call through redis-py costs 55 to 70 us of CPU, as much as a whole request;
one through here about 3. It is for the scripts of the hot path alone;
everything else, subscriptions among it, stays with redis-py.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from typing import Any, Final, cast

import hiredis
import msgspec

from accessguard.metrics import STORE_SECONDS
from accessguard.timings import Timing

SWEEP_S: Final = 0.025
AGAIN_S: Final = 0.01
REST_S: Final = 0.2
CONNECT_S: Final = 1.0


class PipeError(OSError):
    """Valkey did not answer: no connection, a lost one, or too late.

    `loss` is the same for every call that one loss took along, those included
    that were not tried in the rest after it; None for a call by itself.
    """

    def __init__(self, why: str, loss: object = None) -> None:
        super().__init__(why)
        self.loss = loss


def loss_of(error: BaseException) -> object:
    """What took a call along, for a breaker to count once; None when it is not known to be shared."""
    return error.loss if isinstance(error, PipeError) else None


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where Valkey is: a Unix socket's path, or host and port; and what it wants to hear first.

    With `tls` the files (PEM) say whom to believe (None: the machine's
    authorities), and what to show (None: nothing).
    """

    path: str | None = None
    host: str = "localhost"
    port: int = 6379
    tls: bool = False
    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    username: str | None = None
    password: str | None = None
    db: int = 0

    def __repr__(self) -> str:
        return "Place(...)"

    def greetings(self) -> list[tuple[str, ...]]:
        """The commands that open a connection."""
        login = [("AUTH", *filter(None, (self.username, self.password)))] if self.password else []
        return [*login, *([("SELECT", str(self.db))] if self.db else [])]


async def connect(place: Place, protocol: asyncio.Protocol) -> None:
    """Give `protocol` a connection to Valkey. Raises OSError or TimeoutError (after 1 s)."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(CONNECT_S):
        if place.path is not None:
            await loop.create_unix_connection(lambda: protocol, place.path)
        else:
            context = _verified(place) if place.tls else None
            await loop.create_connection(lambda: protocol, place.host, place.port, ssl=context)


def _verified(place: Place) -> ssl.SSLContext:
    """TLS that believes only a server of that name, by the authority of `ca_file` or the machine's."""
    context = ssl.create_default_context(cafile=place.ca_file)
    if place.cert_file is not None:
        context.load_cert_chain(place.cert_file, place.key_file)
    return context


class Pipe(asyncio.Protocol):
    """Connects at the first call and again after a loss, at most every 200 ms; never queues for a dead server.

    A reply that takes longer than `timeout_s` (checked every 25 ms) fails
    every call under way and drops the connection: what a server that slow
    still sends belongs to nobody. `timing` is told how long replies took; None: with those of all of Valkey.
    """

    def __init__(self, place: Place, *, timeout_s: float, timing: Timing | None = None) -> None:
        self._place = place
        self._timing = STORE_SECONDS["valkey"] if timing is None else timing
        self._timeout_s = timeout_s
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = hiredis.Reader()
        self._outgoing: list[bytes] = []
        self._waiting: deque[tuple[Callable[[Any], None], float]] = deque()
        self._connecting: asyncio.Task[None] | None = None
        self._rest_until = 0.0
        self._loss = object()
        self._sweeper: asyncio.TimerHandle | None = None
        self._late: Callable[[Any], None] | None = None

    def call(self, *command: str | int | bytes) -> asyncio.Future[Any]:
        """The same as `send`; the reply, or the server's error, comes with the future."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self.send(command, settle(future))
        return future

    def send(self, command: tuple[str | int | bytes, ...], then: Callable[[Any], None]) -> None:
        """Send a command with the others of this loop turn; `then` hears the reply, or an exception in its place.

        Raises PipeError when there is no connection and none is being made.
        """
        self.write(hiredis.pack_command(command), then)  # type: ignore[arg-type] # its stub forgets int

    def write(self, packed: bytes, then: Callable[[Any], None]) -> None:
        """Send a command that is packed already."""
        if self._transport is None and self._connecting is None:
            self._connect()
        if not self._outgoing and self._transport is not None:
            self._loop.call_soon(self.leave)
        self._outgoing.append(packed)
        self._waiting.append((then, self._loop.time() + self._timeout_s))
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)

    def leave(self) -> None:
        """Send what has gathered; at the end of the turn by itself."""
        if self._transport is not None and self._outgoing:
            self._transport.write(b"".join(self._outgoing))
            self._outgoing.clear()

    async def place(self, key: str) -> Place:
        """Where a key is: one server has them all."""
        del key
        return self._place

    async def somewhere(self) -> Place:
        """Where to listen."""
        return self._place

    def holds(self, place: Place) -> bool:
        """Whether it is the server still, which it always is."""
        return place == self._place

    @property
    def waiting(self) -> int:
        """Commands that wait for their reply."""
        return len(self._waiting)

    async def watch(self) -> None:
        """One server never changes."""
        await asyncio.Event().wait()

    def close(self) -> None:
        """Drop the connection and fail what is under way."""
        if self._connecting is not None:
            self._connecting.cancel()
        self._lost()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Say what the server wants to hear first, then send what has gathered."""
        self._transport = cast("asyncio.Transport", transport)
        self._reader = hiredis.Reader()
        greetings = self._place.greetings()
        deadline = self._waiting[0][1] if self._waiting else self._loop.time() + self._timeout_s
        for _ in greetings:
            self._waiting.appendleft((self._greeted, deadline))
        self._outgoing[:0] = [hiredis.pack_command(each) for each in greetings]  # type: ignore[arg-type] # as above
        self.leave()

    def data_received(self, data: bytes) -> None:
        """Hand replies out in the order of the commands."""
        self._reader.feed(data)
        sent, took = self._loop.time() + self._timeout_s, self._timing.took  # what a deadline was made of
        while (reply := self._reader.gets()) is not False:
            if not self._waiting:  # nothing was asked: a server that has no room for a client says so unasked
                self._lost()
                return
            then, deadline = self._waiting.popleft()
            took(sent - deadline)
            try:
                then(reply)
            except Exception as error:  # noqa: BLE001 - what one caller does with its answer is not the others' fault
                self._unused(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail everything that was under way on this connection."""
        del exc
        if self._transport is not None:
            self._transport = None
            self._lost()

    def _greeted(self, said: Any) -> None:
        """Drop a connection whose AUTH or SELECT was refused: it would work on another database."""
        if isinstance(said, hiredis.ReplyError):
            self._lost()

    def _connect(self) -> None:
        if self._loop.time() < self._rest_until:
            raise PipeError("resting after a failure", self._loss)
        self._connecting = self._loop.create_task(self._open())

    async def _open(self) -> None:
        try:
            await connect(self._place, self)
        except (OSError, TimeoutError):
            self._lost()
        finally:
            self._connecting = None

    def _sweep(self) -> None:
        self._sweeper = None
        if not self._waiting:
            return
        first, deadline = self._waiting[0]
        late = deadline < self._loop.time()
        if late and first is self._late:
            self._lost()
            return
        # Found late once: it may be this process that stood still, so what has arrived is read before it counts.
        self._late = first if late else None
        self._sweeper = self._loop.call_later(AGAIN_S if late else SWEEP_S, self._sweep)

    def _lost(self) -> None:
        self._rest_until, self._loss = self._loop.time() + REST_S, object()
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.abort()
        self._outgoing.clear()
        waiting, self._waiting = self._waiting, deque()
        for then, _ in waiting:
            self._tell(then, PipeError("no answer", self._loss))

    def _tell(self, then: Callable[[Any], None], answer: Any) -> None:
        try:
            then(answer)
        except Exception as error:  # noqa: BLE001 - as above
            self._unused(error)

    def _unused(self, error: Exception) -> None:
        self._loop.call_exception_handler({"message": "a reply could not be used", "exception": error})


def settle(future: asyncio.Future[Any]) -> Callable[[Any], None]:
    """What hears an answer and hands it to a future, which somebody may have given up."""

    def heard(answer: Any) -> None:
        if future.done():
            return
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

    return heard
