"""The fast lane: checks answered inside `data_received`, in front of aiohttp, on the same port.

A connection's protocol is aiohttp's own `RequestHandler`, whose bytes pass here
first. At the border between two requests, and only while aiohttp owes no
answer, a plain `POST /v1/check` or `/v1/checks` that is complete in memory, by a
caller whose token is genuine, is answered here. Whatever is unusual in any way
(another path, an unknown token, a body that does not decode, chunks, Expect,
an upgrade) goes on to aiohttp with its bytes untouched, which then answers as
if this lane were not there. So there is one strictness: what is taken here is
a part of what aiohttp takes, and every refusal is aiohttp's and the handlers'.

It leans on a few private parts of aiohttp, which docs/decisions/0003-fast-lane.md
lists; the version is pinned, and tests/api/test_fastlane.py plays the same bytes
through both lanes.
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
from accessguard.api.head import CRLF, MOST_HEAD, VISIBLE, Head, Heads, Shape, field, plain_start, shape
from accessguard.api.middleware import rendered
from accessguard.api.reply import JSON, PROBLEM, SAFE_HEADERS
from accessguard.api.wire import ChecksRequest
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.memory import Held, Memory
from accessguard.guard.model import Check
from accessguard.metrics import HTTP

END: Final = b"\r\n\r\n"
NUL: Final = b"\\u0000"
BEGINNINGS: Final = (b"POST /", b"GET /", b"PUT /", b"PATCH /", b"DELETE /")

# What may wait in memory for the end of a body, or behind an answer that is being made; then reading pauses.
MOST_WAITING: Final = 1_048_576
# A request in more pieces than this is aiohttp's, which reads pieces without looking at the first ones again.
MOST_PIECES: Final = 8

# Bodies known again: about 40 MB when full. A body longer than this is parsed each time.
MOST_BODIES: Final = 65_536
LONGEST_BODY: Final = 1_024
NOT_HTTP: Final = GuardError(ErrorCode.INVALID, "The request is not valid HTTP.")
UNKNOWN: Final[tuple[Held | None, bool]] = (None, False)

LENGTHS: Final = tuple(b"%d\r\n\r\n" % size for size in range(4096))

ONE: Final = msgspec.json.Decoder(Check)
MANY: Final = msgspec.json.Decoder(ChecksRequest)


class Lane:
    """What all connections of a worker share: known heads and bodies, answers that leave together, the time."""

    def __init__(self, context: Context, *, memory: Memory, body_limit_bytes: int) -> None:
        self.context = context
        self.memory = memory
        self.heads = Heads(context)
        self.body_limit_bytes = body_limit_bytes
        self.loop = asyncio.get_running_loop()
        self.bodies: dict[tuple[str, bytes], tuple[Held, bool]] = {}
        self.ready: list[tuple[asyncio.Transport, bytes]] = []
        self.now_ms = 0
        self.start = b""
        self._second = 0

    def turn(self) -> None:
        """Begin a turn of the loop: read the clock once for all that arrives in it, and answer it all at its end."""
        self.now_ms = self.context.now_ms()
        if self.now_ms // 1000 != self._second:
            self._second = self.now_ms // 1000
            self.start = start(200, JSON)
        self.loop.call_soon(self.flush)

    def allow(self, transport: asyncio.Transport, body: bytes) -> None:
        """Answer 200 with `body`, together with the other answers of this turn: a sleeping caller is woken once."""
        if not self.ready:
            self.turn()
        size = len(body)
        length = LENGTHS[size] if size < len(LENGTHS) else b"%d\r\n\r\n" % size
        self.ready.append((transport, b"".join((self.start, length, body))))

    def flush(self) -> None:
        """Write every answer that is ready."""
        ready, self.ready = self.ready, []
        self.context.checks.tally.answers += len(ready)
        for transport, answer in ready:
            transport.write(answer)

    def remember(self, tenant: str, body: bytes, asked: Check, held: Held) -> None:
        """Know this body again when it is plainly allowed: the same bytes ask the same, as long as the verdict lives."""
        if len(self.bodies) >= MOST_BODIES:
            self.bodies.clear()
        plain = held.verdict.code is None and not held.verdict.degraded
        if plain and len(body) <= LONGEST_BODY and held.body is not None and len(held.body) < len(LENGTHS):
            self.bodies[tenant, body] = (held, asked.activity is not None)


def start(status: int, kind: str, extra: str = "") -> bytes:
    """An answer up to the number of its Content-Length; HTTP's date has whole seconds (RFC 9110, 5.6.7)."""
    safe = "".join(f"{name}: {value}\r\n" for name, value in SAFE_HEADERS.items())
    line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n"
    return f"{line}{safe}{extra}Date: {formatdate(usegmt=True)}\r\nContent-Length: ".encode()


