"""One connection of the service's port: what it waits for, what is handed to aiohttp, how it ends.

The half of a connection that leans on aiohttp's `RequestHandler`;
docs/decisions/0003-fast-lane.md lists the private parts. What is answered
without aiohttp is fastlane.py's.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from accessguard.api.connections import Stage
from accessguard.api.head import CRLF, MOST_HEAD, VISIBLE, field, plain_start
from accessguard.api.keys import Caller
from accessguard.api.lane import Lane, start
from accessguard.api.middleware import NOT_HTTP, rendered
from accessguard.api.reply import PROBLEM, SAFE_HEADERS
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.patience import Beating
from accessguard.logs import ASKED, REQUEST_ID
from accessguard.metrics import HTTP

BEGINNINGS: Final = (b"POST /", b"GET /", b"PUT /", b"PATCH /", b"DELETE /")

# What may wait in memory for the end of a body, or behind an answer that is being made; then reading pauses.
MOST_WAITING: Final = 1_048_576
MOST_QUEUED: Final = 65_536
# A request in more pieces than this is aiohttp's, which reads pieces without looking at the first ones again.
MOST_PIECES: Final = 8
# Requests of one connection that are taken in one turn of the loop; what was sent behind them waits for the next.
MOST_A_TURN: Final = 16
# Turns of the loop that aiohttp's task may take to wait again behind an answer; it takes two.
MOST_TURNS: Final = 3

# The one protocol that aiohttp can turn to: behind a request for any other it drops what came in the same packet.
KEPT_BEHIND: Final = "websocket"

FULL: Final = GuardError(
    ErrorCode.UNAVAILABLE, "Too many connections are open; try again shortly.", headers={"Connection": "close"}
)
LATE: Final = GuardError(ErrorCode.TIMED_OUT, "The request did not arrive in time.", headers={"Connection": "close"})


class Passage(RequestHandler):
    """One connection, as far as its bytes wait, are aiohttp's, or come to an end."""

    __slots__ = (
        "_answering",
        "_aside",
        "_began",
        "_behind",
        "_ended",
        "_lane",
        "_owed",
        "_pieces",
        "_punished",
        "_queued",
        "_resting",
        "_stopping",
        "_surrendered",
        "_turns",
        "_unread",
        "_whole",
        "_wire",
        "caller",
    )

    def __init__(self, server: web.Server, lane: Lane, **settings: Any) -> None:
        super().__init__(server, loop=lane.loop, **settings)
        self._lane = lane
        self._behind = b""  # bytes that no lane has taken yet
        self._began = 0.0  # when the first bytes of a request came that is not all here (loop time; 0: there is none)
        self._unread = 0.0  # when the reader fell behind, or the end began to wait for it (loop time; 0: neither)
        self._wire: asyncio.Transport | None = None  # the transport, also while it ends
        self._pieces = 0  # how often the same request was waited for
        self._whole = 0  # requests handed to aiohttp one by one, whose answers it has not given yet
        self._owed = 0  # bytes of a body that still belong to a request aiohttp is reading
        self._answering: asyncio.Task[None] | Beating | None = None
        self._stopping: asyncio.Future[None] | None = None
        self._surrendered = False  # aiohttp alone knows where the next request begins
        self._ended = False  # the peer has sent all it will
        self._aside = False  # reading is paused by this lane
        self._queued = False  # it had its share of this turn, and goes on in the next
        self._resting = False  # others have their turn first
        self._punished: asyncio.Future[None] | None = None  # an answer is held back, that its caller asks less
        self.caller: Caller | None = None  # who asked the last check here, as far as it is known
        self._turns = MOST_TURNS  # for which aiohttp's task, which owes no answer, may still be waited for

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, if there is room."""
        super().connection_made(transport)
        self._wire = self.transport
        if not self._lane.connections.enter(self):
            if self.transport is not None:
                self.transport.write(refusal(FULL))
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room."""
        self._lane.connections.leave(self)
        super().connection_lost(exc)
        self._wire = None
        if self._punished is not None and not self._punished.done():
            self._punished.set_result(None)

    def pause_writing(self) -> None:
        """Note since when the reader is behind."""
        super().pause_writing()
        self._unread = self._loop.time()

    def resume_writing(self) -> None:
        """Go on with what waited for a slow reader."""
        super().resume_writing()
        self._unread = 0.0
        self._go_on()

    def eof_received(self) -> bool | None:  # type: ignore[override] # asyncio takes True for "keep open"
        """Answer all that came whole before the connection closes; what was cut is dropped."""
        self._ended = True
        if not self._unfinished():
            return super().eof_received()
        self._loop.call_soon(self._look_again, MOST_TURNS)
        return True

    @property
    def ended(self) -> bool:
        """Whether the peer has sent all it will."""
        return self._ended

    def stage(self) -> tuple[Stage, float]:
        """What this connection waits for, and since when."""
        if self._paused or (self._wire is not None and self._wire.is_closing()):
            self._unread = self._unread or self._loop.time()
            return Stage.UNREAD, self._unread
        if self._punished is not None:
            return Stage.HOLDING, self._loop.time()
        if self._answering is not None or self._queued or self._resting or not self._idle():
            return Stage.BUSY, 0.0
        if self._behind or (self._surrendered and self._began):
            return Stage.HOLDING, self._began
        return Stage.IDLE, self._next_keepalive_close_time

    def peer(self) -> str | None:
        """The socket's other end."""
        return None if self.transport is None else peer_of(self.transport)

    def late(self) -> None:
        """Answer that the request took too long to arrive, and close."""
        self._lane.flush()
        if self.transport is not None:
            self.transport.write(refusal(LATE))
        self.force_close()

    def cut(self) -> None:
        """Close at once."""
        wire = self._wire
        stuck = wire is not None and wire.get_write_buffer_size() > 0
        self._lane.flush()
        self.force_close()
        if wire is not None and stuck:
            wire.abort()

    def part(self) -> None:
        """Close a connection on which nothing is under way."""
        if self._answering is None and not self._behind and not self._owed and (self._surrendered or self._idle()):
            self._lane.flush()
            self.force_close()

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
            self._stopping = self._loop.create_future()
            await asyncio.wait({self._stopping}, timeout=timeout)
        self._lane.flush()
        await super().shutdown(timeout)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Let the last answer to a peer that will send no more, or is to go to another worker, close the connection.

        So does one to a request to turn to another protocol, where bytes behind it may be lost.
        """
        alone, self._whole = self._whole > 0, max(0, self._whole - 1)
        if ((self._ended or self._lane.draining) and not self._messages) or (not alone and turns(request)):
            resp.force_close()
        done = await super().finish_response(request, resp, start_time)
        self._turns = MOST_TURNS
        return done

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
        gone = isinstance(exc, ConnectionError)  # in the midst of a body: nobody hears the answer, and nothing is wrong
        failed = status >= HTTPStatus.INTERNAL_SERVER_ERROR and not gone
        error = exc if failed and isinstance(exc, Exception) else NOT_HTTP
        found, body, headers = rendered(error)
        response = web.Response(status=found, body=body, content_type=PROBLEM, headers={**SAFE_HEADERS, **headers})
        response.force_close()
        return response

    def rest(self) -> bool:
        """Leave what comes in the socket, until `wake`; False for one that does so already."""
        if self._resting or self.transport is None or self.transport.is_closing():
            return False
        self._resting = True
        if not self._aside and not self._reading_paused:
            self.transport.pause_reading()
        return True

    def wake(self) -> None:
        """Go on after a rest."""
        self._resting = False
        if self.transport is None or self.transport.is_closing():
            return
        if not self._aside and not self._reading_paused:
            self.transport.resume_reading()
        if self._behind or self._ended:
            self._go_on()

    async def hold_back(self, seconds: float) -> None:
        """Let the caller wait for its answer, while it is there; meanwhile its connection is among the first to be parted with."""
        if seconds <= 0 or self._wire is None:
            return
        self._punished = gone = self._loop.create_future()
        try:
            await asyncio.wait({gone}, timeout=seconds)
        finally:
            self._punished = None

    def _go_on(self) -> None:
        if self._answering is not None or self._paused or self._resting or self._queued:
            return
        if self._aside and self.transport is not None:
            self._aside = False
            self.transport.resume_reading()
        data, self._behind = self._behind, b""
        if data:
            self._take(data)
        if self._ended and not self._unfinished():
            self.force_close()

    def _settled(self) -> None:
        self._answering = None
        if self._behind or self._aside or self._ended:
            self._go_on()
        if self._stopping is not None and not self._stopping.done():
            self._stopping.set_result(None)

    def _unfinished(self) -> bool:
        """Whether an answer is owed for something that came whole."""
        self._lane.flush()
        if self._answering is not None or self._paused or self._queued or self._resting:
            return True
        return not (self._surrendered or self._owed or self._idle())

    def _incomplete(self, data: bytes) -> int:
        """Wait for the rest of a head that begins well; hand over any other."""
        self._piece()
        if self._pieces <= MOST_PIECES and len(data) < MOST_HEAD and begins_well(data):
            return 0
        return self._surrender(data)

    def _look_again(self, turns: int) -> None:
        """Go on behind an answer that aiohttp had given when the end came, though its task did not wait again yet: nothing else would tell."""
        self._go_on()
        if turns > 1:
            self._loop.call_soon(self._look_again, turns - 1)

    def _piece(self) -> None:
        """Count how often the same request was waited for."""
        self._pieces += 1
        if self._pieces == 1:
            self._began = self._loop.time()

    def _soon(self) -> bool:
        """Whether aiohttp's task has given its answer (or has just begun) and waits again in a moment; look then.

        A quick caller asks again before that task's next step. Handed to aiohttp, its
        check would make it busy for the one after it: once there, always there.
        """
        if self._turns <= 0 or self._messages or self._owed:
            return False
        self._turns -= 1
        self._loop.call_soon(self._go_on)
        return True

    def _pass(self, data: bytes, at: int, length: int) -> int:
        """Hand one request to aiohttp, the body as far as it is here."""
        self._pieces = self._turns = 0
        self._whole += 1
        given = data[at : at + length]
        self._owed = length - len(given)
        super().data_received(given)
        return len(given)

    def _pass_body(self, data: bytes, at: int) -> int:
        """Hand on what belongs to a body; where the next request begins."""
        given = data[at : at + self._owed]
        self._owed -= len(given)
        super().data_received(given)
        return at + len(given)

    def _surrender(self, data: bytes) -> int:
        """Leave the connection to aiohttp for good: where its next request ends cannot be told from outside."""
        self._surrendered = True
        if not self._pieces:
            self._began = 0.0
        super().data_received(data)
        self._note()
        return -1

    def _queue(self, data: bytes) -> None:
        """Go on in the next turn: this one is others' now."""
        self._wait(data, most=MOST_QUEUED)
        if not self._queued and not self._resting:
            self._queued = True
            self._loop.call_soon(self._next_turn)

    def _next_turn(self) -> None:
        self._queued = False
        self._go_on()

    def _wait(self, data: bytes, *, most: int = MOST_WAITING) -> None:
        """Keep bytes for later; more than is sensible are left in the socket."""
        self._behind = data
        if len(data) > most and self.transport is not None:
            self._aside = True
            self.transport.pause_reading()

    def _note(self) -> None:
        """Note since when a request is on its way that aiohttp has not all of yet."""
        if not self._idle():
            self._began = 0.0
        elif not self._began:
            self._began = self._loop.time()

    def _idle(self) -> bool:
        """Whether aiohttp has answered everything it was handed and waits for more."""
        waiter = self._waiter
        return waiter is not None and not waiter.done() and not self._messages

    def forget(self) -> None:
        """Know no caller any more."""
        self.caller = None

    def _take(self, data: bytes) -> None:
        """Work through bytes that begin where the last request left off: here, all is aiohttp's."""
        self._surrender(data)


def peer_of(transport: asyncio.Transport) -> str | None:
    """The socket's other end, as aiohttp names it."""
    name = transport.get_extra_info("peername")
    if name is None:
        return None
    return str(name[0]) if isinstance(name, (list, tuple)) else str(name)


def turns(request: web.BaseRequest) -> bool:
    """Whether a request asks for another protocol than the one behind which aiohttp keeps what came with it."""
    return request.headers.get("Upgrade", KEPT_BEHIND).lower() != KEPT_BEHIND


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
    if status == HTTPStatus.INTERNAL_SERVER_ERROR and (ids := ASKED.get()) is not None:
        headers = {**headers, REQUEST_ID: ids.request_id}
    HTTP.labels(f"{status // 100}xx").inc()
    extra = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return b"".join((start(status, PROBLEM, extra), b"%d\r\n\r\n" % len(body), body))
