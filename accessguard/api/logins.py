"""Logins."""

from __future__ import annotations

from aiohttp import web

from accessguard.api.checks import Wish
from accessguard.api.context import Context, asking, context
from accessguard.api.idempotency import with_attempt_id
from accessguard.api.read import body
from accessguard.api.reply import encode, written_reply
from accessguard.api.speech import listening
from accessguard.api.wire import login_reply
from accessguard.guard.model import Login


async def record(request: web.Request) -> web.Response:
    """Record one login attempt and decide on it.

    Raises INVALID (400), CONFLICT (409), UNAVAILABLE (503).
    """
    asked = await body(request, Login)
    asked = await with_attempt_id(request, asked)
    ctx, tenant = context(request), asking(request).tenant
    return written_reply(await made(ctx, tenant, asked, ctx.now_ms(), lambda: request.headers.get("Accept-Language")))


async def made(ctx: Context, tenant: str, asked: Login, now_ms: int, wish: Wish) -> bytes:
    """The answer as JSON; `wish` is the caller's Accept-Language. Raises GuardError: CONFLICT, INVALID, NOT_FOUND, UNAVAILABLE."""
    verdict = await ctx.logins.login(tenant, asked, now_ms)
    return encode(login_reply(verdict, listening(ctx, tenant, wish() if verdict.refusal else None)))
