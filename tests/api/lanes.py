"""Both lanes side by side, and a player that sends them the same bytes."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from accessguard.api.context import Context
from accessguard.api.fastlane import FastLane, protocol
from accessguard.api.lane import Lane
from accessguard.app import service
from tests.service import LAPTOP, Tenant, token

LIMIT = 1_048_576
QUIET_S = 0.25
MANY = 64
"""Pieces of which not each is waited for: some of them come together."""
LAST = b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
"""Ends a conversation: both lanes close after it."""


@dataclass(frozen=True)
class Reply:
    """One answer; the date and the id are left out."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The JSON, or the bytes of anything else."""
        return json.loads(self.raw) if self.raw[:1] in (b"{", b"[") else self.raw


@dataclass(frozen=True)
class Talk:
    """All that came back on one connection, whether it ended, and how many checks were decided for it."""

    replies: tuple[Reply, ...]
    closed: bool
    decided: int = 0

    @property
    def statuses(self) -> list[int]:
        """The statuses in order."""
        return [reply.status for reply in self.replies]


@dataclass
class Lanes:
    """The ports of the fast lane and of the application without it, with what a test may look at."""

    context: Context
    lane: Lane
    fast: int
    plain: int
    connections: list[FastLane] = field(default_factory=list, repr=False)

    @property
    def decided(self) -> int:
        """How many checks have been decided, in either lane, from memory or not."""
        tally = self.context.checks.tally
        return tally.plain + sum(tally._outcomes.values())

    async def talk(self, port: int, *pieces: bytes, half_close: bool = False, quiet_s: float = QUIET_S) -> Talk:
        """Send the pieces one by one, and listen until the other side closes or says nothing for a while."""
        before = self.decided
        transport, ear = await asyncio.get_running_loop().create_connection(Ear, "127.0.0.1", port)
        try:
            for piece in pieces:
                if not ear.lost.is_set():
                    transport.write(piece)
                await asyncio.sleep(0.001 if len(pieces) < MANY else 0)  # the other side, on the same loop, has read it
            if half_close and not ear.lost.is_set():
                transport.write_eof()
            await ear.quiet(quiet_s)
        finally:
            transport.abort()
        return Talk(replies(bytes(ear.heard)), ear.lost.is_set(), self.decided - before)

    async def both(self, *requests: bytes, **more: Any) -> Talk:
        """The same to both lanes; what the fast one answers, after asserting that there is no difference.

        First each request by itself, then all at once. Of what comes at once
        with bytes that are no HTTP, aiohttp forgets even the good; the fast
        lane may do that too, or answer as if each had come by itself.
        """
        plain = await self.talk(self.plain, *requests, **more)
        same(await self.talk(self.fast, *requests, **more), plain, requests)
        together = await self.talk(self.fast, b"".join(requests), **more)
        if together.statuses != plain.statuses:
            plain = await self.talk(self.plain, b"".join(requests), **more)
        same(together, plain, requests)
        return together


class Ear(asyncio.Protocol):
    """All that comes on a connection."""

    def __init__(self) -> None:
        self.heard = bytearray()
        self.lost = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """Keep it."""
        self.heard += data

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end."""
        del exc
        self.lost.set()

    async def quiet(self, quiet_s: float) -> None:
        """Wait for the end, or until nothing has come for `quiet_s`."""
        size = -1
        while not self.lost.is_set() and len(self.heard) > size:
            size = len(self.heard)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.lost.wait(), quiet_s)


def same(mine: Talk, other: Talk, sent: Sequence[bytes] = ()) -> None:
    """Assert that both lanes saw, said and did the same.

    Of what is no HTTP, aiohttp says so in plain text, the service in a problem document.
    """
    assert mine.statuses == other.statuses, sent
    for my, its in zip(mine.replies, other.replies, strict=True):
        if its.status == 400 and its.headers["Content-Type"].startswith("text/plain"):
            assert my.headers["Content-Type"] == "application/problem+json"
            assert my.body["status"] == my.status
        else:
            assert (my.headers, my.body) == (its.headers, its.body), sent
    assert mine.closed == other.closed, sent
    assert mine.decided == other.decided, sent


def replies(data: bytes) -> tuple[Reply, ...]:
    """The answers in what was heard; none of them may be cut."""
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        start, headers = fields(head)
        size = 0 if data.startswith(b"HTTP/1.1 ") else int(headers.get("Content-Length", "0"))  # no body for HEAD
        assert len(data) >= size, "an answer was cut"
        found.append(Reply(int(start.split(" ")[1]), headers, data[:size]))
        data = data[size:]
    return tuple(found)


def fields(head: bytes) -> tuple[str, dict[str, str]]:
    """The first line of an answer, and its fields but the date and the id."""
    start, *lines = head.decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines), head
    headers.pop("Date", None)
    headers.pop("AccessGuard-Request-Id", None)  # another one for each
    return start, headers


async def one(reader: asyncio.StreamReader) -> Reply:
    """The next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    start, headers = fields(head[:-4])
    return Reply(int(start.split(" ")[1]), headers, await reader.readexactly(int(headers.get("Content-Length", "0"))))


