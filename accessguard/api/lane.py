"""What all connections of the fast lane share: what is known again, the time, and answers that leave together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from email.utils import formatdate
from http import HTTPStatus
from typing import Annotated, Final, cast

import msgspec

from accessguard.api import checks
from accessguard.api.connections import Connections, Patience
from accessguard.api.context import Context
from accessguard.api.gates import Gates
from accessguard.api.head import Head, Heads
from accessguard.api.reply import JSON, SAFE_HEADERS
from accessguard.api.shares import Asking, Shares
from accessguard.guard.memory import BEATEN, DEAD, MOST_SEEN, SEEN, Held, Known
from accessguard.guard.model import Check
from accessguard.policies.model import Policy

LONGEST_QUESTION: Final = 2_048
MAKE_ROOM_S: Final = 30
FOR_EVER: Final = 1 << 60

PATIENCE: Final = Patience()
LENGTHS: Final = tuple(b"%d\r\n\r\n" % size for size in range(4096))


NUL: Final = b"\\u0000"


class Pieces(msgspec.Struct, gc=False):
    """A batch whose questions are not read."""

    checks: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=500)]


PIECES: Final = msgspec.json.Decoder(Pieces).decode


class Lane:
    """What all connections of a worker share: known heads, answers that leave together, the time."""

    def __init__(
        self, context: Context, *, body_limit_bytes: int, keepalive_s: float, patience: Patience = PATIENCE
    ) -> None:
        self.context = context
        self.checks = context.checks
        self.heads = Heads(context)
        self.gates = Gates(context)
        self.body_limit_bytes = body_limit_bytes
        self.loop = asyncio.get_running_loop()
        self.ready: list[tuple[asyncio.Transport, bytes]] = []
        self.memory = context.checks.memory
        self.request: Callable[[bytes], Known | None] = self.memory.requests.get
        self.body: Callable[[bytes], Known | None] = self.memory.bodies.get
        self.policy: Callable[[str], Policy | None] = context.book.held
        self.keepalive_s = keepalive_s
        self.close_at = 0.0
        self.begun = False
        self.now_ms = 0
        self.start = b""
        self.dated = b""
        self._second = 0
        self.draining = False
        self.connections = Connections(patience, self.loop)
        self.shares = Shares(self.loop)
        rates = context.bounds.rates
        self.bounded = rates.checks is not None or rates.platform is not None
        context.keyring.on_forget.append(self.forget)
        context.steps.first.append(self.leave)

    def forget(self) -> None:
        """Know no caller any more: of one at least, what was known no longer holds."""
        self.heads.forget()
        self.gates.forget()
        self.memory.requests.clear()
        for each in self.connections.all():
            each.forget()

    def turn(self) -> None:
        """Begin a turn of the loop: read the clock once for all that arrives in it, and answer it all at its end."""
        self.begun = True
        self.now_ms = self.context.now_ms()
        if self.now_ms // 1000 != self._second:
            self._second = self.now_ms // 1000
            self.start = start(200, JSON)
            self.dated = f"Date: {formatdate(usegmt=True)}\r\n\r\n".encode()
            if self._second % MAKE_ROOM_S == 0:
                self.memory.forget_questions()
        now = self.loop.time()
        self.context.changes.awake(now)
        self.close_at = now + self.keepalive_s
        self.context.steps.asked_at = now
        self.loop.call_soon(self.flush)

    def drain(self) -> None:
        """Leave every further request to aiohttp, whose answers then close their connections: nothing is known any more."""
        self.draining = True
        self.request = self.body = _unknown
        self.policy = _nobodys

    def allow(self, transport: asyncio.Transport, body: bytes) -> None:
        """Answer 200 with `body`, together with the other answers of this turn: a sleeping caller is woken once."""
        if not self.begun:
            self.turn()
        size = len(body)
        length = LENGTHS[size] if size < len(LENGTHS) else b"%d\r\n\r\n" % size
        self.ready.append((transport, b"".join((self.start, length, body))))

    def remember(self, head: Head, question: bytes, asked: Check, held: Held, *, whole: bool) -> None:
        """Know a question again whose plain allow is given for the second time; `whole` ones have their head in front."""
        if not held.flags & SEEN:
            held.flags |= SEEN
            return
        questions = self.memory.requests if whole else self.memory.bodies
        room = len(questions) < MOST_SEEN or question in questions
        if not room or held.other is not None or len(question) > LONGEST_QUESTION:
            return
        body = checks.plainly(held, asked.session_id)
        tail = b"%d\r\n\r\n%b" % (len(body), body)
        until = head.until_ms if whole else FOR_EVER
        questions[question] = Known(held, head.tenant, asked.activity is not None, until, tail, len(tail) - len(body))

    def learn(self, request: bytes, head: Head, known: Known) -> None:
        """Know a whole request again, of whose body that much is known already."""
        requests = self.memory.requests
        if len(requests) < MOST_SEEN and len(request) <= LONGEST_QUESTION:
            requests[request] = msgspec.structs.replace(known, until=head.until_ms)

    def batch(self, tenant: str, body: bytes, now_ms: int) -> bytes | None:
        """The answer to a batch whose questions are all known by their bytes, and still plainly allowed; else None."""
        policy, find, answers = self.policy(tenant), self.body, list[bytes]()
        if not self.memory.bodies or not self.memory.trusted:
            return None
        for question in pieces(body):
            known = find(bytes(question))
            if known is None or known.tenant != tenant:
                return None
            held = known.held
            late = now_ms >= held.until or (known.active and not held.flags & BEATEN)
            if late or held.flags & DEAD or held.policy is not policy:
                return None
            answers.append(known.tail[known.at :])
        self.checks.tally.plain += len(answers)
        return checks.joined(answers) if answers else None

    def remember_all(self, head: Head, body: bytes, asked: Sequence[Check], now_ms: int) -> None:
        """Know the questions of a batch again, where all of them are plainly allowed and there is room."""
        if len(self.memory.bodies) + len(asked) > MOST_SEEN:
            return
        found = [held for held in self.checks.peek_all(head.tenant, asked, now_ms) if held is not None]
        if len(found) == len(asked) and all(held.other is None for held in found):
            for question, each, held in zip(pieces(body), asked, found, strict=True):
                self.remember(head, bytes(question), each, held, whole=False)

    def leave(self) -> None:
        """Write what is ready before the turn ends, as something longer is about to be done in it."""
        if self.ready:
            self.flush()

    def flush(self) -> None:
        """Write every answer that is ready."""
        self.begun = False
        ready, self.ready = self.ready, []
        self.context.checks.tally.answers += len(ready)
        crowded = len(ready) > self.shares.crowd
        for transport, answer in by_connection(ready) if crowded else ready:
            try:
                transport.write(answer)
            except RuntimeError:  # a connection that was lost since; the others are still owed their answers
                continue
        if crowded:
            self.shares.crowded([each for transport, _ in ready if (each := asking(transport)) is not None])


def by_connection(ready: Sequence[tuple[asyncio.Transport, bytes]]) -> Iterable[tuple[asyncio.Transport, bytes]]:
    """The same with one answer for each connection: what a client sent in one piece is answered in one, with one call of the kernel."""
    answers = dict[asyncio.Transport, list[bytes]]()
    for transport, answer in ready:
        answers.setdefault(transport, []).append(answer)
    return ((transport, b"".join(each)) for transport, each in answers.items())


def asking(transport: asyncio.Transport) -> Asking | None:
    """The connection behind a transport, while there is one."""
    return None if transport.is_closing() else cast("Asking", transport.get_protocol())


def pieces(body: bytes) -> Sequence[msgspec.Raw]:
    """The questions of a batch as they were written; none of a body that the other lane is to refuse."""
    try:
        return () if NUL in body else PIECES(body).checks
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ()


def _unknown(_: bytes) -> None:
    """A question that is not known again."""


def _nobodys(_: str) -> None:
    """A tenant whose policy is not held."""


def start(status: int, kind: str, extra: str = "") -> bytes:
    """An answer up to the number of its Content-Length; HTTP's date has whole seconds (RFC 9110, 5.6.7)."""
    safe = "".join(f"{name}: {value}\r\n" for name, value in SAFE_HEADERS.items())
    line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: {kind}\r\n"
    return f"{line}{safe}{extra}Date: {formatdate(usegmt=True)}\r\nContent-Length: ".encode()
