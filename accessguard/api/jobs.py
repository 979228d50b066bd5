"""Work that takes longer than a call."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Final

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.keys import Role
from accessguard.api.read import path_id
from accessguard.api.reply import SAFE_HEADERS, reply
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.facts import from_ms
from accessguard.guard.reporting import ReportFile
from accessguard.jobs.model import Job, JobKind, JobState

SEEN: Final[Mapping[Role, Container[JobKind]]] = {
    Role.PLATFORM: frozenset({JobKind.IMPORT}),
    Role.SUPERVISOR: frozenset({JobKind.BULK, JobKind.REPORT}),
}
"""What a role that does not see all jobs sees."""


async def get(request: web.Request) -> web.Response:
    """Read how far a job is, and what came of it; the platform sees imports alone, a supervisor what it can ask for."""
    return reply(await seen(request))


async def result(request: web.Request) -> web.StreamResponse:
    """Fetch the file that a job has written; it is kept as long as the job is.

    Raises NOT_FOUND (404) for a job that leaves none, CONFLICT (409) when it is not done.
    """
    job, ctx, tenant = await seen(request), context(request), asking(request).tenant
    if job.kind is not JobKind.REPORT:
        raise GuardError(ErrorCode.NOT_FOUND, "This job leaves no file.")
    if job.state is not JobState.DONE:
        raise GuardError(ErrorCode.CONFLICT, f"The job is {job.state}, not done.")
    file = msgspec.convert(job.result, ReportFile)
    headers = {"Content-Type": file.content_type, "Content-Disposition": f'attachment; filename="{job.id}.csv"'}
    number, left, part = 0, file.bytes, await ctx.parts.get(tenant, job.id, 0)
    response = web.StreamResponse(headers=headers | SAFE_HEADERS)
    response.content_length = file.bytes  # whoever reads it knows whether it came to its end
    await response.prepare(request)
    while part is not None:
        await response.write(part)
        number, left, part = number + 1, left - len(part), await ctx.parts.get(tenant, job.id, number + 1)
    if left:
        response.force_close()
    await response.write_eof()
    return response


async def seen(request: web.Request) -> Job:
    """The job that the path names, for who may see it. Raises GuardError(NOT_FOUND)."""
    ctx, who = context(request), asking(request)
    found = await ctx.jobs.one(who.tenant, path_id(request, "job_id"), now=from_ms(ctx.now_ms()))
    if found is None or found.kind not in SEEN.get(who.caller.role, JobKind):
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such job.")
    return found
