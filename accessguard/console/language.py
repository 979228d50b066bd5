"""The language that an operator reads the pages in, kept for that operator in every browser."""

from __future__ import annotations

from typing import Final

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.console.door import see_other
from accessguard.console.forms import form, text
from accessguard.errors import ErrorCode, GuardError
from accessguard.events.console_sessions import LANGUAGE
from accessguard.guard.facts import from_ms
from accessguard.words.languages import LANGUAGES

AS_THE_BROWSER: Final = ""
"""Chosen, it is what the browser accepts again."""


async def choose(request: web.Request) -> web.StreamResponse:
    """Keep a language. Raises INVALID (400) for one that there is not."""
    tag = text(await form(request), "language")
    if tag not in (AS_THE_BROWSER, *LANGUAGES):
        raise GuardError(ErrorCode.INVALID, "The form was refused.")
    ctx, who = context(request), asking(request)
    await ctx.preferences.put(who.tenant, who.caller.subject, LANGUAGE, {"tag": tag}, at=from_ms(ctx.now_ms()))
    return see_other("/console/account?done=language")
