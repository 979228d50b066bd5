"""Proxies ask about the requests that pass through them: one adapter for each dialect, one judgement for all.

Only 204 (Envoy: 200) lets a request pass. 401 is a request without a usable
session, 403 one that is denied, 503 one that nobody could decide on. An answer
never needs the request's body, and carries every identity header that it
promises, so that none of the browser's own survives. See docs/proxies.md.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote

import msgspec
from aiohttp import web
from multidict import CIMultiDict

from accessguard.api.access import EVERY_TENANT
from accessguard.api.context import Context, context
from accessguard.api.forwarded import Dialect, Told, Trust, fields_of, host_of, told
from accessguard.api.identity import Asked, Unread, hopeful, identified, speaker
from accessguard.api.refusing import Refusal, refusing
from accessguard.api.reply import SAFE_HEADERS
from accessguard.api.speech import listening
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.memory import EXEMPT, Held
from accessguard.guard.model import Verdict
from accessguard.policies.proxying import identity_at, login_address
from accessguard.rules.model import Code, Outcome

AGAIN_MS: Final = 5_000
"""How long nobody asks again for settings that were not there, and a pass is good whose tenant its host says."""
STRANGERS: Final = {ErrorCode.FORBIDDEN: (403, "unknown_proxy"), ErrorCode.NOT_FOUND: (403, "unknown_host")}
"""What whoever is nobody's proxy is told."""
MOST_TRIED: Final = 1_000
NO_SESSION: Final = frozenset({Code.UNKNOWN_SESSION, Code.SESSION_ENDED, Code.SESSION_EXPIRED})
PLAIN: Final = "!#$&()*+./:=?@[]^_`{|}~-"
"""What an id keeps of itself in a header; all else, and above all `%`, is percent-encoded UTF-8 (RFC 3986, 2.1)."""


