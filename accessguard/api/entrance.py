"""The way into the console for operators who are signed in to the platform."""

from __future__ import annotations

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.reply import reply
from accessguard.api.wire import ConsoleLinkReply


async def link(request: web.Request) -> web.Response:
    """Make a link that signs the operator of this token in to the console, with the token's role and tenant.

    Good once, for two minutes. `&next=/console/...` behind it leads to a page
    of the console. Raises CONFLICT (409) for an operator who is signed in a hundred times.
    """
    ctx, who = context(request), asking(request)
    offer = await ctx.entrance.offer(who.tenant, who.actor, now_ms=ctx.now_ms(), token_id=who.caller.token_id)
    return reply(ConsoleLinkReply(path=f"/console/enter?t={offer.token}", expires_at=offer.expires_at))
