"""The fast lane: checks answered inside `data_received`, in front of aiohttp, on the same port; and logins, by a task.

A connection's protocol is aiohttp's own `RequestHandler`, whose bytes pass here
first. At the border between two requests, and only while aiohttp owes no
answer, a plain `POST /v1/check`, `/v1/checks` or `/v1/logins` that is complete in memory, by a
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
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, Final

import msgspec
from aiohttp import web
from aiohttp.web_protocol import RequestHandler

from accessguard.api import checks, logins
from accessguard.api.connections import Stage
from accessguard.api.gates import Pass
from accessguard.api.head import (
    CRLF,
    MOST_HEAD,
    VISIBLE,
    Call,
    Head,
    Shape,
    accept_language,
    field,
    plain_start,
    shape,
    traceparent,
)
from accessguard.api.keys import Caller
from accessguard.api.lane import NUL, Lane, start
from accessguard.api.middleware import rendered
from accessguard.api.reply import PROBLEM, SAFE_HEADERS
from accessguard.api.wire import ChecksRequest
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.memory import BEATEN, DEAD, Held, Known
from accessguard.guard.model import Check, Login
from accessguard.guard.patience import Beating
from accessguard.logs import ASKED, REQUEST_ID, Ids
from accessguard.metrics import HTTP
from accessguard.tracing import TRACING

END: Final = b"\r\n\r\n"
GET: Final = ord("G")
GATES: Final = b"GET /auth/"
UNKNOWN: Final = "?"
"""The peer of a connection on which no proxy has asked yet."""
BEGINNINGS: Final = (b"POST /", b"GET /", b"PUT /", b"PATCH /", b"DELETE /")

# What may wait in memory for the end of a body, or behind an answer that is being made; then reading pauses.
MOST_WAITING: Final = 1_048_576
# A request in more pieces than this is aiohttp's, which reads pieces without looking at the first ones again.
MOST_PIECES: Final = 8
# Turns of the loop that aiohttp's task may take to wait again behind an answer; it takes two.
MOST_TURNS: Final = 3

FULL: Final = GuardError(
    ErrorCode.UNAVAILABLE, "Too many connections are open; try again shortly.", headers={"Connection": "close"}
)
LATE: Final = GuardError(ErrorCode.TIMED_OUT, "The request did not arrive in time.", headers={"Connection": "close"})
NOT_HTTP: Final = GuardError(ErrorCode.INVALID, "The request is not valid HTTP.")

ENTRY: Final[Mapping[type, str]] = {Check: "check", ChecksRequest: "checks", Login: "login"}
DECODE: Final[Mapping[Call, Callable[[bytes], Check | ChecksRequest | Login]]] = {
    Call.CHECK: msgspec.json.Decoder(Check).decode,
    Call.CHECKS: msgspec.json.Decoder(ChecksRequest).decode,
    Call.LOGIN: msgspec.json.Decoder(Login).decode,
}


class FastLane(RequestHandler):
    """One connection."""

    __slots__ = (
        "_answering",
        "_aside",
        "_began",
        "_behind",
        "_constant",
        "_ended",
        "_lane",
        "_last",
        "_owed",
        "_peer",
        "_pieces",
        "_shape",
        "_stopping",
        "_surrendered",
        "_turns",
        "_unread",
    )

    def __init__(self, server: web.Server, lane: Lane, **settings: Any) -> None:
        super().__init__(server, loop=lane.loop, **settings)
        self._lane = lane
        self._shape: Shape | None = None  # of this connection's last heads
        self._last = b""
        self._constant = False  # the last head was byte for byte one that had come before
        self._peer: str | None = UNKNOWN
        self._behind = b""  # bytes that no lane has taken yet
        self._began = 0.0  # when the first bytes of a request came that is not all here (loop time; 0: there is none)
        self._unread = 0.0  # when the reader fell behind
        self._pieces = 0  # how often the same request was waited for
        self._owed = 0  # bytes of a body that still belong to a request aiohttp is reading
        self._answering: asyncio.Task[None] | Beating | None = None
        self._stopping: asyncio.Future[None] | None = None
        self._surrendered = False  # aiohttp alone knows where the next request begins
        self._ended = False  # the peer has sent all it will
        self._aside = False  # reading is paused by this lane
        self._turns = MOST_TURNS  # for which aiohttp's task, which owes no answer, may still be waited for

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered here; hand on the rest, in order."""
        if self._surrendered or not data:  # aiohttp sends itself nothing, to look again at what it has buffered
            super().data_received(data)
            if data:
                self._note()
        elif self._behind or self._lane.bounded or not self._swift(data):
            data, self._behind = self._behind + data, b""
            self._take(data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Let it in, if there is room."""
        super().connection_made(transport)
        if not self._lane.connections.enter(self):
            if self.transport is not None:
                self.transport.write(refusal(FULL))
            self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Make room."""
        self._lane.connections.leave(self)
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Note since when the reader is behind."""
        super().pause_writing()
        self._unread = self._loop.time()

    def stage(self) -> tuple[Stage, float]:
        """What this connection waits for, and since when."""
        if self._paused:
            return Stage.UNREAD, self._unread
        if self._answering is not None or not self._idle():
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
        transport = self.transport
        self._lane.flush()
        self.force_close()
        if transport is not None and self._paused:
            transport.abort()

    def _note(self) -> None:
        """Note since when a request is on its way that aiohttp has not all of yet."""
        if not self._idle():
            self._began = 0.0
        elif not self._began:
            self._began = self._loop.time()

    def _swift(self, data: bytes) -> bool:  # noqa: C901 - as below: one piece
        """Answer one whole request whose verdict is held, or send its beat.

        The same conditions as on the long way, in the order of what they cost.
        Written out in one piece: this is what a held check costs.
        """
        lane, transport, waiter = self._lane, self.transport, self._waiter
        if (
            self._answering is not None
            or self._owed
            or self._paused
            or transport is None
            or waiter is None
            or waiter.done()
            or self._messages
        ):
            return False
        if not lane.begun:
            lane.turn()
        now_ms = lane.now_ms
        if data[0] == GET:
            return self._passes(data, now_ms)
        head = None
        known = lane.request(data) if self._constant else None
        if known is None:
            head, end = self._head(data)
            if head is None or now_ms >= head.until_ms:
                return False
            body = data[end:]
            known = lane.body(body)
            if known is None or known.tenant != head.tenant:
                return self._first(head, data, body, now_ms)
            if self._constant:
                lane.learn(data, head, known)
        held = known.held
        if (
            now_ms >= held.until
            or now_ms >= known.until
            or (known.active and not held.flags & BEATEN)
            or held.flags & DEAD
            or lane.policy(known.tenant) is not held.policy
            or not lane.memory.trusted
        ):
            return self._anew(head, data, now_ms, known)
        lane.checks.tally.plain += 1
        lane.ready.append((transport, lane.start + known.tail))
        self._next_keepalive_close_time = lane.close_at
        return True

    def _passes(self, data: bytes, now_ms: int) -> bool:
        """Answer a proxy about a request that may pass, when memory says so; every other answer is the ordinary route's."""
        lane, transport = self._lane, self.transport
        if transport is None or lane.draining or not data.startswith(GATES):
            return False
        known = lane.gates.known((self._peer, data)) if self._peer is not UNKNOWN else None
        if known is None or not self._goes_on(known, now_ms):
            if self._peer is UNKNOWN:
                self._peer = peer_of(transport)
            known = lane.gates.passing(data, self._peer, now_ms)
        if known is None:
            return False
        tally = lane.checks.tally
        tally.plain += 1
        tally.passes += 1
        lane.ready.append((transport, known.answer + lane.dated))
        self._next_keepalive_close_time = lane.close_at
        return True

    def _goes_on(self, known: Pass, now_ms: int) -> bool:
        """Whether the verdict behind a pass stands as it was, and so do the tokens."""
        lane, held = self._lane, known.held
        return (
            now_ms < held.until
            and now_ms < known.until
            and (not known.active or held.flags & BEATEN != 0)
            and not held.flags & DEAD
            and lane.policy(known.tenant) is held.policy
            and known.keys == lane.context.session_tokens.version
            and lane.memory.trusted
        )

    def _anew(self, head: Head | None, data: bytes, now_ms: int, known: Known) -> bool:
        """Answer a check whose bytes are known, but whose verdict no longer stands as it was."""
        found, end = self._head(data) if head is None else (head, data.find(END) + 4)
        if found is None or now_ms >= found.until_ms:
            return False
        body = data[end:]
        return self._beat_again(known, body, now_ms, data) or self._first(found, data, body, now_ms)

    def _beat_again(self, known: Known, body: bytes, now_ms: int, request: bytes) -> bool:
        """Send the beat of a check whose bytes are known; False where it is not that alone what its verdict wants."""
        held, lane = known.held, self._lane
        gone = held.flags & DEAD or lane.policy(known.tenant) is not held.policy or not lane.memory.trusted
        if gone or not known.active or not lane.checks.goes_on(held, now_ms):
            return False
        asked = decoded(body, Call.CHECK)
        if not isinstance(asked, Check):
            return False
        self._next_keepalive_close_time = lane.close_at
        return self._beat(known.tenant, asked, held, now_ms, request)

    def _head(self, data: bytes) -> tuple[Head | None, int]:
        """The head of one whole check, and where its body begins; None for anything else."""
        end = data.find(END) + 4
        text = data[:end]
        alike = None if self._constant else self._shape
        length = -1 if alike is None else alike.read(text)
        head: Head | None
        if alike is not None and length >= 0:
            head = alike.head
        else:
            head = self._lane.heads.known(text)
            self._constant = head is not None
            if head is None:
                head = self._read(text)
            length = -1 if head is None else head.length
        plain = head is not None and head.fast and head.call is Call.CHECK and length <= self._lane.body_limit_bytes
        return (head if plain and len(data) == end + length else None), end

    def _first(self, head: Head, data: bytes, body: bytes, now_ms: int) -> bool:
        """Answer a check whose bytes are not known; the second time on, they are."""
        asked = decoded(body, Call.CHECK)
        if not isinstance(asked, Check) or self._lane.policy(head.tenant) is None:
            return False
        held = self._checked(head.tenant, asked, now_ms, data)
        if held is not None:
            self._lane.remember(head, data if self._constant else body, asked, held, whole=self._constant)
        return True

    def _checked(self, tenant: str, asked: Check, now_ms: int, request: bytes) -> Held | None:
        """Answer from memory, or after the session's beat; then the verdict. Else a task answers."""
        held = self._lane.checks.about(tenant, asked)
        self._next_keepalive_close_time = self._lane.close_at
        if held is not None and self._given(tenant, asked, held, now_ms, request):
            return held
        self._answering = self._loop.create_task(self._later(tenant, asked, now_ms, request))
        return None

    def _given(self, tenant: str, asked: Check, held: Held, now_ms: int, request: bytes) -> bool:
        """Give the answer, or send the beat, of a session whose verdict on this very question is held."""
        lane, transport = self._lane, self.transport
        if transport is None:
            return False
        if lane.checks.stands(held, asked, now_ms):
            wish = partial(accept_language, request)
            lane.allow(transport, checks.written(lane.context, held, asked.session_id, now_ms, wish))
            return True
        return lane.checks.goes_on(held, now_ms) and self._beat(tenant, asked, held, now_ms, request)

    def _beat(self, tenant: str, asked: Check, held: Held, now_ms: int, request: bytes) -> bool:
        """Send the beat of a steady session, whose answer is given when it was heard; False without Valkey."""
        self._answering = beating = LaneBeat(tenant, asked, held, now_ms)
        beating.connection, beating.request = self, request
        try:
            self._lane.checks.beat(beating)
        except GuardError:
            self._answering = None
            return False
        return True

    def heard(self, beating: LaneBeat, *, stands: bool) -> None:
        """Give the answer of a beat that was heard; in vain, a task makes it."""
        asked, transport = beating.asked, self.transport
        if not stands:
            later = self._later(beating.tenant, asked, beating.now_ms, beating.request, since=beating.since)
            self._answering = self._loop.create_task(later)
            return
        if transport is not None:
            self._lane.checks.tally.beat(self._loop.time() - beating.since)
            self._lane.allow(transport, checks.plainly(beating.held, asked.session_id))
        self._settled()

    def _settled(self) -> None:
        self._answering = None
        if self._behind or self._aside or self._ended:
            self._go_on()
        if self._stopping is not None and not self._stopping.done():
            self._stopping.set_result(None)

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
        """Let the last answer to a peer that will send no more, or is to go to another worker, close the connection."""
        if (self._ended or self._lane.draining) and not self._messages:
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

    def forget(self) -> None:
        """Read the next head anew."""
        self._shape, self._constant = None, False

    def part(self) -> None:
        """Close a connection on which nothing is under way."""
        if self._answering is None and not self._behind and not self._owed and (self._surrendered or self._idle()):
            self._lane.flush()
            self.force_close()

    async def shutdown(self, timeout: float | None = 15.0) -> None:  # noqa: ASYNC109 - aiohttp's signature
        """Let the answer under way be finished, at most `timeout` seconds, then close."""
        self._ended = True
        if self._answering is not None:
            self._stopping = self._loop.create_future()
            await asyncio.wait({self._stopping}, timeout=timeout)
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
        if not head.fast or head.length > self._lane.body_limit_bytes:
            return self._pass(data, length)
        if not self._idle():
            return 0 if self._soon() else self._pass(data, length)
        if len(data) < length:
            self._piece()
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            return 0 if self._pieces <= MOST_PIECES else self._pass(data, length)
        self._pieces = 0
        return length if self._answered(head, data[:length], data[end + 4 : length]) else self._pass(data, length)

    def _answered(self, head: Head, request: bytes, body: bytes) -> bool:
        """Answer one request here if that can be done."""
        lane, tenant = self._lane, head.tenant
        if not lane.begun:
            lane.turn()
        now_ms = lane.now_ms
        if now_ms >= head.until_ms or lane.policy(tenant) is None:
            return False
        if (
            lane.bounded
            and head.caller is not None
            and not self._within(head.caller, check=head.call is not Call.LOGIN)
        ):
            return True
        if head.call is Call.CHECKS and self._known_batch(tenant, body, now_ms):
            return True
        asked = decoded(body, head.call)
        if asked is None:
            return False
        if isinstance(asked, Check):
            self._checked(tenant, asked, now_ms, request)
            return True
        self._next_keepalive_close_time = lane.close_at
        if isinstance(asked, Login) or not self._held_batch(head, asked, now_ms, request, body):
            self._answering = self._loop.create_task(self._later(tenant, asked, now_ms, request))
        return True

    def _within(self, caller: Caller, *, check: bool) -> bool:
        """Whether the caller may ask now; if not, it is told so, and waits for that when it does not heed it."""
        bounds, lane = self._lane.context.bounds, self._lane
        try:
            bounds.take(caller, check=check)
        except GuardError as error:
            wait_s = bounds.penalty_s(caller, check=check)
            self._next_keepalive_close_time = lane.close_at
            if wait_s:
                self._answering = self._loop.create_task(self._refused(error, wait_s))
            elif self.transport is not None:
                lane.flush()
                self.transport.write(refusal(error))
            return False
        return True

    async def _refused(self, error: GuardError, wait_s: float) -> None:
        await asyncio.sleep(wait_s)
        if self.transport is not None:
            self.transport.write(refusal(error))
        self._settled()

    def _known_batch(self, tenant: str, body: bytes, now_ms: int) -> bool:
        """Answer a batch whose questions are known by their bytes."""
        found = self._lane.batch(tenant, body, now_ms)
        if found is None or self.transport is None:
            return False
        self._lane.checks.tally.batches += 1
        self._lane.allow(self.transport, found)
        self._next_keepalive_close_time = self._lane.close_at
        return True

    def _held_batch(self, head: Head, asked: ChecksRequest, now_ms: int, request: bytes, body: bytes) -> bool:
        """Answer a batch whose verdicts are all in memory."""
        lane, wish = self._lane, partial(accept_language, request)
        found = checks.held(lane.context, head.tenant, asked, now_ms, wish)
        if found is None:
            return False
        if self.transport is not None:
            lane.checks.tally.batches += 1
            lane.allow(self.transport, found)
        lane.remember_all(head, body, asked.checks, now_ms)
        return True

    async def _later(
        self,
        tenant: str,
        asked: Check | ChecksRequest | Login,
        now_ms: int,
        request: bytes,
        *,
        since: float | None = None,
    ) -> None:
        """Answer from the stores, then go on with what came in meanwhile; `since` is when a beat began that came to nothing."""
        lane, wish = self._lane, partial(accept_language, request)
        tally, entry = lane.checks.tally, ENTRY[type(asked)]
        began, status = since or self._loop.time(), 0
        ASKED.set(Ids(partial(traceparent, request)))
        tally.begin(entry)
        try:
            with TRACING.entry(entry, None if TRACING.spans is None else traceparent(request)):
                if isinstance(asked, Check):  # memory was looked at before
                    body = await checks.decided(lane.context, tenant, asked, now_ms, wish, since=since)
                elif isinstance(asked, Login):
                    body = await logins.made(lane.context, tenant, asked, now_ms, wish)
                else:
                    body = await checks.made(lane.context, tenant, asked, now_ms, wish)
        except Exception as error:  # noqa: BLE001 - the boundary of this lane, as middleware.py is of the other
            answer = refusal(error)
            status = int(answer[9:12])  # HTTP/1.1 503
            if self.transport is not None:
                self.transport.write(answer)
        else:
            if self.transport is not None:
                status = 200
                tally.timed += 1
                lane.allow(self.transport, body)
        finally:
            tally.end(entry, status, self._loop.time() - began)
        self._settled()

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
        self._piece()
        if self._pieces <= MOST_PIECES and len(data) < MOST_HEAD and begins_well(data):
            return 0
        return self._surrender(data)

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

    def _pass(self, data: bytes, length: int) -> int:
        """Hand one request to aiohttp, the body as far as it is here."""
        self._pieces = self._turns = 0
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
        if not self._pieces:
            self._began = 0.0
        super().data_received(data)
        self._note()
        return -1

    def _wait(self, data: bytes) -> None:
        """Keep bytes for later; more than is sensible are left in the socket."""
        self._behind = data
        if len(data) > MOST_WAITING and self.transport is not None:
            self._aside = True
            self.transport.pause_reading()

    def _idle(self) -> bool:
        """Whether aiohttp has answered everything it was handed and waits for more."""
        waiter = self._waiter
        return waiter is not None and not waiter.done() and not self._messages


def decoded(body: bytes, call: Call) -> Check | ChecksRequest | Login | None:
    """What is asked; None for what the other lane is to refuse."""
    if NUL in body:
        return None
    try:
        return DECODE[call](body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def peer_of(transport: asyncio.Transport) -> str | None:
    """The socket's other end, as aiohttp names it."""
    name = transport.get_extra_info("peername")
    if name is None:
        return None
    return str(name[0]) if isinstance(name, (list, tuple)) else str(name)


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


def protocol(server: web.Server, lane: Lane, **settings: Any) -> Callable[[], FastLane]:
    """What makes a protocol for each new connection."""
    return lambda: FastLane(server, lane, **{"keepalive_timeout": lane.keepalive_s, **settings})


class LaneBeat(Beating):
    """One whose answer goes to a connection of this lane."""

    __slots__ = ("connection", "request")

    connection: FastLane
    request: bytes

    def then(self, stands: bool) -> None:  # noqa: FBT001 - as in `Beating`
        """Go on with the connection."""
        self.connection.heard(self, stands=stands)
