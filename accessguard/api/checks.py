"""Checks: the hot path in its ordinary lane."""

from __future__ import annotations

import asyncio

from aiohttp import web

from accessguard.api.context import Context, asking, context
from accessguard.api.read import body
from accessguard.api.reply import JSON, encode, reply
from accessguard.api.wire import ChecksReply, ChecksRequest, check_reply
from accessguard.guard.model import Check


async def check(request: web.Request) -> web.Response:
    """Ask whether a session may go on.

    Answers 200 for every decision. Raises INVALID (400), UNAVAILABLE (503).
    """
    asked = await body(request, Check)
    return web.Response(body=await answer(context(request), asking(request).tenant, asked), content_type=JSON)


async def checks(request: web.Request) -> web.Response:
    """Ask for up to 500 sessions at once; the answers come in the order of the questions."""
    asked = await body(request, ChecksRequest)
    ctx, tenant, now_ms = context(request), asking(request).tenant, context(request).now_ms()
    verdicts = await asyncio.gather(*(ctx.checks.check(tenant, each, now_ms) for each in asked.checks))
    results = tuple(
        check_reply(verdict, explain=each.explain) for verdict, each in zip(verdicts, asked.checks, strict=True)
    )
    return reply(ChecksReply(results=results))


async def answer(ctx: Context, tenant: str, asked: Check) -> bytes:
    """The answer as bytes; those of a verdict in memory are written once."""
    now_ms = ctx.now_ms()
    held = ctx.checks.held(tenant, asked, now_ms)
    if held is None:
        verdict = await ctx.checks.check(tenant, asked, now_ms)
        return encode(check_reply(verdict, explain=asked.explain))
    if held.body is None:
        held.body = encode(check_reply(held.verdict, explain=False))
    return held.body
