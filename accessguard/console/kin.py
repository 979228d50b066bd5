"""More of a contact: who else uses a device, who has something in common with it, the support bundle, being part of another one."""

from __future__ import annotations

import msgspec
from aiohttp import web

from accessguard.api import card as api_card
from accessguard.api.bundle_text import written
from accessguard.api.context import asking, context
from accessguard.api.members import kin
from accessguard.api.preferences import MOST_BYTES
from accessguard.api.read import path_id, path_text
from accessguard.api.wire import MemberMergeRequest
from accessguard.console.door import see_other
from accessguard.console.forms import form, taken, text
from accessguard.console.pen import page, segment
from accessguard.console.shield import HEADERS
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.facts import from_ms


async def users(request: web.Request) -> web.StreamResponse:
    """The others who use the browser that a device is."""
    card, ctx, tenant = await api_card.shown(request), context(request), asking(request).tenant
    device_id = path_id(request, "device_id")
    device = await ctx.devices.one(tenant, card.member_id, device_id, now=from_ms(ctx.now_ms()))
    if device is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such device.")
    found = await ctx.related.of_device(tenant, card.member_id, device_id)
    return page(request, "card_users.html", {"card": card, "device": device, "users": found})


async def related(request: web.Request) -> web.StreamResponse:
    """Everybody with something in common, and why; from here two contacts are made one."""
    return page(request, "card_related.html", {"card": await api_card.shown(request), "found": await kin(request)})


async def merge(request: web.Request) -> web.StreamResponse:
    """Make the contact part of another one, once it is said twice."""
    sent, ctx, who = await form(request), context(request), asking(request)
    asked = taken(MemberMergeRequest, {"into": text(sent, "into").strip(), "reason": text(sent, "reason") or None})
    if not text(sent, "sure"):
        raise GuardError(ErrorCode.INVALID, "Say that you are sure: it cannot be undone.")
    await ctx.activity.flush()
    await ctx.folds.flush()
    member_id = path_text(request, "member_id")
    await ctx.union.merge(who.tenant, who.actor, member_id, asked.into, reason=asked.reason, now_ms=ctx.now_ms())
    return see_other(f"/console/contacts/~{segment(asked.into)}?done=union")


async def bundle(request: web.Request) -> web.StreamResponse:
    """What a help desk would ask the contact for, to be read, copied or kept as a file."""
    made = await api_card.bundled(request)
    return page(request, "card_bundle.html", {"card": await api_card.shown(request), "bundle": written(made)})


async def bundle_file(request: web.Request) -> web.StreamResponse:
    """The same as a file."""
    made = written(await api_card.bundled(request))
    headers = {**HEADERS, "Content-Disposition": 'attachment; filename="bundle.txt"'}
    return web.Response(text=made, content_type="text/plain", charset="utf-8", headers=headers)


async def remember(request: web.Request) -> web.StreamResponse:
    """Keep which changes this operator wants to see of every contact, until it says otherwise."""
    ctx, who, kind = context(request), asking(request), text(await form(request), "kind")
    kept = await ctx.preferences.one(who.tenant, who.caller.subject, api_card.REMEMBERED)
    value = {name: each for name, each in kept.value.items() if name != "kind"} | ({"kind": kind} if kind else {})
    if len(msgspec.json.encode(value)) > MOST_BYTES:
        raise GuardError(ErrorCode.INVALID, "The form was refused.")
    await ctx.preferences.put(who.tenant, who.caller.subject, api_card.REMEMBERED, value, at=from_ms(ctx.now_ms()))
    return see_other(f"/console/contacts/~{segment(path_text(request, 'member_id'))}/notes")