@contextlib.asynccontextmanager
async def lanes(context: Context, *, limit: int = LIMIT, **settings: Any) -> AsyncIterator[Lanes]:
    """Both lanes to the same application on ports of their own; `settings` are aiohttp's for a connection."""
    runner = web.AppRunner(service(context, body_limit_bytes=limit), access_log=None, **settings)
    await runner.setup()
    assert runner.server is not None
    keepalive_s = settings.get("keepalive_timeout", 75.0)
    found = Lanes(context, Lane(context, body_limit_bytes=limit, keepalive_s=keepalive_s), 0, 0)
    make = protocol(runner.server, found.lane, access_log=None, **settings | {"keepalive_timeout": keepalive_s})

    def connection() -> FastLane:
        found.connections.append(make())
        return found.connections[-1]

    server = await asyncio.get_running_loop().create_server(connection, "127.0.0.1", 0)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.fast, found.plain = server.sockets[0].getsockname()[1], runner.addresses[0][1]
    try:
        yield found
    finally:
        server.close()
        await runner.cleanup()


def head(start: str, fields: Sequence[tuple[str, str]]) -> bytes:
    """A head with exactly these fields."""
    return "\r\n".join([start, *(f"{name}: {value}" for name, value in fields), "", ""]).encode()


def request(
    tenant: str,
    body: Any = None,
    *,
    path: str = "/v1/check",
    method: str = "POST",
    role: str = "platform",
    **claims: Any,
) -> bytes:
    """One good request; `claims` are the token's."""
    raw = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
    fields = [("Host", "guard"), ("Authorization", f"Bearer {token(tenant, role, **claims)}")]
    kind = [] if body is None else [("Content-Type", "application/json"), ("Content-Length", str(len(raw)))]
    return head(f"{method} {path} HTTP/1.1", [*fields, *kind]) + raw


def question(session_id: str, **fields: Any) -> dict[str, Any]:
    """The body of a check."""
    return {"session_id": session_id, "ip": LAPTOP} | fields


@dataclass
class Known:
    """A session whose verdict is held, and good bytes that ask for it."""

    tenant: Tenant
    id: str

    @property
    def bearer(self) -> tuple[str, str]:
        """The caller's token as a field."""
        return ("Authorization", f"Bearer {token(self.tenant.name, 'platform')}")

    def check(self, **fields: Any) -> bytes:
        """A good check."""
        return request(self.tenant.name, question(self.id) | fields)

    def checks(self, number: int, **fields: Any) -> bytes:
        """A good batch, every third of a session that is unknown."""
        several = [question(self.id if n % 3 else f"no-{n}") | fields for n in range(number)]
        return request(self.tenant.name, {"checks": several}, path="/v1/checks")

    def raw(self, body: bytes, *fields: tuple[str, str], start: str = "POST /v1/check HTTP/1.1") -> bytes:
        """Any head with these fields and the token, its length right."""
        return head(start, [("Host", "h"), self.bearer, *fields, ("Content-Length", str(len(body)))]) + body

    @property
    def body(self) -> bytes:
        """The body of a good check."""
        return b'{"session_id":"%s","ip":"%s"}' % (self.id.encode(), LAPTOP.encode())


def fast(both: Lanes) -> int:
    """How many answers the fast lane itself has given."""
    return both.context.checks.tally.answers
