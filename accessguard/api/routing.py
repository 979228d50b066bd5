"""The table of routes put on an application: who is admitted, how much each may ask."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from aiohttp import web

from accessguard.api import restricted, stream
from accessguard.api.access import admit
from accessguard.api.context import ASKING, CONTEXT, Context
from accessguard.api.keys import Caller
from accessguard.api.passage import Passage, peer_of
from accessguard.api.reply import CSV, problem
from accessguard.api.routes import PLATFORM, ROUTES, UUIDS, Handler, Route
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.refused import PATH

CHECKS: Final = frozenset({"/v1/check", "/v1/checks", "/access/v1/evaluation", "/access/v1/evaluations"})
"""What is asked for every request of a platform: never refused for its number unless that is configured."""
READING: Final = frozenset({"GET", "HEAD"})
"""What is not begun for a caller that has left while it waited for its turn."""
SEGMENT: Final = re.compile(r"\{(\w+)\}")
PENDING: Final = "AccessGuard-Pending"
"""How many logins an answer to an operator does not know of yet, because PostgreSQL was out; absent when there are none."""


def add_routes(app: web.Application) -> None:
    """Put the table on an application; each handler runs only for a caller that its route admits."""
    for route in ROUTES:
        path = _pattern(route.path)
        app.router.add_route(route.method, path, route.handler if route.open else _guarded(route))
    app.router.add_route("HEAD", PATH, restricted.show)  # who looks at links before people do (RFC 9110, 9.3.2)


async def _bounded(ctx: Context, route: Route, request: web.Request, caller: Caller) -> web.StreamResponse:
    """The handler's answer, if its caller does not ask too much. Raises GuardError(THROTTLED)."""
    bounds, check = ctx.bounds, route.path in CHECKS
    try:
        wait_s = bounds.take(caller, check=check)
    except GuardError:
        await _held_back(request, bounds.penalty_s(caller, check=check))
        raise
    if wait_s:
        await asyncio.sleep(wait_s)
    if check or route.media == stream.EVENT_STREAM:
        return await route.handler(request)
    with bounds.at_once(caller):
        async with bounds.place(caller, file=CSV in request.headers.get("Accept", "")) as waited:
            if (waited or wait_s) and request.method in READING and _left(request):
                raise GuardError(ErrorCode.UNAVAILABLE, "Its connection was closed while the call waited for its turn.")
            return await route.handler(request)


def _left(request: web.Request) -> bool:
    """Whether its caller has closed the connection, or its half of it: nobody is likely to read the answer."""
    protocol = request.protocol
    return request.transport is None or (isinstance(protocol, Passage) and protocol.ended)


async def _held_back(request: web.Request, seconds: float) -> None:
    """Let whoever does not heed refusals wait for the next."""
    if isinstance(request.protocol, Passage):
        await request.protocol.hold_back(seconds)


def _pattern(path: str) -> str:
    """The path as the router reads it: an id that we make is none of the words that stand in its place elsewhere.

    Whatever follows a proxy's prefix is its path, slashes, line feeds and all.
    """
    place, _, last = path.rpartition("/")
    words = [each.path.rpartition("/")[2] for each in ROUTES if each.path.rpartition("/")[0] == place]
    name = last.strip("{}")
    if name in UUIDS:
        fixed = "|".join(re.escape(word) for word in words if "{" not in word)
        return f"{segments(place)}/{{{name}:(?!(?:{fixed})$)[^/]+}}" if fixed else segments(path)
    return segments(path.replace("{path}", "{path:(?s:.*)}"))


def segments(path: str) -> str:
    """The path with places for segments of any characters, as opaque ids are: the router's own have no curly brackets in them."""
    return SEGMENT.sub(r"{\1:[^/]+}", path)


def _guarded(route: Route) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        ctx = request.app[CONTEXT]
        try:
            request[ASKING] = asked = await admit(
                request, ctx, route.roles, installation=route.installation, everywhere=route.everywhere
            )
            response = await _bounded(ctx, route, request, asked.caller)
        except GuardError as error:
            if error.code is ErrorCode.UNAUTHENTICATED and request.transport is not None:
                await _held_back(request, ctx.bounds.stranger_s(peer_of(request.transport)))
            if not ctx.ready.pending or route.roles == PLATFORM:
                raise
            response = problem(error)
        if ctx.ready.pending and route.roles != PLATFORM and not response.prepared:
            response.headers[PENDING] = str(ctx.ready.pending)
        return response

    handle.__doc__ = route.handler.__doc__
    return handle
