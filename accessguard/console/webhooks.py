"""Webhooks: whom the school has told of what, what became of each message, and the secret that is shown once."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.paging import portion
from accessguard.api.read import Paging, path_id
from accessguard.api.webhooks import wish
from accessguard.api.wire import WebhookRequest
from accessguard.console.door import see_other
from accessguard.console.forms import form, taken, text, texts
from accessguard.console.lists import asked, link
from accessguard.console.pen import page
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.events.webhooks import Delivery, Webhook


async def listed(request: web.Request) -> web.StreamResponse:
    """All webhooks; their secrets are not shown again."""
    return await _page(request)


async def create(request: web.Request) -> web.StreamResponse:
    """Make one; the page that answers shows its secret, and no other page ever does."""
    sent, ctx, who = await form(request), context(request), asking(request)
    said: dict[str, object] = {
        "url": text(sent, "url").strip(),
        "events": texts(sent, "events"),
        "format": text(sent, "format") or "standard",
        "audience": text(sent, "audience").strip() or None,
        "digest": text(sent, "digest") or None,
        "reason": text(sent, "reason") or None,
    }
    try:
        wanted = taken(WebhookRequest, said)
        made, secret = await ctx.webhooks.create(
            who.tenant, who.actor, ctx.new_id(), wish(wanted), reason=wanted.reason
        )
    except GuardError as error:
        if error.code not in (ErrorCode.INVALID, ErrorCode.CONFLICT):
            raise
        problems = error.problems or (Problem(pointer="", detail=error.message),)
        return await _page(request, problems=problems, said=said)
    return await _page(request, made=made, secret=secret)


async def deliveries(request: web.Request) -> web.StreamResponse:
    """What was sent to one, and what waits, the newest first."""
    wanted, hook, ctx, tenant = asked(request, Paging), await _hook(request), context(request), asking(request).tenant

    async def fetch(after: tuple[int, ...] | None, limit: int) -> Sequence[tuple[Delivery, tuple[int, ...]]]:
        rows = await ctx.webhook_store.log(tenant, hook.id, after=after[0] if after else None, limit=limit)
        return [(row, (number,)) for row, number in rows]

    found, further = await portion(wanted, tuple[int, ...], fetch)
    shown = {
        "hook": hook,
        "deliveries": found,
        "further": None if further is None else link(request, cursor=further),
        "first": link(request) if wanted.cursor else None,
    }
    return page(request, "webhook.html", shown)


async def redeliver(request: web.Request) -> web.StreamResponse:
    """Send a message again."""
    ctx, who, hook_id = context(request), asking(request), path_id(request, "webhook_id")
    await ctx.webhooks.redeliver(who.tenant, who.actor, hook_id, path_id(request, "delivery_id"))
    return see_other(f"/console/webhooks/{hook_id}?done=redelivered")


async def delete(request: web.Request) -> web.StreamResponse:
    """Take one away with all that waits for it."""
    ctx, who = context(request), asking(request)
    reason = text(await form(request), "reason") or None
    await ctx.webhooks.delete(who.tenant, who.actor, path_id(request, "webhook_id"), reason=reason)
    return see_other("/console/webhooks?done=unhooked")


async def _hook(request: web.Request) -> Webhook:
    found = await context(request).webhook_store.one(asking(request).tenant, path_id(request, "webhook_id"))
    if found is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such webhook.")
    return found


async def _page(
    request: web.Request,
    *,
    made: Webhook | None = None,
    secret: str | None = None,
    problems: tuple[Problem, ...] = (),
    said: dict[str, object] | None = None,
) -> web.Response:
    hooks = await context(request).webhook_store.all(asking(request).tenant)
    shown = {"hooks": hooks, "made": made, "secret": secret, "problems": problems, "said": said or {}}
    return page(request, "webhooks.html", shown, status=400 if problems else 200)
