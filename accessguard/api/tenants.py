"""The tenants of an installation."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from aiohttp import web

from accessguard.api.access import EVERY_TENANT, TENANT_HEADER, named_tenant
from accessguard.api.context import asking, context
from accessguard.api.idempotency import new_id
from accessguard.api.keys import Role
from accessguard.api.paging import page
from accessguard.api.read import Paging, body, path_text, query
from accessguard.api.reply import reply
from accessguard.api.wire import (
    TenantDeleteQuery,
    TenantDeletion,
    TenantPatch,
    TenantReply,
    TenantRequest,
)
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.tenants import TenantChange
from accessguard.policies.tenants import TenantRecord


async def listed(request: web.Request) -> web.StreamResponse:
    """List the tenants of this installation; for a token bound to one, and for every administrator, that one and those below it."""
    asked = query(request, Paging)
    ctx, own = context(request), await _own(request)

    async def fetch(after: tuple[str, ...] | None, limit: int) -> Sequence[tuple[TenantReply, tuple[str, ...]]]:
        place, store = after[0] if after else None, ctx.tenant_store
        if own == EVERY_TENANT:
            rows = await store.listed(after=place, limit=limit)
        else:
            rows = await store.family(own, after=place, limit=limit)
        return [(_reply(row), (row.tenant,)) for row in rows]

    return await page(request, asked, TenantReply, tuple[str, ...], fetch)


async def create(request: web.Request) -> web.Response:
    """Make a tenant; making it again changes nothing.

    A token bound to a tenant makes no other. Raises INVALID (400) for a parent
    that cannot be, CONFLICT (409) for one
    that was deleted.
    """
    asked = await body(request, TenantRequest)
    await _check_own(request, asked.tenant)
    await new_id(request)  # refuses a key that came with another tenant before
    ctx, name = context(request), asked.name or asked.tenant
    actor = asking(request).actor
    await ctx.tenancy.create_tenant(actor, asked.tenant, name, reason=asked.reason, now_ms=ctx.now_ms())
    return reply(await _tenant(request, asked.tenant), status=201)


async def get(request: web.Request) -> web.Response:
    """Read one tenant."""
    tenant = path_text(request, "tenant")
    await _check_own(request, tenant)
    return reply(await _tenant(request, tenant))


async def patch(request: web.Request) -> web.Response:
    """Rename a tenant, suspend it, or give it a parent, whose tokens may then act for it.

    A suspended tenant's tokens are answered as if there were no such tenant.
    Raises INVALID (400) for a parent that cannot be.
    """
    asked = await body(request, TenantPatch)
    ctx, tenant = context(request), path_text(request, "tenant")
    await _check_own(request, tenant)
    if isinstance(asked.parent, str):
        await _check_own(request, asked.parent)
    change = TenantChange(**{name: getattr(asked, name) for name in TenantChange.__struct_fields__})
    changed = await ctx.tenants.change(asking(request).actor, tenant, change, reason=asked.reason, now_ms=ctx.now_ms())
    return reply(_reply(changed))


async def delete(request: web.Request) -> web.Response:
    """Delete a tenant with all that it has, in two calls: the first answers a token, the second one shows it.

    From the second on its tokens are answered as if there were no such tenant,
    for good; what it has goes in portions, and until all is gone it is listed
    as `deleting`. Raises INVALID (400) for a confirmation that was not given for this,
    CONFLICT (409) while it has children.
    """
    asked = query(request, TenantDeleteQuery)
    ctx, tenant, actor = context(request), path_text(request, "tenant"), asking(request).actor
    await _check_own(request, tenant)
    if asked.confirmation is None:
        token, members = await ctx.tenants.ask_to_delete(actor, tenant, now_ms=ctx.now_ms())
        return reply(TenantDeletion(confirmation=token.token, expires_at=token.expires_at, members=members))
    closed = await ctx.tenants.delete(actor, tenant, asked.confirmation, reason=asked.reason, now_ms=ctx.now_ms())
    return reply(_reply(closed), status=202)


async def _own(request: web.Request) -> str:
    """Whose family is listed; all of them for a root of all tenants. Raises GuardError(NOT_FOUND) for one that is not open."""
    caller = asking(request).caller
    if caller.role is Role.ROOT:
        return caller.tenant
    own = named_tenant(caller, request.headers.get(TENANT_HEADER))
    if await context(request).book.best(own) is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such tenant.")
    return own


async def _check_own(request: web.Request, tenant: str) -> None:
    """Refuse a tenant that is neither the token's own nor below it. Raises GuardError(FORBIDDEN), known or not."""
    own = asking(request).caller.tenant
    if own != EVERY_TENANT and not await context(request).tenant_store.within(tenant, own):
        raise GuardError(ErrorCode.FORBIDDEN, "Your token is for another tenant.")


async def _tenant(request: web.Request, name: str) -> TenantReply:
    found = await context(request).tenant_store.one(name)
    if found is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such tenant.")
    return _reply(found)


def _reply(record: TenantRecord) -> TenantReply:
    return TenantReply(**msgspec.structs.asdict(record))
