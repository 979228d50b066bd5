"""What happens, told as it happens: server-sent events (WHATWG HTML, section 9.2).

Written by hand: a frame is three lines of text, and aiohttp-sse sends its pings
from a task of its own, with no bound on how long a reader may leave them lying.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable
from typing import Final

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.encoding import encode
from accessguard.api.reply import SAFE_HEADERS
from accessguard.events.model import Event, position
from accessguard.events.stream import Reader

EVENT_STREAM: Final = "text/event-stream"
HEADERS: Final = {"Content-Type": EVENT_STREAM, "X-Accel-Buffering": "no", **SAFE_HEADERS}
LAST: Final = "Last-Event-ID"
HEARTBEAT_S: Final = 15.0
"""Half of the time after which proxies usually cut a silent connection."""
WRITE_S: Final = 10.0
"""How long a reader may leave full buffers lying; then it is cut off, and may come again and go on where it was."""
RETRY_MS: Final = 1_000
HEARTBEAT: Final = b":\n\n"
RESET: Final = "reset"


async def stream(request: web.Request) -> web.StreamResponse:
    """Follow what happens as server-sent events, without end.

    `session_ended`, `device_changed`, `member_changed`, `policy_changed` and
    `violation`, in the order in which they took effect; see docs/events.md for
    what each says. With `Last-Event-ID` it goes on after that event, exactly;
    when that is no longer possible, the first event is `reset`: drop whatever
    you hold. A comment is sent every 15 s. The stream ends when the token
    does or is revoked, and when the service restarts; come again.
    """
    ctx, who = context(request), asking(request)
    async with ctx.feeds.follow(who.tenant) as reader:
        first = await _first(reader, request.headers.get(LAST))
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        try:
            await _write(response, first)
            while not reader.over and ctx.now_ms() < who.caller.expires_at * 1000:
                events = await reader.next(HEARTBEAT_S)
                if not ctx.keyring.stands(who.caller):
                    break
                if events or not reader.over:
                    await _write(response, b"".join(map(frame, events)) or HEARTBEAT)
            await _write(response, f"retry: {_soon()}\n\n".encode())
            response.force_close()
            await response.write_eof()
        except (TimeoutError, ConnectionError):
            if request.transport is not None:
                request.transport.abort()
    return response


async def _first(reader: Reader, last: str | None) -> bytes:
    """How a stream begins: where it is, for whoever is cut off before anything has happened."""
    after = position(last) if last else None
    reset = last is not None and last != "" and (after is None or not await reader.resume(after))
    begin = _lines((f"retry: {RETRY_MS}", f"id: {reader.place.text}"))
    return begin + (_lines((f"event: {RESET}", f"id: {reader.place.text}", "data: {}")) if reset else b"")


def frame(event: Event) -> bytes:
    """One event as it is sent."""
    data = encode({"at": event.at, "member_id": event.member_id, **event.body}).decode()
    return _lines((f"event: {event.kind}", f"id: {event.position.text}", f"data: {data}"))


def _lines(lines: Iterable[str]) -> bytes:
    return ("\n".join(lines) + "\n\n").encode()


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Send it. Raises TimeoutError when the reader does not read, ConnectionError when it has gone."""
    async with asyncio.timeout(WRITE_S):
        await response.write(data)


def _soon() -> int:
    """When to come again (ms): not all at the same moment."""
    return random.randint(500, 3_000)  # noqa: S311 - nothing depends on who guesses it
