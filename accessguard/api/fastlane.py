"""The fast lane: checks answered inside `data_received`, in front of aiohttp, on the same port.

A connection's protocol is aiohttp's own `RequestHandler` with one method in
front. At the border between two requests, and only while aiohttp owes no
answer, a plain `POST /v1/check` or `/v1/checks` that is complete in memory, by a
caller whose token is genuine, is answered here. Whatever is unusual in any way
(another path, an unknown token, a body that does not decode, chunks, Expect,
an upgrade) goes on to aiohttp with its bytes untouched, which then answers as
if this lane were not there. So there is one strictness: what is taken here is
a part of what aiohttp takes, and every refusal is aiohttp's and the handlers'.

Of aiohttp's private parts it uses four, in `_idle` and where it notes the time of the last
answer; the version is pinned, and tests/api/test_fastlane.py plays the
same bytes through both lanes. See docs/decisions/0003-fast-lane.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from accessguard.api import checks
from accessguard.api.context import Context
from accessguard.api.head import VISIBLE, Head, Heads
from accessguard.api.middleware import SAFE_HEADERS, rendered
from accessguard.api.reply import JSON, PROBLEM
from accessguard.api.wire import ChecksRequest
from accessguard.guard.model import Check

END: Final = b"\r\n\r\n"
NUL: Final = b"\\u0000"
BEGINNINGS: Final = (b"POST /", b"GET /", b"PUT /", b"PATCH /", b"DELETE /")

# A head longer than this goes to aiohttp, whose own bound for one line is 8190.
MOST_HEAD: Final = 6_000
# What may wait in memory for the end of a body, or behind an answer that is being made; then reading pauses.
MOST_WAITING: Final = 1_048_576
# A request in more pieces than this is aiohttp's, which reads pieces without looking at the first ones again.
MOST_PIECES: Final = 8

LENGTHS: Final = tuple(b"%d\r\n\r\n" % size for size in range(4096))

ONE: Final = msgspec.json.Decoder(Check)
MANY: Final = msgspec.json.Decoder(ChecksRequest)


class Lane:
    """What all connections of a worker share: known heads, answers that leave together, the date."""

    def __init__(self, context: Context, *, body_limit_bytes: int) -> None:
        self.context = context
        self.heads = Heads(context)
        self.body_limit_bytes = body_limit_bytes
        self.loop = asyncio.get_running_loop()
        self._ready: list[tuple[asyncio.Transport, bytes]] = []
        self._second = 0
        self._start = b""

    def allow(self, transport: asyncio.Transport, body: bytes, now_ms: int) -> None:
        """Answer 200 with `body`, together with the other answers of this loop turn: a sleeping caller is woken once."""
        if now_ms // 1000 != self._second:
            self._second = now_ms // 1000
            self._start = start(200, JSON)
        size = len(body)
        length = LENGTHS[size] if size < len(LENGTHS) else b"%d\r\n\r\n" % size
        self.send(transport, b"".join((self._start, length, body)))

    def send(self, transport: asyncio.Transport, answer: bytes) -> None:
        """Write an answer at the end of this loop turn."""
        if not self._ready:
            self.loop.call_soon(self.flush)
        self._ready.append((transport, answer))

    def flush(self) -> None:
        """Write every answer that is ready."""
        ready, self._ready = self._ready, []
        for transport, answer in ready:
            transport.write(answer)


def start(status: int, kind: str, extra: str = "") -> bytes:
    """An answer up to the number of its Content-Length; HTTP's date has whole seconds (RFC 9110, 5.6.7)."""
    safe = "".join(f"{name}: {value}\r\n" for name, value in SAFE_HEADERS.items())
    line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n"
    return f"{line}{safe}{extra}Date: {formatdate(usegmt=True)}\r\nContent-Length: ".encode()


