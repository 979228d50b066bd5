"""Work that takes longer than a call."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.keys import Role
from accessguard.api.read import path_id
from accessguard.api.reply import reply
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.facts import from_ms
from accessguard.jobs.model import JobKind

SEEN: Final[Mapping[Role, Container[JobKind]]] = {
    Role.PLATFORM: frozenset({JobKind.IMPORT}),
    Role.SUPERVISOR: frozenset({JobKind.BULK}),
}
"""What a role that does not see all jobs sees."""


async def get(request: web.Request) -> web.Response:
    """Read how far a job is, and what came of it; the platform sees imports alone, a supervisor what it can ask for."""
    ctx, who = context(request), asking(request)
    found = await ctx.jobs.one(who.tenant, path_id(request, "job_id"), now=from_ms(ctx.now_ms()))
    if found is None or found.kind not in SEEN.get(who.caller.role, JobKind):
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such job.")
    return reply(found)
