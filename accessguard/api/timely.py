"""How an answer is made: step by step, and within its time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, cast

from aiohttp import web

from accessguard.api.bounds import late
from accessguard.api.context import CONTEXT, TIMER, unhurried
from accessguard.api.steps import Stepwise

QUICK: Final = ("/v1/check", "/auth/", "/access/", "/livez", "/readyz")
"""What waits for no turn: checks, and what balancers ask."""


@web.middleware
async def stepwise(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Give the handler's answer, made step by step; callers are told apart by what they show, whoever they are; those who show nothing are one."""
    if request.path.startswith(QUICK):
        return await handler(request)
    steps, headers = request.app[CONTEXT].steps, request.headers
    key = headers.get("Authorization") or headers.get("Cookie") or ""
    made = cast("Coroutine[Any, Any, web.StreamResponse]", handler(request))  # aiohttp awaits nothing else
    return await Stepwise(made, steps, key)


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
