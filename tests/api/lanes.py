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
from accessguard.api.fastlane import FastLane, Lane, protocol
from accessguard.app import service
from tests.service import LAPTOP, token

LIMIT = 1_048_576
QUIET_S = 0.25
LAST = b"GET /healthz HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
"""Ends a conversation: both lanes close after it."""


@dataclass(frozen=True)
class Reply:
    """One answer; the date is left out."""

    status: int
    headers: dict[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        """The JSON, or the bytes of anything else."""
        return json.loads(self.raw) if "json" in self.headers.get("Content-Type", "") else self.raw


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
    connections: list[FastLane] = field(default_factory=list)

    @property
    def decided(self) -> int:
        """How many checks have been decided, in either lane, from memory or not."""
        tally = self.context.checks.tally
        return tally.plain + sum(tally._outcomes.values())

    async def talk(self, port: int, *pieces: bytes, half_close: bool = False, quiet_s: float = QUIET_S) -> Talk:
        """Send the pieces one by one, and listen until the other side closes or says nothing for a while."""
        before = self.decided
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            for number, piece in enumerate(pieces):
                if number:
                    await asyncio.sleep(0.001)
                writer.write(piece)
            with contextlib.suppress(ConnectionError):
                await writer.drain()
                if half_close:
                    writer.write_eof()
            replies, closed = await listen(reader, quiet_s)
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return Talk(tuple(replies), closed, self.decided - before)

    async def both(self, *pieces: bytes, **more: Any) -> Talk:
        """The same to both lanes; what the fast one answers, after asserting that there is no difference."""
        fast = await self.talk(self.fast, *pieces, **more)
        plain = await self.talk(self.plain, *pieces, **more)
        same(fast, plain, b"".join(pieces))
        return fast


def same(fast: Talk, plain: Talk, sent: bytes = b"") -> None:
    """Assert that both lanes saw, said and did the same.

    Of what is no HTTP, aiohttp says so in plain text, the service in a problem document.
    """
    assert fast.statuses == plain.statuses, sent[:3000]
    for mine, other in zip(fast.replies, plain.replies, strict=True):
        if other.headers.get("Content-Type", "").startswith("text/plain"):
            assert mine.headers["Content-Type"] == "application/problem+json"
            assert mine.body["status"] == mine.status
        else:
            assert (mine.headers, mine.body) == (other.headers, other.body), sent[:3000]
    assert fast.closed == plain.closed, sent[:3000]
    assert fast.decided == plain.decided, sent[:3000]


async def listen(reader: asyncio.StreamReader, quiet_s: float = QUIET_S) -> tuple[list[Reply], bool]:
    """Every answer until the end of the stream (True), or until nothing comes for `quiet_s` (False)."""
    replies: list[Reply] = []
    while True:
        try:
            replies.append(await asyncio.wait_for(one(reader), quiet_s))
        except TimeoutError:
            return replies, False
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            assert not getattr(error, "partial", b""), "an answer was cut"
            return replies, True


async def one(reader: asyncio.StreamReader) -> Reply:
    """The next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    start, *lines = head[:-4].decode().split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines)
    assert len(headers) == len(lines), head
    raw = await reader.readexactly(int(headers.get("Content-Length", "0")))
    headers.pop("Date", None)
    return Reply(int(start.split(" ")[1]), headers, raw)


@contextlib.asynccontextmanager
async def lanes(context: Context, *, limit: int = LIMIT, **settings: Any) -> AsyncIterator[Lanes]:
    """Both lanes to the same application on ports of their own; `settings` are aiohttp's for a connection."""
    runner = web.AppRunner(service(context, body_limit_bytes=limit), access_log=None, **settings)
    await runner.setup()
    assert runner.server is not None
    found = Lanes(context, Lane(context, memory=context.checks.memory, body_limit_bytes=limit), 0, 0)
    make = protocol(runner.server, found.lane, access_log=None, **settings)

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
    more: Sequence[tuple[str, str]] = (),
) -> bytes:
    """One good request."""
    raw = b"" if body is None else body if isinstance(body, bytes) else msgspec.json.encode(body)
    fields = [("Host", "guard"), ("Authorization", f"Bearer {token(tenant, role)}"), *more]
    kind = [] if body is None else [("Content-Type", "application/json"), ("Content-Length", str(len(raw)))]
    return head(f"{method} {path} HTTP/1.1", [*fields, *kind]) + raw


def question(session_id: str, **fields: Any) -> dict[str, Any]:
    """The body of a check."""
    return {"session_id": session_id, "ip": LAPTOP} | fields
