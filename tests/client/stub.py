"""A service that answers as a test tells it to: with faults that the real one has only now and then."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field


@dataclass
class Stub:
    """`answer` makes the bytes for a request (path, body); None hangs, b"" closes. `seen` is every request."""

    path: str
    answer: Callable[[str, dict], bytes | None]
    seen: list[tuple[str, dict]] = field(default_factory=list)
    streams: list[asyncio.StreamWriter] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    listening: asyncio.Event = field(default_factory=asyncio.Event)
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def push(self, *lines: str) -> None:
        """An event to everybody who listens."""
        data = "\n".join((*lines, "", "")).encode()
        for writer in self.streams:
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        self.writers.add(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                method, path, _ = head.decode().split(" ", 2)
                if method == "GET":
                    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                    self.streams.append(writer)
                    await self.push("retry: 20", f"id: {len(self.heads)}")
                    self.listening.set()
                    continue
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = json.loads(await reader.readexactly(length))
                self.seen.append((path, body))
                answer = self.answer(path, body)
                if answer == b"":
                    writer.close()
                    return
                if answer is not None:
                    writer.write(answer)

    def break_off(self) -> None:
        """Lose every connection, streams as well."""
        self.streams.clear()
        self.listening.clear()
        for writer in self.writers:
            writer.close()
        self.writers.clear()


@contextlib.asynccontextmanager
async def stub(folder, answer) -> AsyncIterator[Stub]:
    """A stub on a Unix socket of its own."""
    made = Stub(str(folder / "s"), answer)
    server = await asyncio.start_unix_server(made.serve, made.path)
    try:
        yield made
    finally:
        server.close()
        made.break_off()


def http(body: object, status: int = 200) -> bytes:
    """An answer as the service writes it."""
    data = json.dumps(body).encode()
    return b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
        status,
        len(data),
        data,
    )


def verdicts(path: str, body: dict, decide: Callable[[dict], dict]) -> bytes:
    """The answer to a check, or to many."""
    if path == "/v1/checks":
        return http({"results": [decide(each) for each in body["checks"]]})
    return http(decide(body))


def allow(asked: dict, ttl_ms: int = 5_000) -> dict:
    """A plain allow."""
    return {"decision": "allow", "session_id": asked["session_id"], "member_id": "ana", "ttl_ms": ttl_ms}
