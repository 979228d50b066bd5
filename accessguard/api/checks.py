"""Checks: what both lanes answer, and the handlers of the ordinary one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec
from aiohttp import web

from accessguard.api.context import Context, asking, context
from accessguard.api.encoding import encode
from accessguard.api.read import body
from accessguard.api.reply import plain, written_reply
from accessguard.api.speech import Listener, language_of, listening
from accessguard.api.wire import ChecksRequest, check_reply
from accessguard.guard.memory import EXEMPT, Held
from accessguard.guard.model import Check
from accessguard.guard.question import TTL_MS
from accessguard.words.languages import accepted

Wish: TypeAlias = Callable[[], str | None]
"""The call's `Accept-Language`, looked for only when a refusal is to be written."""


async def check(request: web.Request) -> web.Response:
    """Ask whether a session may go on.

    Answers 200 for every decision. Raises INVALID (400), UNAVAILABLE (503).
    """
    return await _answer(request, await body(request, Check))


async def checks(request: web.Request) -> web.Response:
    """Ask for up to 500 sessions at once; the answers come in the order of the questions."""
    return await _answer(request, await body(request, ChecksRequest))


def held(ctx: Context, tenant: str, asked: Check | ChecksRequest, now_ms: int, wish: Wish) -> bytes | None:
    """The answer as JSON when every verdict that it needs is in memory; else None, and nothing was counted."""
    if isinstance(asked, Check):
        one = ctx.checks.peek(tenant, asked, now_ms)
        return None if one is None else written(ctx, one, asked.session_id, now_ms, wish)
    known = ctx.checks.peek_all(tenant, asked.checks, now_ms)
    if None in known:
        return None
    pairs = zip(known, asked.checks, strict=True)
    return joined([written(ctx, each, one.session_id, now_ms, wish) for each, one in pairs if each is not None])


async def made(ctx: Context, tenant: str, asked: Check | ChecksRequest, now_ms: int, wish: Wish) -> bytes:
    """The answer as JSON, whatever it takes; of a batch, the misses and the beats are made together.

    Raises GuardError(UNAVAILABLE).
    """
    if isinstance(asked, Check):
        return await _made(ctx, tenant, asked, now_ms, wish)
    return joined(await _all_made(ctx, tenant, asked.checks, now_ms, wish))


async def _answer(request: web.Request, asked: Check | ChecksRequest) -> web.Response:
    ctx, tenant = context(request), asking(request).tenant
    now_ms = ctx.now_ms()
    header = request.headers.get("Accept-Language")
    answer = held(ctx, tenant, asked, now_ms, lambda: header) or await made(ctx, tenant, asked, now_ms, lambda: header)
    return written_reply(answer)


async def _made(ctx: Context, tenant: str, asked: Check, now_ms: int, wish: Wish, *, company: int = 1) -> bytes:
    known, since = ctx.checks.about(tenant, asked), asyncio.get_running_loop().time()
    if known is not None:
        if ctx.checks.stands(known, asked, now_ms):
            return written(ctx, known, asked.session_id, now_ms, wish)
        if ctx.checks.goes_on(known, now_ms) and await asyncio.shield(ctx.checks.beating(tenant, asked, known, now_ms)):
            return plainly(known, asked.session_id)
    return await decided(ctx, tenant, asked, now_ms, wish, company=company, since=since)


async def _all_made(ctx: Context, tenant: str, asked: Sequence[Check], now_ms: int, wish: Wish) -> list[bytes]:
    """The answers in the order of asking: those from memory, then those that only want a beat, then the rest together.

    A task is made only for what has to be decided anew.
    """
    since = asyncio.get_running_loop().time()
    answers: dict[int, bytes] = {}
    beats: dict[int, tuple[Held, asyncio.Future[bool]]] = {}
    for place, each in enumerate(asked):
        known = ctx.checks.about(tenant, each)
        if known is not None and ctx.checks.stands(known, each, now_ms):
            answers[place] = written(ctx, known, each.session_id, now_ms, wish)
        elif known is not None and ctx.checks.goes_on(known, now_ms):
            beats[place] = (known, ctx.checks.beating(tenant, each, known, now_ms))
    await asyncio.shield(asyncio.gather(*(beat for _, beat in beats.values())))
    for place, (known, beat) in beats.items():
        if beat.result():
            answers[place] = plainly(known, asked[place].session_id)
    rest = [place for place in range(len(asked)) if place not in answers]
    company = len(asked)
    made = await asyncio.gather(
        *(decided(ctx, tenant, asked[place], now_ms, wish, company=company, since=since) for place in rest)
    )
    answers.update(zip(rest, made, strict=True))
    return [answers[place] for place in range(len(asked))]


async def decided(
    ctx: Context,
    tenant: str,
    asked: Check,
    now_ms: int,
    wish: Wish,
    *,
    company: int = 1,
    since: float | None = None,
) -> bytes:
    """The answer as JSON, decided anew. Raises GuardError(UNAVAILABLE).

    `company` is how many are asked together, `since` when the wait for a beat began that came to nothing (the loop's time).
    """
    verdict = await ctx.checks.decide(tenant, asked, now_ms, company, since)
    if verdict.code is None and not asked.explain:
        return plain(check_reply(verdict, explain=False))  # there is no time in it to be written out
    return encode(check_reply(verdict, explain=asked.explain, listener=listening(ctx, tenant, wish())))


def written(ctx: Context, known: Held, session_id: str, now_ms: int, wish: Wish) -> bytes:
    """The bytes of a held verdict, and that it was given; a refusal is written once in each language."""
    ctx.checks.answered(known, now_ms)
    other = known.other
    if other is None:
        return plainly(known, session_id)
    policy = known.policy
    listener = Listener(
        settings=policy.settings, accepted=accepted(wish()), tenant=policy.tenant, pages=ctx.pages, now_ms=now_ms
    )
    language = language_of(other.verdict, listener) if other.verdict.code else ""
    body = other.bodies.get(language)
    if body is None:
        body = other.bodies[language] = encode(check_reply(other.verdict, explain=False, listener=listener))
    return body


def plainly(known: Held, session_id: str) -> bytes:
    """The bytes of a plain allow: what `check_reply` makes of it, put together from its three ids."""
    end = EXEMPTED if known.flags & EXEMPT else ALLOWED
    return b"".join((MEMBER, JSON_OF(known.member.id), SESSION, JSON_OF(session_id), DEVICE, known.device, end))


MEMBER: Final = b'{"decision":"allow","reason":null,"member_id":'
SESSION: Final = b',"session_id":'
DEVICE: Final = b',"device_id":'
ALLOWED: Final = b',"exempt":false,"degraded":false,"ttl_ms":%d,"violation_id":null}' % TTL_MS
EXEMPTED: Final = b',"exempt":true,"degraded":false,"ttl_ms":%d,"violation_id":null}' % TTL_MS
JSON_OF: Final = msgspec.json.Encoder().encode


def joined(bodies: Sequence[bytes]) -> bytes:
    """The answer to a batch, of those to its questions."""
    return b'{"results":[' + b",".join(bodies) + b"]}"
