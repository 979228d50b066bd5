"""How long an answer may be in the making."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from accessguard.api.bounds import late
from accessguard.api.context import CONTEXT, TIMER, unhurried


@web.middleware
async def timely(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Give the handler's answer, begun in time; whoever takes longer for good reason reschedules the timer. Raises GuardError(UNAVAILABLE)."""
    within_s = request.app[CONTEXT].bounds.rates.answer_s
    timer = request[TIMER] = asyncio.timeout(within_s)
    try:
        async with timer:
            return await handler(request)
    except TimeoutError:
        if not timer.expired():
            raise
        raise late(within_s) from None
    finally:
        del request[TIMER]


async def begun(request: web.BaseRequest, response: web.StreamResponse) -> None:
    """Give an answer that has begun all its time: who reads it, and how fast, is looked after elsewhere."""
    del response
    unhurried(request)