class FastLane(RequestHandler):
    """One connection."""

    __slots__ = ("_answering", "_aside", "_behind", "_ended", "_lane", "_owed", "_pieces", "_surrendered")

    def __init__(self, server: web.Server, lane: Lane, **settings: Any) -> None:
        super().__init__(server, loop=lane.loop, **settings)
        self._lane = lane
        self._behind = b""  # bytes that no lane has taken yet
        self._pieces = 0  # how often the same request was waited for
        self._owed = 0  # bytes of a body that still belong to a request aiohttp is reading
        self._answering: asyncio.Task[None] | None = None
        self._surrendered = False  # aiohttp alone knows where the next request begins
        self._ended = False  # the peer has sent all it will
        self._aside = False  # reading is paused by this lane

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered here; hand on the rest, in order."""
        if self._surrendered:
            super().data_received(data)
            return
        if self._behind:
            data = self._behind + data
            self._behind = b""
        self._take(data)

    def eof_received(self) -> bool | None:  # type: ignore[override] # asyncio takes True for "keep open"
        """Finish the answer that is being made before the connection closes."""
        self._lane.flush()
        if self._answering is not None:
            self._ended = True
            return True
        if self._behind:
            self._surrender(self._behind)
        return super().eof_received()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give up what is under way: nobody is there to read it."""
        if self._answering is not None:
            self._answering.cancel()
        super().connection_lost(exc)

    def close(self) -> None:
        """Close after the answers that are ready or being made."""
        self._lane.flush()
        if self._answering is None:
            super().close()
        else:
            self._ended = True

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Let the answer under way be finished, at most `timeout` seconds, then close."""
        self._ended = True
        if self._answering is not None:
            await asyncio.wait({self._answering}, timeout=timeout)
        self._lane.flush()
        await super().shutdown(timeout)

    def resume_writing(self) -> None:
        """Go on with what waited for a slow reader."""
        super().resume_writing()
        self._go_on()

    def _take(self, data: bytes) -> None:
        """Work through `data`, which begins where the last request left off."""
        while data:
            if self._owed:
                data = self._pass_body(data)
                continue
            if self._answering is not None or self._paused:
                self._wait(data)
                return
            cut = self._one(data)
            if cut == 0:
                self._wait(data)
                return
            if cut < 0:
                return
            data = data[cut:]

    def _one(self, data: bytes) -> int:
        """Take one request: its length, 0 when it is not all here yet, -1 when aiohttp has taken over."""
        end = data.find(END)
        head = self._lane.heads.read(data[: end + 4]) if 0 <= end < MOST_HEAD else None
        if head is None:
            return self._incomplete(data) if end < 0 else self._surrender(data)
        length = end + 4 + head.length
        if not head.fast or not self._idle() or head.length > self._lane.body_limit_bytes:
            return self._pass(data, length)
        if len(data) < length:
            self._pieces += 1
            return 0 if self._pieces <= MOST_PIECES else self._pass(data, length)
        self._pieces = 0
        return length if self._answered(head, data[end + 4 : length]) else self._pass(data, length)

    def _answered(self, head: Head, body: bytes) -> bool:
        """Answer one request here if that can be done."""
        context = self._lane.context
        now_ms = context.now_ms()
        tenant = head.tenant
        if tenant is None or now_ms >= head.until_ms or NUL in body:
            return False
        try:
            asked = (MANY if head.many else ONE).decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if context.book.held(tenant) is None:
            return False
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        found = checks.held(context, tenant, asked, now_ms)
        if found is None:
            self._answering = self._loop.create_task(self._later(tenant, asked, now_ms))
        elif self.transport is not None:
            self._lane.allow(self.transport, found, now_ms)
        return True

    async def _later(self, tenant: str, asked: Check | ChecksRequest, now_ms: int) -> None:
        """Answer from the stores, then go on with what came in meanwhile."""
        lane = self._lane
        try:
            body = await checks.made(lane.context, tenant, asked, now_ms)
        except Exception as error:  # noqa: BLE001 - the boundary of this lane, as middleware.py is of the other
            answer = refusal(error)
            if self.transport is not None:
                lane.send(self.transport, answer)
        else:
            if self.transport is not None:
                lane.allow(self.transport, body, now_ms)
        self._answering = None
        self._go_on()

    def _go_on(self) -> None:
        if self._answering is not None or self._paused:
            return
        if self._aside and self.transport is not None:
            self._aside = False
            self.transport.resume_reading()
        data, self._behind = self._behind, b""
        if data:
            self._take(data)
        if self._ended and self._answering is None:
            self._lane.flush()
            super().close()

    def _incomplete(self, data: bytes) -> int:
        """Wait for the rest of a head that begins well; hand over any other."""
        self._pieces += 1
        if self._pieces <= MOST_PIECES and len(data) < MOST_HEAD and self._idle() and begins_well(data):
            return 0
        return self._surrender(data)

    def _pass(self, data: bytes, length: int) -> int:
        """Hand one request to aiohttp, the body as far as it is here."""
        self._pieces = 0
        given = data[:length]
        self._owed = length - len(given)
        super().data_received(given)
        return len(given)

    def _pass_body(self, data: bytes) -> bytes:
        given = data[: self._owed]
        self._owed -= len(given)
        super().data_received(given)
        return data[len(given) :]

    def _surrender(self, data: bytes) -> int:
        """Leave the connection to aiohttp for good: where its next request ends cannot be told from outside."""
        self._surrendered = True
        super().data_received(data)
        return -1

    def _wait(self, data: bytes) -> None:
        """Keep bytes for later; more than is sensible are left in the socket."""
        self._behind = data
        if len(data) > MOST_WAITING and not self._aside and self.transport is not None:
            self._aside = True
            self.transport.pause_reading()

    def _idle(self) -> bool:
        """Whether aiohttp has answered everything it was handed and waits for more."""
        waiter = self._waiter
        return waiter is not None and not waiter.done() and not self._messages


def begins_well(data: bytes) -> bool:
    """Whether these may be the first bytes of a plain head."""
    begun = data.startswith(BEGINNINGS) or any(each.startswith(data) for each in BEGINNINGS)
    return begun and not data.translate(None, VISIBLE) and data.count(b"\n") == data.count(b"\r\n")


def refusal(error: Exception) -> bytes:
    """A problem document as a whole HTTP answer; the same as the other lane's."""
    status, body, headers = rendered(error)
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"".join((start(status, PROBLEM, extra), b"%d\r\n\r\n" % len(body), body))


def protocol(server: web.Server, lane: Lane, **settings: Any) -> Callable[[], FastLane]:
    """What makes a protocol for each new connection."""
    return lambda: FastLane(server, lane, **settings)
