"""Sessions."""

from __future__ import annotations

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.keys import Role
from accessguard.api.read import body, path_text
from accessguard.api.reply import reply
from accessguard.api.wire import EndReply, EndRequest
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.facts import from_ms
from accessguard.sessions.history import SessionItem
from accessguard.sessions.live import Change


async def get(request: web.Request) -> web.Response:
    """Read one session."""
    await context(request).activity.flush()
    return reply(await _session(request))


async def end(request: web.Request) -> web.Response:
    """End a session: logout, a changed password, or the platform's own reason.

    A session that has already ended stays as it is.
    """
    asked = await body(request, EndRequest) if request.can_read_body else EndRequest()
    ended = await ended_now(request, asked)
    session = await _session(request)
    if not ended and session.status == "open":  # it was written in between: its login had waited for PostgreSQL
        ended = await ended_now(request, asked)
        session = await _session(request)
    if not ended and session.status == "ended":  # workers that cannot ask anybody need not know what ended it before
        await _announce(request, session.member_id, session.id)
    return reply(EndReply(ended=ended, session=session))


async def ended_now(request: web.Request, asked: EndRequest) -> bool:
    """Whether it was open and is not any more; whoever holds it is told."""
    ctx, who = context(request), asking(request)
    session_id = path_text(request, "session_id")
    if who.caller.role is Role.PLATFORM:
        at, by = from_ms(ctx.now_ms()), who.caller.subject
        member_id = await ctx.sessions.end(who.tenant, session_id, at=at, reason=asked.reason, by=by)
    else:
        end_session = ctx.operators.end_session
        member_id = await end_session(who.tenant, who.actor, session_id, reason=asked.reason, now_ms=ctx.now_ms())
    if member_id is not None:
        await _announce(request, member_id, session_id)
    return member_id is not None


async def _announce(request: web.Request, member_id: str, session_id: str) -> None:
    tenant = asking(request).tenant
    change = Change(tenant=tenant, kind="session_ended", member_id=member_id, session_ids=(session_id,), ended=True)
    await context(request).changes.announce(change)


async def _session(request: web.Request) -> SessionItem:
    ctx = context(request)
    session_id = path_text(request, "session_id")
    found = await ctx.history.session(asking(request).tenant, session_id, now=from_ms(ctx.now_ms()))
    if found is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such session.")
    return found
