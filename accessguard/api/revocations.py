"""Tokens that are refused before they end."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.idempotency import new_id
from accessguard.api.paging import page
from accessguard.api.read import body, path_id, query
from accessguard.api.reply import nothing, reply
from accessguard.api.wire import DeleteQuery, ListQuery, RevocationRequest
from accessguard.errors import ErrorCode, GuardError
from accessguard.events.revoked import Revocation, Revoked


async def listed(request: web.Request) -> web.StreamResponse:
    """List the tokens and callers that are refused, the newest first."""
    asked = query(request, ListQuery)
    ctx, tenant = context(request), asking(request).tenant

    async def fetch(
        after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[tuple[Revocation, tuple[datetime, UUID]]]:
        descending = asked.order == "desc"
        rows = await ctx.revocations.listed(tenant, after=after, limit=limit, descending=descending)
        return [(row, (row.at, row.id)) for row in rows]

    return await page(request, asked, Revocation, tuple[datetime, UUID], fetch)


async def create(request: web.Request) -> web.Response:
    """Refuse a token by its `jti`, or whatever a caller (`sub`) was given up to now, on every worker within 5 s.

    Meant are tokens that are bound to this tenant; a token for all tenants
    that names none here refuses those for all tenants. Of a caller, tokens
    issued (`iat`) later are good. Who signed in to the console with them is
    signed out. Raises INVALID (400) for neither of the two or both,
    CONFLICT (409) for one more than ten thousand.
    """
    asked = await body(request, RevocationRequest)
    kind, name = _which(asked)
    ctx, who = context(request), asking(request)
    made = await ctx.revoking.revoke(
        who.tenant,
        who.actor,
        kind,
        name,
        revocation_id=await new_id(request),
        expires_at=asked.expires_at if kind is Revoked.TOKEN else None,
        reason=asked.reason,
        now_ms=ctx.now_ms(),
    )
    return reply(made, status=201)


async def delete(request: web.Request) -> web.Response:
    """Refuse them no longer."""
    asked = query(request, DeleteQuery)
    ctx, who = context(request), asking(request)
    revocation_id = path_id(request, "revocation_id")
    await ctx.revoking.lift(who.tenant, who.actor, revocation_id, reason=asked.reason, now_ms=ctx.now_ms())
    return nothing()


def _which(asked: RevocationRequest) -> tuple[Revoked, str]:
    if (asked.token_id is None) is (asked.caller is None):
        raise GuardError(ErrorCode.INVALID, "Name a token by its `token_id`, or a `caller`: one of the two.")
    if asked.token_id is not None:
        return Revoked.TOKEN, asked.token_id
    return Revoked.CALLER, asked.caller or ""
