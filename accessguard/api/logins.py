"""Logins."""

from __future__ import annotations

import msgspec
from aiohttp import web

from accessguard.api.checks import Wish
from accessguard.api.context import Context, asking, context
from accessguard.api.encoding import encode
from accessguard.api.idempotency import with_attempt_id
from accessguard.api.read import body
from accessguard.api.reply import plain, written_reply
from accessguard.api.speech import ANYBODY, listening
from accessguard.api.wire import login_reply
from accessguard.guard.facts import time_text
from accessguard.guard.model import Login, LoginOutcome, LoginVerdict


async def record(request: web.Request) -> web.Response:
    """Record one login attempt and decide on it.

    Raises INVALID (400) for a success of nobody or with a host that is not in use, CONFLICT (409), UNAVAILABLE (503).
    """
    asked = await body(request, Login)
    asked = await with_attempt_id(request, asked)
    ctx, tenant = context(request), asking(request).tenant
    return written_reply(await made(ctx, tenant, asked, ctx.now_ms(), lambda: request.headers.get("Accept-Language")))


async def made(ctx: Context, tenant: str, asked: Login, now_ms: int, wish: Wish) -> bytes:
    """The answer as JSON; `wish` is the caller's Accept-Language. Raises GuardError: CONFLICT, INVALID, NOT_FOUND, THROTTLED, UNAVAILABLE."""
    ctx.bounds.attempt(tenant, asked.member_id, failed=asked.outcome is LoginOutcome.FAILURE)
    verdict = await ctx.logins.login(tenant, asked, now_ms)
    if verdict.refusal is None:
        return admitted(verdict)
    return encode(login_reply(verdict, listening(ctx, tenant, wish())))


class WrittenSession(msgspec.Struct, frozen=True, kw_only=True):
    """A session of an answer, its end as text."""

    id: str
    token: str
    expires_at: str


def admitted(verdict: LoginVerdict) -> bytes:
    """What `encode` makes of it; the one time in it is written by itself, which is a tenth of the work."""
    said, session = login_reply(verdict, ANYBODY), verdict.session
    if session is None:
        return plain(said)
    written = WrittenSession(id=session.id, token=session.token, expires_at=time_text(session.expires_at))
    return plain(msgspec.structs.replace(said, session=written))
