"""Whose request a proxy asks about: by the session cookie of this service, or by the platform's own token."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec

from accessguard.api.access import EVERY_TENANT, bearer
from accessguard.api.context import Context
from accessguard.api.forwarded import Told, cookies
from accessguard.api.keys import Role
from accessguard.devices.cookie import BASE_NAME as DEVICE
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.model import Check
from accessguard.policies.model import Settings
from accessguard.policies.proxying import JwtIdentity, identity_at, paths_of
from accessguard.sessions.token import SessionClaim

SESSION: Final = "ag_session"
PROXYS_TOKEN: Final = "accessguard-token"  # noqa: S105 - the name of a header
OURS: Final = "v1."
THEIRS: Final = "eyJ"
"""How a session token of this service begins, and any JWT (the base64 of `{"`)."""


class Asked(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The check that a request comes to; `member_id` is whom the platform's token names, None where none did."""

    tenant: str
    check: Check
    member_id: str | None = None
    until_ms: int = 1 << 60


class Unread(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The tenant whose settings have to be read before more can be said."""

    tenant: str


Found: TypeAlias = Asked | Unread | None


def speaker(ctx: Context, fields: Mapping[str, str]) -> tuple[str | None, int, bool]:
    """The tenant that the proxy's token is bound to, until when (ms), and whether the token stood in `Authorization`.

    None without one: what stands in `Authorization` may be the student's own.
    A token for all tenants is "*", and counts in the header of its own alone: the
    host says which, and a browser names no other. Raises GuardError(FORBIDDEN) for a token in the header of its own that is not good.
    """
    own = fields.get(PROXYS_TOKEN)
    token = own or bearer(fields.get("authorization"))
    if not token:
        return None, 1 << 60, False
    try:
        caller = ctx.keyring.verify(token, now=ctx.now_ms() / 1000)
    except GuardError:
        caller = None
    if caller is None or caller.role is not Role.PLATFORM or (caller.tenant == EVERY_TENANT and not own):
        if own:
            raise GuardError(ErrorCode.FORBIDDEN, "The proxy's token is not one of a platform.")
        return None, 1 << 60, False
    return caller.tenant, caller.expires_at * 1000, own is None


def hopeful(told: Told) -> bool:
    """Whether anything in the request looks like a session; without, nobody is asked."""
    if bearer(told.authorization):
        return True
    return any(value.startswith((OURS, THEIRS)) for _, value in cookies(told.cookies))


def identified(ctx: Context, told: Told, tenant: str) -> Found:
    """Whose request it is at this tenant, as far as memory tells; None for nobody's."""
    policy = ctx.book.last(tenant)
    if policy is None:
        return Unread(tenant=tenant)
    known = identity_at(policy.settings.proxy, told.host)
    if known.identity == "jwt":
        return _by_token(ctx, told, tenant, policy.settings, known.jwt)
    claim = _claim(ctx, told, tenant, known.cookie or policy.settings.cookie.prefix + SESSION)
    if claim is None:
        return None
    return Asked(tenant=tenant, check=_check(told, tenant, policy.settings, claim.session_id))


def _claim(ctx: Context, told: Told, tenant: str, cookie: str) -> SessionClaim | None:
    """The one session that the cookies name; of two under the right name none is believed, as one may be planted."""
    found: SessionClaim | None = None
    for name, value in cookies(told.cookies):
        claim = ctx.session_tokens.read(value) if name == cookie and value.startswith(OURS) else None
        if claim is None or claim.tenant != tenant:
            continue
        if found is not None and found != claim:
            return None
        found = claim
    return found


def _by_token(ctx: Context, told: Told, tenant: str, settings: Settings, said: JwtIdentity | None) -> Asked | None:
    token = None if said is None else _token(told, said)
    if said is None or not token:
        return None
    named = ctx.platform_tokens.read(said, token, ctx.now_ms() / 1000)
    if named is None:
        return None
    check = _check(told, tenant, settings, named.session_id)
    return Asked(tenant=tenant, check=check, member_id=named.member_id, until_ms=int(named.until_s * 1000))


def _token(told: Told, said: JwtIdentity) -> str:
    if said.cookie is None:
        return bearer(told.authorization)
    found = {value for name, value in cookies(told.cookies) if name == said.cookie}
    return found.pop() if len(found) == 1 else ""


def _check(told: Told, tenant: str, settings: Settings, session_id: str) -> Check:
    meant = paths_of(tenant, settings.proxy).meaning(told.method, told.path)
    device = settings.cookie.prefix + DEVICE
    return Check(
        session_id=session_id,
        ip=told.ip,
        user_agent=told.user_agent or None,
        device_token=next((value for name, value in cookies(told.cookies) if name == device), None),
        activity=meant.kind if meant else None,
        resource=meant.resource if meant else None,
        product_id=meant.product_id if meant else None,
    )