class Call(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The call itself: its first line, the socket's other end, and for whom the proxy speaks, until when (ms).

    `vouched`: a token said so, not the configuration, which knows nothing of who calls.
    """

    method: str
    target: str
    peer: str | None
    tenant: str
    vouched: bool
    until_ms: int
    own_authorization: bool


_loading: set[asyncio.Task[None]] = set()
_tried: dict[str, int] = {}


async def nginx(request: web.Request) -> web.Response:
    """Answer nginx's `auth_request`, or HAProxy.

    204 allows. 401, 403 and 503 come without a body, the reason in
    `AccessGuard-Reason`, where to send a browser in `Location`.
    """
    return await _answered(request, Dialect.NGINX)


async def traefik(request: web.Request) -> web.Response:
    """Answer Traefik's ForwardAuth; a browser is redirected or gets a page."""
    return await _answered(request, Dialect.TRAEFIK)


async def caddy(request: web.Request) -> web.Response:
    """Answer Caddy's `forward_auth`; a browser is redirected or gets a page."""
    return await _answered(request, Dialect.CADDY)


async def envoy(request: web.Request) -> web.Response:
    """Answer Envoy's `ext_authz` about the path behind the prefix; only 200 allows."""
    return await _answered(request, Dialect.ENVOY)


async def _answered(request: web.Request, dialect: Dialect) -> web.Response:
    ctx = context(request)
    fields = fields_of((name, _clean(value)) for name, value in request.headers.items())
    say = Told(
        method="", target="", host="", ip="", cookies="", user_agent="", accept="", authorization="", languages=None
    )
    try:
        if not ctx.hosts.known and by_host(ctx, fields):
            await _soon_enough(ctx, ctx.hosts.first())
        call = called(ctx, dialect, fields, (request.method, request.raw_path), request.remote)
        say = heard(ctx, dialect, fields, call)
        asked = await _asked(ctx, say, call.tenant)
        if asked is None:
            return _nobody(ctx, dialect, say, call.tenant)
        verdict = await judged(ctx, asked)
    except GuardError as error:
        status, reason = STRANGERS.get(error.code, (503, Code.UNDECIDED.value))
        return refusing(dialect, say, Refusal(status=status, reason=reason, detail=error.message))
    return _said(ctx, dialect, say, asked.tenant, verdict)


def by_host(ctx: Context, fields: Mapping[str, str]) -> bool:
    """Whether the host says for whom the proxy speaks. Raises GuardError(FORBIDDEN)."""
    return (speaker(ctx, fields)[0] or ctx.proxy_tenant) == EVERY_TENANT


def called(ctx: Context, dialect: Dialect, fields: Mapping[str, str], line: tuple[str, str], peer: str | None) -> Call:
    """Who calls.

    Raises GuardError(FORBIDDEN) for a proxy whose token is not good, or of which
    nobody says whose it is, NOT_FOUND for a host that is no tenant's, UNAVAILABLE.
    """
    said, until_ms, own = speaker(ctx, fields)
    tenant, vouched = said or ctx.proxy_tenant, said is not None
    if tenant is None:
        raise GuardError(ErrorCode.FORBIDDEN, "The proxy shows no token, and no tenant is configured for it.")
    if tenant == EVERY_TENANT:
        tenant, until_ms = ctx.hosts.owner(host_of(dialect, fields)), min(until_ms, ctx.now_ms() + AGAIN_MS)
    if tenant is None:
        raise GuardError(ErrorCode.NOT_FOUND, "No school has this host, or more than one says that it is theirs.")
    return Call(
        method=line[0],
        target=line[1],
        peer=peer,
        tenant=tenant,
        vouched=vouched,
        until_ms=until_ms,
        own_authorization=own,
    )


def heard(ctx: Context, dialect: Dialect, fields: Mapping[str, str], call: Call) -> Told:
    """What the proxy tells; a token of its own in `Authorization` is not the student's."""
    if call.own_authorization:
        fields = {name: value for name, value in fields.items() if name != "authorization"}
    trust = Trust(networks=ctx.trusted, unix=ctx.trust_unix, whole=call.vouched)
    return told(dialect, fields, (call.method, call.target), call.peer, trust)


async def _asked(ctx: Context, say: Told, tenant: str) -> Asked | None:
    """Whose request it is, after the settings were read where they had to be. Raises GuardError(UNAVAILABLE)."""
    if not hopeful(say):
        return None
    found = identified(ctx, say, tenant)
    if isinstance(found, Unread):
        await _soon_enough(ctx, ctx.book.policy(found.tenant))
        found = identified(ctx, say, tenant)
    return None if isinstance(found, Unread) else found


async def _soon_enough(ctx: Context, reading: Awaitable[object]) -> None:
    try:
        async with asyncio.timeout(ctx.checks.deadline_s):
            await reading
    except TimeoutError:
        raise GuardError(ErrorCode.UNAVAILABLE, "The tenant's settings cannot be read now.") from None


async def judged(ctx: Context, asked: Asked) -> Verdict:
    """The verdict, from memory, after the session's beat, or made anew. Raises GuardError(UNAVAILABLE)."""
    tenant, check, now_ms = asked.tenant, asked.check, ctx.now_ms()
    since = asyncio.get_running_loop().time()
    known = ctx.checks.about(tenant, check)
    if known is not None and ctx.checks.stands(known, check, now_ms):
        ctx.checks.answered(known, now_ms)
        return _theirs(asked, _verdict(known, check.session_id))
    goes_on = known is not None and ctx.checks.goes_on(known, now_ms)
    if known is not None and goes_on and await asyncio.shield(ctx.checks.beating(tenant, check, known, now_ms)):
        return _theirs(asked, _verdict(known, check.session_id))
    return _theirs(asked, await ctx.checks.decide(tenant, check, now_ms, 1, since))


def _verdict(known: Held, session_id: str) -> Verdict:
    if known.other is not None:
        return known.other.verdict
    return Verdict(
        outcome=Outcome.ALLOW,
        session_id=session_id,
        member_id=known.member.id,
        device_id=msgspec.json.decode(known.device),
        exempt=known.flags & EXEMPT != 0,
    )


def _theirs(asked: Asked, verdict: Verdict) -> Verdict:
    """The verdict, if the session is that of the member whom the platform's token names."""
    if asked.member_id is None or verdict.member_id in (None, asked.member_id):
        return verdict
    return Verdict(outcome=Outcome.DENY, session_id=None, code=Code.UNKNOWN_SESSION)


def _said(ctx: Context, dialect: Dialect, say: Told, tenant: str, verdict: Verdict) -> web.Response:
    if verdict.code is None and verdict.outcome is Outcome.ALLOW:
        headers = identity(
            tenant, verdict.member_id, verdict.session_id, str(verdict.device_id or ""), exempt=verdict.exempt
        )
        return web.Response(
            status=200 if dialect is Dialect.ENVOY else 204, headers=CIMultiDict([*headers, *SAFE_HEADERS.items()])
        )
    code = verdict.code or Code.UNDECIDED
    status = 401 if code in NO_SESSION else 503 if code is Code.UNDECIDED else 403
    location = _login(ctx, tenant, say) if status == 401 else None
    listener = listening(ctx, tenant, say.languages)
    return refusing(dialect, say, Refusal.of(status, verdict, code, listener, location))


def _nobody(ctx: Context, dialect: Dialect, say: Told, tenant: str) -> web.Response:
    """A request of nobody's: known from its own headers, at most with settings that are in memory."""
    location = _login(ctx, tenant, say)
    detail = "There is no session; log in first."
    return refusing(dialect, say, Refusal(status=401, reason="no_session", detail=detail, location=location))


def _login(ctx: Context, tenant: str, say: Told) -> str | None:
    """Where a browser logs in; read in the background, when the tenant's settings are not in memory, or have changed."""
    policy = ctx.book.last(tenant)
    if ctx.book.held(tenant) is None:
        _soon(ctx, tenant)
    if policy is None:
        return None
    known = identity_at(policy.settings.proxy, say.host)
    return login_address(known.login_url, say.target) if say.browser else None


def _soon(ctx: Context, tenant: str) -> None:
    """Read a tenant's settings for those who come after; not for each of many who have no session."""
    now_ms = ctx.now_ms()
    if now_ms - _tried.get(tenant, 0) < AGAIN_MS:
        return
    if len(_tried) >= MOST_TRIED:
        _tried.clear()
    _tried[tenant] = now_ms
    task = asyncio.create_task(_warmed(ctx, tenant))
    _loading.add(task)
    task.add_done_callback(_loading.discard)


async def _warmed(ctx: Context, tenant: str) -> None:
    with contextlib.suppress(GuardError):
        await ctx.book.policy(tenant)


def identity(
    tenant: str,
    member_id: str | None,
    session_id: str | None,
    device_id: str,
    *,
    exempt: bool,
) -> tuple[tuple[str, str], ...]:
    """The identity headers, all of them always; empty where there is nothing to say."""
    return (
        ("AccessGuard-Tenant", encoded(tenant)),
        ("AccessGuard-Member", encoded(member_id or "")),
        ("AccessGuard-Session", encoded(session_id or "")),
        ("AccessGuard-Device", device_id),
        ("AccessGuard-Exempt", "true" if exempt else "false"),
    )


@lru_cache(maxsize=16_384)
def encoded(name: str) -> str:
    """An id as a header carries it."""
    return quote(name, safe=PLAIN)


def _clean(value: str) -> str:
    """A header's text without bytes that are no UTF-8."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
