"""What members are granted: enrolments and passes."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.idempotency import new_id
from accessguard.api.paging import page
from accessguard.api.read import body, path_text, query
from accessguard.api.reply import nothing, reply
from accessguard.api.wire import DeleteQuery, EnrolmentRequest, EnrolmentsQuery, PassRequest
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.facts import from_ms
from accessguard.members.model import Enrolment, EnrolmentLine, Pass


async def enrol(request: web.Request) -> web.Response:
    """Make or replace an enrolment; the same content again changes nothing. A member that is unknown comes into being.

    Raises INVALID (400) for times that contradict each other or the status.
    """
    asked = await body(request, EnrolmentRequest)
    ctx, who = context(request), asking(request)
    said = {name: value for name, value in msgspec.structs.asdict(asked).items() if name != "reason"}
    enrolment = Enrolment(product_id=path_text(request, "product_id"), updated_at=from_ms(ctx.now_ms()), **said)
    member_id = path_text(request, "member_id")
    return reply(await ctx.grants.enrol(who.tenant, who.actor, member_id, enrolment, reason=asked.reason))


async def enrolments(request: web.Request) -> web.StreamResponse:
    """List the enrolments of a member as they stand now, withdrawn ones too, each with its history.

    Who enrolled, deactivated, froze and reactivated, when and why.
    """
    asked = query(request, EnrolmentsQuery)
    ctx, tenant, member_id = context(request), asking(request).tenant, path_text(request, "member_id")
    if not await ctx.members.exists(tenant, member_id):
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")

    async def fetch(after: tuple[str, ...] | None, limit: int) -> Sequence[tuple[EnrolmentLine, tuple[str, ...]]]:
        now, place = from_ms(ctx.now_ms()), after[0] if after else None
        rows = await ctx.enrolments.lines(tenant, member_id, now=now, after=place, limit=limit)
        return [(row, (row.product_id,)) for row in rows]

    return await page(request, asked, EnrolmentLine, tuple[str, ...], fetch)


async def withdraw(request: web.Request) -> web.Response:
    """Take an enrolment away; its history stays."""
    asked = query(request, DeleteQuery)
    ctx, who = context(request), asking(request)
    member_id, product_id = path_text(request, "member_id"), path_text(request, "product_id")
    await ctx.grants.withdraw(who.tenant, who.actor, member_id, product_id, reason=asked.reason, now_ms=ctx.now_ms())
    return nothing()


async def give_pass(request: web.Request) -> web.Response:
    """Give a member one more device or session, or suspend its checks, until a time; it ends by itself.

    Raises INVALID (400) for a time that is over or more than a year ahead,
    CONFLICT (409) when the member holds 20 passes already.
    """
    asked = await body(request, PassRequest)
    ctx, who, member_id = context(request), asking(request), path_text(request, "member_id")
    given = Pass(
        id=await new_id(request),
        kind=asked.kind,
        until=asked.until,
        reason=asked.reason,
        own=False,
        created_at=from_ms(ctx.now_ms()),
        created_by=who.caller.subject,
    )
    return reply(await ctx.grants.give_pass(who.tenant, who.actor, member_id, given), status=201)
