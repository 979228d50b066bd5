"""Checks: what both lanes answer, and the handlers of the ordinary one."""

from __future__ import annotations

import asyncio

from aiohttp import web

from accessguard.api.context import Context, asking, context
from accessguard.api.read import body
from accessguard.api.reply import encode, plain, written_reply
from accessguard.api.wire import ChecksRequest, check_reply
from accessguard.guard.memory import Held
from accessguard.guard.model import Check


async def check(request: web.Request) -> web.Response:
    """Ask whether a session may go on.

    Answers 200 for every decision. Raises INVALID (400), UNAVAILABLE (503).
    """
    return await _answer(request, await body(request, Check))


async def checks(request: web.Request) -> web.Response:
    """Ask for up to 500 sessions at once; the answers come in the order of the questions."""
    return await _answer(request, await body(request, ChecksRequest))


def held(ctx: Context, tenant: str, asked: Check | ChecksRequest, now_ms: int) -> bytes | None:
    """The answer as JSON when every verdict that it needs is in memory; else None, and nothing was counted."""
    if isinstance(asked, Check):
        one = ctx.checks.peek(tenant, asked, now_ms)
        return None if one is None else written(ctx, one, now_ms)
    peeked = [ctx.checks.peek(tenant, each, now_ms) for each in asked.checks]
    known = [each for each in peeked if each is not None]
    if len(known) < len(peeked):
        return None
    return _joined([written(ctx, each, now_ms) for each in known])


async def made(ctx: Context, tenant: str, asked: Check | ChecksRequest, now_ms: int) -> bytes:
    """The answer as JSON, whatever it takes; of a batch, the misses and the beats are made together.

    Raises GuardError(UNAVAILABLE).
    """
    if isinstance(asked, Check):
        return await _made(ctx, tenant, asked, now_ms)
    return _joined(await asyncio.gather(*(_made(ctx, tenant, each, now_ms) for each in asked.checks)))


async def _answer(request: web.Request, asked: Check | ChecksRequest) -> web.Response:
    ctx, tenant = context(request), asking(request).tenant
    now_ms = ctx.now_ms()
    answer = held(ctx, tenant, asked, now_ms) or await made(ctx, tenant, asked, now_ms)
    return written_reply(answer)


async def _made(ctx: Context, tenant: str, asked: Check, now_ms: int) -> bytes:
    known = ctx.checks.peek(tenant, asked, now_ms)
    if known is not None:
        return written(ctx, known, now_ms)
    verdict = await ctx.checks.decide(tenant, asked, now_ms)
    if verdict.code is None and not asked.explain:
        return plain(check_reply(verdict, explain=False))  # there is no time in it to be written out
    return encode(check_reply(verdict, explain=asked.explain))


def written(ctx: Context, known: Held, now_ms: int) -> bytes:
    """The bytes of a held verdict, written once."""
    ctx.checks.answered(known, now_ms)
    if known.body is None:
        known.body = encode(check_reply(known.verdict, explain=False))
    return known.body


def _joined(bodies: list[bytes]) -> bytes:
    return b'{"results":[' + b",".join(bodies) + b"]}"
