"""Live: who is on now, the newest activity first; kept up to date by server-sent events, and by reloading without script."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final, Literal

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.paging import portion
from accessguard.api.read import Paging
from accessguard.api.stream import HEADERS as STREAM_HEADERS
from accessguard.api.stream import HEARTBEAT, RETRY_MS, WRITE_S
from accessguard.console.door import COOKIE
from accessguard.console.lists import asked, link
from accessguard.console.pen import page, written
from accessguard.console.shield import HEADERS
from accessguard.errors import ErrorCode, GuardError
from accessguard.events.stream import Reader
from accessguard.guard.facts import from_ms
from accessguard.members.present import Present
from accessguard.rules.networks import address

ROWS: Final = 30
COUNTED: Final = 1_000
LOOK_S: Final = 5.0
"""How often to look when nothing says that something happened: activity moves every 30 s at most."""
REST_S: Final = 1.0
"""The least time between two looks, however much happens."""
AGAIN_S: Final = 30.0
"""After so long the list is sent though it is the same, so that its times are right."""
MOST_WATCHERS: Final = 20
"""Of one tenant and worker; each costs two queries of some milliseconds at every look."""


class LiveQuery(Paging, frozen=True, kw_only=True):
    """How many minutes ago somebody who is on was active at the latest."""

    within: Literal[5, 15, 30] = 5


class Watchers:
    """How many look on, by tenant."""

    def __init__(self) -> None:
        self._looking: Counter[str] = Counter()

    @contextlib.contextmanager
    def place(self, tenant: str) -> Iterator[None]:
        """Look on. Raises GuardError(UNAVAILABLE) when as many do as may."""
        if self._looking[tenant] >= MOST_WATCHERS:
            raise GuardError(ErrorCode.UNAVAILABLE, "Too many look on here; reload the page instead.")
        self._looking[tenant] += 1
        try:
            yield
        finally:
            self._looking[tenant] -= 1
            self._looking += Counter()  # forgets who has none


WATCHERS: Final = web.AppKey("console_watchers", Watchers)


async def listed(request: web.Request) -> web.StreamResponse:
    """Who is on now."""
    wanted = asked(request, LiveQuery, limit=ROWS)
    found, further = await _found(request, wanted)
    shown = {
        **await _shown(request, wanted, found),
        "further": None if further is None else link(request, cursor=further),
        "first": link(request) if wanted.cursor else None,
        "stream": None if wanted.cursor else f"/console/live/events?within={wanted.within}",
    }
    return page(request, "live.html", shown)


async def followed(request: web.Request) -> web.StreamResponse:
    """The first page of the list again and again, as events, whenever it is another one; ends when the console's session does."""
    wanted, tenant = asked(request, LiveQuery, limit=ROWS, cursor=None), asking(request).tenant
    ctx = context(request)
    with request.app[WATCHERS].place(tenant):
        async with ctx.feeds.follow(tenant) as reader:
            response = web.StreamResponse(headers={**HEADERS, **STREAM_HEADERS})
            await response.prepare(request)
            with contextlib.suppress(TimeoutError, ConnectionError, GuardError):
                await _write(response, f"retry: {RETRY_MS}\n\n".encode())
                await _follow(request, wanted, reader, response)
    response.force_close()
    return response


async def _follow(request: web.Request, wanted: LiveQuery, reader: Reader, response: web.StreamResponse) -> None:
    ctx, loop = context(request), asyncio.get_running_loop()
    before: object = None
    sent_at = 0.0
    while not reader.over and await ctx.entrance.held(request.cookies.get(COOKIE), now_ms=ctx.now_ms()) is not None:
        found, _ = await _found(request, wanted)
        now = [(each.member_id, each.sessions) for each in found]
        if now != before or loop.time() - sent_at > AGAIN_S:
            before, sent_at = now, loop.time()
            shown = await _shown(request, wanted, found)
            html = written(request, "live_list.html", {**shown, "whole": f"/console/live?within={wanted.within}"})
            await _write(response, b"event: list\ndata: " + msgspec.json.encode({"html": html}) + b"\n\n")
        else:
            await _write(response, HEARTBEAT)
        await asyncio.sleep(REST_S)
        await reader.next(LOOK_S - REST_S)


async def _found(request: web.Request, wanted: LiveQuery) -> tuple[Sequence[Present], str | None]:
    ctx, tenant = context(request), asking(request).tenant
    await ctx.activity.flush()
    now = from_ms(ctx.now_ms())

    async def fetch(after: tuple[datetime, str] | None, limit: int) -> Sequence[tuple[Present, tuple[datetime, str]]]:
        since = now - timedelta(minutes=wanted.within)
        rows = await ctx.present.listed(tenant, now=now, since=since, after=after, limit=limit)
        return [(row, (row.at, row.member_id)) for row in rows]

    return await portion(wanted, tuple[datetime, str], fetch)


async def _shown(request: web.Request, wanted: LiveQuery, found: Sequence[Present]) -> dict[str, object]:
    ctx, now = context(request), from_ms(context(request).now_ms())
    since = now - timedelta(minutes=wanted.within)
    count = await ctx.present.count(asking(request).tenant, now=now, since=since, most=COUNTED + 1)
    places = {each.ip: ctx.geo.where(address(each.ip)).place for one in found for each in one.sessions if each.ip}
    return {"present": found, "places": places, "within": wanted.within, "count": count, "counted": COUNTED}


async def _write(response: web.StreamResponse, data: bytes) -> None:
    """Send it. Raises TimeoutError when the browser does not read, ConnectionError when it has gone."""
    async with asyncio.timeout(WRITE_S):
        await response.write(data)
