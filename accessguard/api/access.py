"""Who may call: the bearer token, the tenant it speaks for, the role a route asks for. Deny by default."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from accessguard.api.context import Asking, Context
from accessguard.api.keys import Caller, Role
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.tenants import DEEPEST

TENANT_HEADER: Final = "AccessGuard-Tenant"
EVERY_TENANT: Final = "*"
SCHEME: Final = "bearer "


async def admit(
    request: web.BaseRequest,
    ctx: Context,
    roles: frozenset[Role],
    *,
    installation: bool = False,
    everywhere: bool = False,
) -> Asking:
    """The caller, if its token is genuine and its role is one of `roles`.

    A call of the whole `installation` is about no tenant. A token bound to a
    tenant may name one of its children; one for all tenants need name none
    in a call that may be about `everywhere`.

    Raises GuardError: UNAUTHENTICATED, FORBIDDEN, INVALID for a token of all
    tenants that names none, NOT_FOUND for a tenant that does not exist.
    """
    caller = _certified(request, ctx) or ctx.keyring.verify(
        bearer(request.headers.get("Authorization")), now=ctx.now_ms() / 1000
    )
    if caller.role not in roles:
        raise GuardError(ErrorCode.FORBIDDEN, "Your role does not allow this.")
    if installation:
        return Asking(caller=caller, tenant=caller.tenant)
    header = request.headers.get(TENANT_HEADER)
    if everywhere and header is None and caller.tenant == EVERY_TENANT:
        return Asking(caller=caller, tenant=EVERY_TENANT)
    if header is not None and caller.tenant not in (EVERY_TENANT, header):
        return Asking(caller=caller, tenant=await _child(ctx, caller, header))
    tenant = named_tenant(caller, header)
    if ctx.book.held(tenant) is None:
        await ensure_tenant(ctx, caller, tenant)
    return Asking(caller=caller, tenant=tenant)


def _certified(request: web.BaseRequest, ctx: Context) -> Caller | None:
    """Whoever shows no token, but a certificate to the proxy. Raises GuardError(UNAUTHENTICATED) for one that is nobody's, or revoked."""
    if ctx.certificates is None or "Authorization" in request.headers:
        return None
    caller = ctx.certificates.caller(request)
    if caller is not None and not ctx.keyring.stands(caller):
        raise GuardError(ErrorCode.UNAUTHENTICATED, "This caller was revoked.")
    return caller


def bearer(header: str | None) -> str:
    """The token of an Authorization header, empty when there is none."""
    if header is None or header[: len(SCHEME)].lower() != SCHEME:
        return ""
    return header[len(SCHEME) :].strip()


def named_tenant(caller: Caller, header: str | None) -> str:
    """The tenant that a call is about. Raises GuardError FORBIDDEN or INVALID."""
    if caller.tenant != EVERY_TENANT:
        if header not in (None, caller.tenant):
            raise GuardError(ErrorCode.FORBIDDEN, "Your token is for another tenant.")
        return caller.tenant
    if header is None or not 0 < len(header) <= 128 or not header.isprintable():
        raise GuardError(ErrorCode.INVALID, f"A token for all tenants names one in the header {TENANT_HEADER}.")
    return header


async def ensure_tenant(ctx: Context, caller: Caller, tenant: str) -> None:
    """Make sure that the tenant is there; a token bound to it may bring it into being."""
    if await ctx.book.best(tenant) is not None:
        return
    may = ctx.provision_tenants and caller.tenant != EVERY_TENANT
    if not may or not await ctx.tenancy.provision(tenant, now_ms=ctx.now_ms()):
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such tenant.")


async def _child(ctx: Context, caller: Caller, tenant: str) -> str:
    """A tenant that the caller's own is a parent of. Raises GuardError(FORBIDDEN), the same for one that there is not."""
    own = await ctx.book.best(caller.tenant)
    policy = await ctx.book.best(tenant) if own is not None and 0 < len(tenant) <= 128 and "\0" not in tenant else None
    for _ in range(DEEPEST):
        if policy is None or policy.parent is None:
            break
        if policy.parent == caller.tenant:
            return tenant
        policy = await ctx.book.best(policy.parent)
    raise GuardError(ErrorCode.FORBIDDEN, "Your token is for another tenant.")
