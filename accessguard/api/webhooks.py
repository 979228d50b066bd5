"""Webhooks and their deliveries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.idempotency import new_id
from accessguard.api.paging import page
from accessguard.api.read import Paging, body, path_id, query
from accessguard.api.reply import nothing, reply
from accessguard.api.wire import DeleteQuery, PublishedKeys, Transmitter, WebhookMade, WebhookRequest
from accessguard.errors import ErrorCode, GuardError
from accessguard.events.webhooks import Delivery
from accessguard.guard.wishes import Wish

VERSION: Final = "1_0"
PUSH: Final = "urn:ietf:rfc:8935"


async def listed(request: web.Request) -> web.Response:
    """List the webhooks; their secrets are not shown again."""
    return reply({"items": await context(request).webhook_store.all(asking(request).tenant), "next_cursor": None})


async def create(request: web.Request) -> web.Response:
    """Have events sent to an address of the school's own, from now on; the answer holds the secret that signs them.

    With `format` `caep` they are security event tokens, signed by the keys of `/.well-known/jwks.json`; the secret then comes
    with each as a bearer token.
    See docs/events.md for what is sent, and how to check it. Raises INVALID (400) for
    a `url` that is none, CONFLICT (409) when there are twenty.
    """
    asked = await body(request, WebhookRequest)
    who = asking(request)
    made, secret = await context(request).webhooks.create(
        who.tenant, who.actor, await new_id(request), wish(asked), reason=asked.reason
    )
    return reply(WebhookMade(secret=secret, **msgspec.structs.asdict(made)), status=201)


async def delete(request: web.Request) -> web.Response:
    """Delete a webhook with all that waits for it."""
    asked, who = query(request, DeleteQuery), asking(request)
    await context(request).webhooks.delete(who.tenant, who.actor, path_id(request, "webhook_id"), reason=asked.reason)
    return nothing()


async def deliveries(request: web.Request) -> web.StreamResponse:
    """List what was sent to a webhook, and what waits, the newest first; kept for a week, ten thousand at most."""
    asked, tenant = query(request, Paging), asking(request).tenant
    store, webhook_id = context(request).webhook_store, path_id(request, "webhook_id")
    if await store.one(tenant, webhook_id) is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such webhook.")

    async def fetch(after: tuple[int, ...] | None, limit: int) -> Sequence[tuple[Delivery, tuple[int, ...]]]:
        rows = await store.log(tenant, webhook_id, after=after[0] if after else None, limit=limit)
        return [(row, (number,)) for row, number in rows]

    return await page(request, asked, Delivery, tuple[int, ...], fetch)


async def redeliver(request: web.Request) -> web.Response:
    """Send a message again, whatever became of it; a webhook that was disabled is switched on."""
    who = asking(request)
    webhook_id, delivery_id = path_id(request, "webhook_id"), path_id(request, "delivery_id")
    return reply(await context(request).webhooks.redeliver(who.tenant, who.actor, webhook_id, delivery_id))


async def keys(request: web.Request) -> web.Response:
    """Publish the keys that security event tokens are signed with."""
    return reply(PublishedKeys(keys=context(request).webhooks.keys.published))


async def transmitter(request: web.Request) -> web.Response:
    """Describe the sender of security event tokens.

    Raises NOT_FOUND (404) when the service has no public address, and so no tokens.
    """
    issuer = context(request).webhooks.issuer
    if issuer is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There are no security event tokens here.")
    found = Transmitter(
        spec_version=VERSION,
        issuer=issuer,
        jwks_uri=f"{issuer.rstrip('/')}/.well-known/jwks.json",
        delivery_methods_supported=(PUSH,),
    )
    return reply(found)


def wish(asked: WebhookRequest) -> Wish:
    """What somebody wants, as it was asked for."""
    return Wish(url=asked.url, events=asked.events, digest=asked.digest, format=asked.format, audience=asked.audience)
