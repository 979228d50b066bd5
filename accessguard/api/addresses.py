"""Addresses, before they are denied."""

from __future__ import annotations

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.read import path_text
from accessguard.api.reply import reply
from accessguard.errors import ErrorCode, GuardError
from accessguard.rules.networks import address


async def get(request: web.Request) -> web.Response:
    """Read who was seen at an address lately, where it is, and which rules name it."""
    found = address(path_text(request, "ip"))
    if found is None:
        raise GuardError(ErrorCode.NOT_FOUND, "That is no address.")
    ctx = context(request)
    return reply(await ctx.addresses.use(asking(request).tenant, found, now_ms=ctx.now_ms()))
