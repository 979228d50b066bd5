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
lists; the version is pinned, and tests/api/test_fastlane*.py play the same bytes
through both lanes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

import msgspec
from aiohttp import web

from accessguard.api import checks, logins
from accessguard.api.gates import Pass
from accessguard.api.head import MOST_HEAD, Call, Head, Shape, accept_language, shape, traceparent
from accessguard.api.keys import Caller
from accessguard.api.lane import NUL, Lane
from accessguard.api.passage import MOST_A_TURN, MOST_PIECES, MOST_TURNS, Passage, peer_of, refusal
from accessguard.api.wire import ChecksRequest
from accessguard.errors import GuardError
from accessguard.guard.memory import BEATEN, DEAD, Held, Known
from accessguard.guard.model import Check, Login
from accessguard.guard.patience import Beating
from accessguard.logs import ASKED, Ids
from accessguard.tracing import TRACING

END: Final = b"\r\n\r\n"
GET: Final = ord("G")
GATES: Final = b"GET /auth/"
UNKNOWN: Final = "?"
"""The peer of a connection on which no proxy has asked yet."""

ENTRY: Final[Mapping[type, str]] = {Check: "check", ChecksRequest: "checks", Login: "login"}
DECODE: Final[Mapping[Call, Callable[[bytes], Check | ChecksRequest | Login]]] = {
    Call.CHECK: msgspec.json.Decoder(Check).decode,
    Call.CHECKS: msgspec.json.Decoder(ChecksRequest).decode,
    Call.LOGIN: msgspec.json.Decoder(Login).decode,
}


class FastLane(Passage):
    """One connection, whose plain checks and logins are answered here."""

    __slots__ = ("_constant", "_last", "_peer", "_shape")

    def __init__(self, server: web.Server, lane: Lane, **settings: Any) -> None:
        super().__init__(server, lane, **settings)
        self._shape: Shape | None = None  # of this connection's last heads
        self._last = b""
        self._constant = False  # the last head was byte for byte one that had come before
        self._peer: str | None = UNKNOWN

    def data_received(self, data: bytes) -> None:
        """Answer what can be answered here; hand on the rest, in order."""
        if self._surrendered or not data:  # aiohttp sends itself nothing, to look again at what it has buffered
            super().data_received(data)
            if data:
                self._note()
        elif self._behind or self._lane.bounded or not self._swift(data):
            data, self._behind = self._behind + data, b""
            self._take(data)

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
            length, self.caller = (-1, None) if head is None else (head.length, head.caller)
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

    def _read(self, text: bytes) -> Head | None:
        """Read a head that is like none before it, and note what it has in common with the last one."""
        head = self._lane.heads.read(text) if 4 <= len(text) < MOST_HEAD else None
        if head is not None and head.fast:
            self._shape = shape(self._last, text, head)
            self._last = text
        return head

    def forget(self) -> None:
        """Read the next head anew."""
        super().forget()
        self._shape, self._constant = None, False

    def _take(self, data: bytes) -> None:
        """Work through `data`, which begins where the last request left off."""
        at, size, most = 0, len(data), 0 if self._resting or self._queued else MOST_A_TURN
        while at < size:
            if self._owed:
                at = self._pass_body(data, at)
                continue
            if self._answering is not None or self._paused or self.transport is None:
                self._wait(data[at:])
                return
            if most == 0:
                self._queue(data[at:])
                return
            most -= 1
            cut = self._one(data, at)
            if cut <= 0:
                self._behind = data[at:] if cut == 0 else b""
                return
            at += cut

    def _one(self, data: bytes, at: int) -> int:
        """Take the request that begins at `at`: its length, 0 when it is not all here yet, -1 when aiohttp has taken over."""
        end = data.find(END, at) + 4
        head = self._lane.heads.read(data[at:end]) if 4 <= end - at < MOST_HEAD + 4 else None
        if head is None:
            return self._incomplete(data[at:]) if end < 4 else self._surrender(data[at:])
        length = end - at + head.length
        gate = head.length == 0 and data.startswith(GATES, at)
        if not (head.fast or gate) or head.length > self._lane.body_limit_bytes:
            return self._pass(data, at, length)
        if not self._idle():
            return 0 if self._soon() else self._pass(data, at, length)
        if len(data) < at + length:
            self._piece()
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
            return 0 if self._pieces <= MOST_PIECES else self._pass(data, at, length)
        self._pieces = 0
        whole = data[at : at + length]
        if gate:  # unless it has been tried in `_swift`, before it had to wait for aiohttp
            passes = self._turns < MOST_TURNS and self._passes(whole, self._now_ms())
            return length if passes else self._pass(data, at, length)
        self.caller = head.caller
        return length if self._answered(head, whole, data[end : at + length]) else self._pass(data, at, length)

    def _now_ms(self) -> int:
        """The time of this turn of the loop."""
        lane = self._lane
        if not lane.begun:
            lane.turn()
        return lane.now_ms

    def _answered(self, head: Head, request: bytes, body: bytes) -> bool:
        """Answer one request here if that can be done."""
        lane, tenant, now_ms = self._lane, head.tenant, self._now_ms()
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
        await self.hold_back(wait_s)
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


def decoded(body: bytes, call: Call) -> Check | ChecksRequest | Login | None:
    """What is asked; None for what the other lane is to refuse."""
    if NUL in body:
        return None
    try:
        return DECODE[call](body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


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
