"""How long an answer may be in the making."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from accessguard.api.bounds import in_time
from accessguard.api.context import CONTEXT, TIMER, unhurried


@web.middleware
async def timely(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Give the handler's answer, begun in time. Raises GuardError(UNAVAILABLE)."""
    async with in_time(request.app[CONTEXT].bounds.rates.answer_s) as timer:
        request[TIMER] = timer
        try:
            return await handler(request)
        finally:
            del request[TIMER]


async def begun(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Give an answer that has begun all its time: who reads it, and how fast, is looked after elsewhere."""
    del response
    unhurried(request)
