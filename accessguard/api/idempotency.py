"""The header Idempotency-Key on calls that create something."""

from __future__ import annotations

from typing import Final
from uuid import UUID

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.read import raw_body
from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError
from accessguard.events.idempotency import IdempotencyStore
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Login

HEADER: Final = "Idempotency-Key"


async def new_id(request: web.Request) -> UUID:
    """The id for what the call creates: the same for every retry under one Idempotency-Key."""
    ctx, key = context(request), request.headers.get(HEADER)
    fresh = ctx.new_id()
    if key is None:
        return fresh
    who, key = asking(request), checked(key)
    content = request.path.encode() + b"\n" + await raw_body(request)
    at = from_ms(ctx.now_ms())
    return await ctx.idempotency.made_id(who.tenant, who.caller.subject, key, content, fresh=fresh, at=at)


async def claimed(request: web.Request, tx: Database, fresh: UUID, content: bytes) -> UUID:
    """The same where the body is too long to be kept: `content` stands for it, and the claim is part of a transaction."""
    who, key = asking(request), request.headers.get(HEADER)
    if key is None:
        return fresh
    said, at = request.path.encode() + b"\n" + content, from_ms(context(request).now_ms())
    return await IdempotencyStore(tx).made_id(who.tenant, who.caller.subject, checked(key), said, fresh=fresh, at=at)


def checked(key: str) -> str:
    """A key as it may be. Raises GuardError(INVALID)."""
    if not 0 < len(key) <= 255 or not key.isprintable():
        raise GuardError(ErrorCode.INVALID, f"{HEADER} is 1 to 255 printable characters.")
    return key


async def with_attempt_id(request: web.Request, asked: Login) -> Login:
    """The login with an attempt id when an Idempotency-Key stands for one."""
    if asked.attempt_id is not None or HEADER not in request.headers:
        return asked
    return msgspec.structs.replace(asked, attempt_id=await new_id(request))
