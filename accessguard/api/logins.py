"""Logins."""

from __future__ import annotations

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.idempotency import with_attempt_id
from accessguard.api.read import body
from accessguard.api.reply import reply
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
    verdict = await ctx.logins.login(tenant, asked, ctx.now_ms())
    return reply(login_reply(verdict, listening(ctx, tenant, request.headers.get("Accept-Language"))))
