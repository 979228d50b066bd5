"""What an operator wants to find again as it was left."""

from __future__ import annotations

import re
from typing import Final

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.read import body, shallow
from accessguard.api.reply import reply
from accessguard.api.wire import PreferenceRequest
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.facts import from_ms

NAME: Final = re.compile(r"[a-z][a-z0-9_.-]{0,63}")
MOST_BYTES: Final = 8_192


async def get(request: web.Request) -> web.Response:
    """Read what the operator who asks has kept under a name; empty when nothing."""
    ctx, who = context(request), asking(request)
    return reply(await ctx.preferences.one(who.tenant, who.caller.subject, _name(request)))


async def put(request: web.Request) -> web.Response:
    """Keep something under a name, for the operator who asks and for nobody else.

    Raises INVALID (400) for what is too long, CONFLICT (409) for the 51st.
    """
    asked = await body(request, PreferenceRequest)
    shallow(asked.value, "/value")
    if len(msgspec.json.encode(asked.value)) > MOST_BYTES:
        problem = Problem(pointer="/value", detail=f"longer than {MOST_BYTES} bytes")
        raise GuardError(ErrorCode.INVALID, "The body was refused.", problem)
    ctx, who, name = context(request), asking(request), _name(request)
    subject = who.caller.subject
    await ctx.preferences.put(who.tenant, subject, name, asked.value, at=from_ms(ctx.now_ms()))
    return reply(await ctx.preferences.one(who.tenant, subject, name))


def _name(request: web.Request) -> str:
    name = request.match_info["name"]
    if NAME.fullmatch(name) is None:
        raise GuardError(ErrorCode.NOT_FOUND, "A preference's name is made of a-z, 0-9, `_`, `.` and `-`.")
    return name
