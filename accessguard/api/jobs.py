"""Work that takes longer than a call."""

from __future__ import annotations

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.keys import Role
from accessguard.api.read import path_id
from accessguard.api.reply import reply
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.facts import from_ms
from accessguard.jobs.model import JobKind


async def get(request: web.Request) -> web.Response:
    """Read how far a job is, and what came of it; the platform sees imports alone."""
    ctx, who = context(request), asking(request)
    found = await ctx.jobs.one(who.tenant, path_id(request, "job_id"), now=from_ms(ctx.now_ms()))
    if found is None or (who.caller.role is Role.PLATFORM and found.kind is not JobKind.IMPORT):
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such job.")
    return reply(found)
