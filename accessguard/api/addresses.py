"""Addresses, before they are denied."""

from __future__ import annotations

from ipaddress import ip_network

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.read import path_text
from accessguard.api.reply import reply
from accessguard.errors import ErrorCode, GuardError
from accessguard.rules.networks import Address, address


async def get(request: web.Request) -> web.Response:
    """Read who was seen at an address lately, where it is, and which rules name it.

    Recorded in the audit log, with the network (/24, /64) in place of the address, before it is answered.
    """
    found = address(path_text(request, "ip"))
    if found is None:
        raise GuardError(ErrorCode.NOT_FOUND, "That is no address.")
    ctx, who, now_ms = context(request), asking(request), context(request).now_ms()
    await ctx.operators.read(who.tenant, who.actor, "address.read", _network(found), now_ms=now_ms)
    return reply(await ctx.addresses.use(who.tenant, found, now_ms=now_ms))


def _network(found: Address) -> str:
    """Where an address is, as it may be kept for as long as the audit log is: nobody's own address."""
    return str(ip_network(f"{found.text}/{24 if found.version == 4 else 64}", strict=False))
