"""Who is signed in to the console: one's own browsers, and for administrators everybody's."""

from __future__ import annotations

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.read import path_id
from accessguard.console.door import COOKIE, SIGN_IN, see_other
from accessguard.console.forms import form, text
from accessguard.console.pen import SESSION, page
from accessguard.errors import ErrorCode, GuardError


async def account(request: web.Request) -> web.StreamResponse:
    """Who is signed in here, where else, and the ways out."""
    ctx, who = context(request), asking(request)
    found = await ctx.entrance.signed_in(who.tenant, who.caller.subject, now_ms=ctx.now_ms())
    return page(request, "account.html", {"sessions": found, "own": request[SESSION].id})


async def end_own(request: web.Request) -> web.StreamResponse:
    """Sign out in one of one's own browsers."""
    ctx, who, session_id = context(request), asking(request), path_id(request, "session_id")
    for each in await ctx.entrance.signed_in(who.tenant, who.caller.subject, now_ms=ctx.now_ms()):
        if each.id == session_id:
            await ctx.entrance.leave(each)
            return see_other("/console/account?done=signed_out")
    raise GuardError(ErrorCode.NOT_FOUND, "There is no such session.")


async def listed(request: web.Request) -> web.StreamResponse:
    """Every operator who is signed in, and in how many browsers."""
    ctx, tenant = context(request), asking(request).tenant
    found = await ctx.entrance.signed_in(tenant, None, now_ms=ctx.now_ms())
    return page(request, "operators.html", {"sessions": found, "own": request[SESSION].id})


async def show_out(request: web.Request) -> web.StreamResponse:
    """Sign an operator out everywhere; whoever has a token that is good can come back with it."""
    sent, ctx, who = await form(request), context(request), asking(request)
    operator = text(sent, "operator")
    if not operator or "\0" in operator:
        raise GuardError(ErrorCode.INVALID, "Say which operator.")
    reason = text(sent, "reason") or None
    await ctx.entrance.show_out(who.tenant, who.actor, operator, reason=reason, now_ms=ctx.now_ms())
    if operator != who.caller.subject:
        return see_other("/console/operators?done=shown_out")
    response = see_other(SIGN_IN)
    response.set_cookie(COOKIE, "", max_age=0, path="/", secure=True, httponly=True, samesite="Strict")
    return response