class FastLane(RequestHandler):
    """One connection."""

    __slots__ = (
        "_answering",
        "_aside",
        "_behind",
        "_ended",
        "_lane",
        "_last",
        "_owed",
        "_pieces",
        "_shape",
        "_surrendered",
    )

    def __init__(self, server: web.Server, lane: Lane, **settings: Any) -> None:
        super().__init__(server, loop=lane.loop, **settings)
        self._lane = lane
        self._shape: Shape | None = None  # of this connection's last heads
        self._last = b""
        self._behind = b""  # bytes that no lane has taken yet
        self._pieces = 0  # how often the same request was waited for
        self._owed = 0  # bytes of a body that still belong to a request aiohttp is reading
        self._answering: asyncio.Task[None] | None = None
        self._surrendered = False  # aiohttp alone knows where the next request begins
        self._ended = False  # the peer has sent all it will
        self._aside = False  # reading is paused by this lane

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered here; hand on the rest, in order."""
        if self._surrendered or not data:  # aiohttp sends itself nothing, to look again at what it has buffered
            super().data_received(data)
        elif self._behind or not self._swift(data):
            data, self._behind = self._behind + data, b""
            self._take(data)

    def _swift(self, data: bytes) -> bool:
        """Answer one whole request that was answered before: its body known, its verdict alive.

        The same conditions as on the long way, in the order of what they cost.
        """
        end = data.find(END) + 4
        lane, text = self._lane, data[:end]
        head = lane.heads.known(text) or (self._shape and self._shape.read(text)) or self._read(text)
        if (
            head is None
            or not head.fast
            or head.many
            or len(data) != end + head.length
            or self._owed
            or not self._free()
        ):
            return False
        held, active = lane.bodies.get((head.tenant, data[end:]), UNKNOWN)
        if held is None or not held.alive or not lane.memory.trusted:
            return False
        if not lane.ready:
            lane.turn()
        now_ms, body = lane.now_ms, held.body
        if now_ms >= held.until or now_ms >= head.until_ms or (active and now_ms >= held.beat_at):
            return False
        transport = self.transport
        if body is None or transport is None or lane.context.book.held(head.tenant) is not held.policy:
            return False
        lane.context.checks.tally.plain += 1
        lane.ready.append((transport, b"".join((lane.start, LENGTHS[len(body)], body))))
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        return True

    def _read(self, text: bytes) -> Head | None:
        """Read a head that is like none before it, and note what it has in common with the last one."""
        head = self._lane.heads.read(text) if 4 <= len(text) < MOST_HEAD else None
        if head is not None and head.fast:
            self._shape = shape(self._last, text, head)
            self._last = text
        return head

    def eof_received(self) -> bool | None:  # type: ignore[override] # asyncio takes True for "keep open"
        """Answer all that came whole before the connection closes; what was cut is dropped."""
        self._ended = True
        return self._unfinished() or super().eof_received()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Let the last answer to a peer that will send no more close the connection."""
        if self._ended and not self._messages:
            resp.force_close()
        return await super().finish_response(request, resp, start_time)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what is no HTTP at all as any other refusal, and log no address."""
        del message
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun, and cannot be taken back")
        error = exc if isinstance(exc, Exception) and status >= HTTPStatus.INTERNAL_SERVER_ERROR else NOT_HTTP
        found, body, headers = rendered(error)
        response = web.Response(status=found, body=body, content_type=PROBLEM, headers={**SAFE_HEADERS, **headers})
        response.force_close()
        return response

    def close(self) -> None:
        """Close after the answers that are ready or being made."""
        self._lane.flush()
        if self._answering is None:
            super().close()
        else:
            self._ended = True

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's signature
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
            if self._answering is not None or self._paused or self.transport is None:
                self._wait(data)
                return
            cut = self._one(data)
            if cut <= 0:
                self._behind = data if cut == 0 else b""
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
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            return 0 if self._pieces <= MOST_PIECES else self._pass(data, length)
        self._pieces = 0
        return length if self._answered(head, data[end + 4 : length]) else self._pass(data, length)

    def _answered(self, head: Head, body: bytes) -> bool:
        """Answer one request here if that can be done."""
        context = self._lane.context
        now_ms = context.now_ms()
        tenant = head.tenant
        if now_ms >= head.until_ms or NUL in body:
            return False
        try:
            asked = (MANY if head.many else ONE).decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return False
        if context.book.held(tenant) is None:
            return False
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if isinstance(asked, Check):
            held = context.checks.peek(tenant, asked, now_ms)
            found = None if held is None else checks.written(context, held, now_ms)
            if held is not None:
                self._lane.remember(tenant, body, asked, held)
        else:
            found = checks.held(context, tenant, asked, now_ms)
        if found is None:
            self._answering = self._loop.create_task(self._later(tenant, asked, now_ms))
        elif self.transport is not None:
            self._lane.allow(self.transport, found)
        return True

    async def _later(self, tenant: str, asked: Check | ChecksRequest, now_ms: int) -> None:
        """Answer from the stores, then go on with what came in meanwhile."""
        lane = self._lane
        try:
            body = await checks.made(lane.context, tenant, asked, now_ms)
        except Exception as error:  # noqa: BLE001 - the boundary of this lane, as middleware.py is of the other
            answer = refusal(error)
            if self.transport is not None:
                self.transport.write(answer)
        else:
            if self.transport is not None:
                lane.allow(self.transport, body)
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
        if self._ended and not self._unfinished():
            self.force_close()

    def _unfinished(self) -> bool:
        """Whether an answer is owed for something that came whole."""
        self._lane.flush()
        if self._answering is not None or self._paused:
            return True
        return not (self._surrendered or self._owed or self._idle())

    def _incomplete(self, data: bytes) -> int:
        """Wait for the rest of a head that begins well; hand over any other."""
        self._pieces += 1
        if self._pieces <= MOST_PIECES and len(data) < MOST_HEAD and begins_well(data):
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
        if len(data) > MOST_WAITING and self.transport is not None:
            self._aside = True
            self.transport.pause_reading()

    def _free(self) -> bool:
        """Whether this lane may answer now: nothing is being answered, by aiohttp or here, and the peer reads."""
        return self._answering is None and not self._paused and self.transport is not None and self._idle()

    def _idle(self) -> bool:
        """Whether aiohttp has answered everything it was handed and waits for more."""
        waiter = self._waiter
        return waiter is not None and not waiter.done() and not self._messages


def begins_well(data: bytes) -> bool:
    """Whether these may be the first bytes of a plain head."""
    if not data.startswith(BEGINNINGS) and not any(each.startswith(data) for each in BEGINNINGS):
        return False
    *lines, last = data.removesuffix(b"\r").split(CRLF)
    whole = not lines or (plain_start(lines[0]) and all(field(line) for line in lines[1:]))
    return whole and not last.translate(None, VISIBLE)


def refusal(error: Exception) -> bytes:
    """A problem document as a whole HTTP answer; the same as the other lane's."""
    status, body, headers = rendered(error)
    HTTP.labels(f"{status // 100}xx").inc()
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"".join((start(status, PROBLEM, extra), b"%d\r\n\r\n" % len(body), body))


def protocol(server: web.Server, lane: Lane, **settings: Any) -> Callable[[], FastLane]:
    """What makes a protocol for each new connection."""
    return lambda: FastLane(server, lane, **settings)
