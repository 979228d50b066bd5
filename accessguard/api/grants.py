"""What members are granted: enrolments and passes."""

from __future__ import annotations

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.idempotency import new_id
from accessguard.api.read import body, path_text, query
from accessguard.api.reply import nothing, reply
from accessguard.api.wire import DeleteQuery, EnrolmentRequest, PassRequest
from accessguard.guard.facts import from_ms
from accessguard.members.model import Enrolment, Pass


async def enrol(request: web.Request) -> web.Response:
    """Make or replace an enrolment; the same content again changes nothing. A member that is unknown comes into being."""
    asked = await body(request, EnrolmentRequest)
    ctx, who = context(request), asking(request)
    said = {name: value for name, value in msgspec.structs.asdict(asked).items() if name != "reason"}
    enrolment = Enrolment(product_id=path_text(request, "product_id"), updated_at=from_ms(ctx.now_ms()), **said)
    member_id = path_text(request, "member_id")
    return reply(await ctx.grants.enrol(who.tenant, who.actor, member_id, enrolment, reason=asked.reason))


async def withdraw(request: web.Request) -> web.Response:
    """Take an enrolment away; its history stays."""
    asked = query(request, DeleteQuery)
    ctx, who = context(request), asking(request)
    member_id, product_id = path_text(request, "member_id"), path_text(request, "product_id")
    await ctx.grants.withdraw(who.tenant, who.actor, member_id, product_id, reason=asked.reason, now_ms=ctx.now_ms())
    return nothing()


async def give_pass(request: web.Request) -> web.Response:
    """Give a member one more device or session, or suspend its checks, until a time; it ends by itself.

    Raises CONFLICT (409) when the member holds 20 passes already.
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
