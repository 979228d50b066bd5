"""Signing in and out: by a link of the platform, by a token that is pasted; and who is let through."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from typing import Final
from urllib.parse import quote

from aiohttp import web

from accessguard.api.access import EVERY_TENANT, ensure_tenant
from accessguard.api.context import ASKING, Asking, asking, context
from accessguard.api.keys import Caller, Role
from accessguard.console.forms import form, text
from accessguard.console.pen import SESSION, page
from accessguard.console.shield import from_here
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.entrance import Entered
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.words.catalogues import word

COOKIE: Final = "__Host-ag_console"
HOME: Final = "/console/"
SIGN_IN: Final = "/console/sign-in"


async def admitted(request: web.Request) -> bool:
    """Whether somebody is signed in; who it is, is put on the request."""
    ctx = context(request)
    session = await ctx.entrance.present(request.cookies.get(COOKIE), now_ms=ctx.now_ms())
    if session is None or await ctx.book.best(session.tenant) is None:
        return False
    caller = Caller(
        subject=session.operator,
        role=Role(session.role),
        tenant=session.tenant,
        expires_at=int(session.ends_at.timestamp()),
        token_id=None,
    )
    request[SESSION], request[ASKING] = session, Asking(caller=caller, tenant=session.tenant)
    return True


async def in_turn(request: web.Request, *, lasting: bool) -> contextlib.AbstractContextManager[None]:
    """While a page is made, which counts among its operator's calls; one that stays open (`lasting`) is not under way. Raises GuardError(THROTTLED)."""
    bounds, caller = context(request).bounds, asking(request).caller
    await asyncio.sleep(bounds.take(caller, check=False))
    return contextlib.nullcontext() if lasting else bounds.at_once(caller)


async def asked_here(request: web.Request) -> None:
    """Refuse a form that no page of this session made. Raises GuardError(FORBIDDEN)."""
    from_here(request)
    sent = text(await form(request), "form")
    if not context(request).entrance.is_form_of(request[SESSION], sent):
        raise GuardError(ErrorCode.FORBIDDEN, "This form is too old. Open the page again.")


def to_sign_in(request: web.Request) -> web.Response:
    """Send somebody to sign in, and back afterwards."""
    wanted = request.rel_url.raw_path_qs if request.method == "GET" else HOME
    return see_other(f"{SIGN_IN}?next={quote(wanted, safe='')}")


async def sign_in_page(request: web.Request) -> web.StreamResponse:
    """Where a token is pasted."""
    return page(request, "sign_in.html", {"next": inside(request.query.get("next")), "problem": None})


async def sign_in(request: web.Request) -> web.StreamResponse:
    """Begin a session for who pastes a token; a token for all tenants names one."""
    from_here(request)
    sent = await form(request)
    onward = inside(text(sent, "next"))
    try:
        entered = await _by_token(request, text(sent, "token"), text(sent, "tenant"))
    except GuardError as error:
        if error.code is ErrorCode.UNAVAILABLE:
            raise
        return page(request, "sign_in.html", {"next": onward, "problem": error.message}, status=403)
    return _with_cookie(see_other(onward), entered)


async def enter_page(request: web.Request) -> web.StreamResponse:
    """What a link leads to: a button, as a strict cookie is not sent back along a way that began elsewhere.

    Whatever looks at links before people do (a mail filter) does not use it up.
    """
    token = request.query.get("t")
    tenant = context(request).entrance.offered(token)
    if token is None or tenant is None:
        return _void(request)
    shown = {"token": token, "tenant": tenant, "next": inside(request.query.get("next"))}
    return page(request, "enter.html", shown)


async def enter(request: web.Request) -> web.StreamResponse:
    """Use a link."""
    from_here(request)
    sent, ctx = await form(request), context(request)
    entered = await ctx.entrance.enter(text(sent, "t"), now_ms=ctx.now_ms())
    if entered is None:
        return _void(request)
    return _with_cookie(see_other(inside(text(sent, "next"))), entered)


async def sign_out(request: web.Request) -> web.StreamResponse:
    """End the session of this browser, or with `everywhere` all of the operator's."""
    ctx, session = context(request), request[SESSION]
    if text(await form(request), "everywhere"):
        await ctx.entrance.leave_everywhere(session, now_ms=ctx.now_ms())
    await ctx.entrance.leave(session)
    response = see_other(SIGN_IN)
    response.set_cookie(COOKIE, "", max_age=0, path="/", secure=True, httponly=True, samesite="Strict")
    return response


def see_other(where: str) -> web.Response:
    """Send the browser on with a GET (RFC 9110, 15.4.4)."""
    return web.Response(status=303, headers={"Location": where})


def inside(where: str | None) -> str:
    """A page of the console, whatever was asked for; a browser takes a backslash for `/`, and drops what is not printed.

    Nor does one that steps up (`..`, `%2e%2e`) come to another page of the host.
    """
    if where is None or not where.startswith(HOME) or not where.isascii() or not where.isprintable() or "\\" in where:
        return HOME
    return HOME if ".." in where.partition("?")[0].lower().replace("%2e", ".").split("/") else where


async def _by_token(request: web.Request, token: str, named: str) -> Entered:
    ctx = context(request)
    caller = ctx.keyring.verify(token.strip(), now=ctx.now_ms() / 1000)
    if caller.role is Role.PLATFORM:
        raise GuardError(ErrorCode.FORBIDDEN, "This token is the platform's, not an operator's.")
    tenant = named.strip() if caller.tenant == EVERY_TENANT else caller.tenant
    if not 0 < len(tenant) <= 128 or not tenant.isprintable():
        raise GuardError(ErrorCode.INVALID, "This token is for all schools: say which one.")
    await ensure_tenant(ctx, caller, tenant)
    actor = Actor(subject=caller.subject, role=caller.role)
    until: datetime = from_ms(caller.expires_at * 1000)
    return await ctx.entrance.begin(tenant, actor, until=until, now_ms=ctx.now_ms(), token_id=caller.token_id)


def _void(request: web.Request) -> web.Response:
    problem = word("This link was used already, or it is too old. Ask for another one.")
    return page(request, "sign_in.html", {"next": HOME, "problem": problem}, status=403)


def _with_cookie(response: web.Response, entered: Entered) -> web.Response:
    """`__Host-`: of this host alone, over TLS, for every path (RFC 6265bis, 4.1.3.2); gone with the browser."""
    response.set_cookie(COOKIE, entered.token, path="/", secure=True, httponly=True, samesite="Strict")
    return response
