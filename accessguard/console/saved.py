"""Filters of the contacts that an operator keeps under a name, to find them again at the next login."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final
from urllib.parse import parse_qsl, urlencode

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.wire import MembersQuery
from accessguard.console.door import see_other
from accessguard.console.forms import form, taken, text
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.facts import from_ms

KEPT_AS: Final = "console.contacts"
MOST: Final = 20
LONGEST: Final = 2_000
"""Of an address's query; browsers and proxies take 8 kB."""


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """One filter: what it is called, and the query of its address."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=60)]
    query: Annotated[str, msgspec.Meta(max_length=LONGEST)]

    @property
    def link(self) -> str:
        """Where its contacts are."""
        return f"/console/contacts?{self.query}"


async def kept(request: web.Request) -> tuple[Saved, ...]:
    """What the operator who asks has kept; anything that is no filter, as another program may have left, is none."""
    ctx, who = context(request), asking(request)
    found = await ctx.preferences.one(who.tenant, who.caller.subject, KEPT_AS)
    try:
        return msgspec.convert(found.value.get("filters", ()), tuple[Saved, ...])
    except msgspec.ValidationError:
        return ()


def plain(said: Sequence[tuple[str, str]]) -> str:
    """A query with the filters of contacts alone, in their order."""
    given = {name: value for name, value in said if value}
    known = [each for each in MembersQuery.__struct_fields__ if each not in ("limit", "cursor")]
    return urlencode({name: given[name] for name in known if name in given})


async def save(request: web.Request) -> web.StreamResponse:
    """Keep a filter; one of the same name is replaced."""
    sent = await form(request)
    made = taken(Saved, {"name": text(sent, "name").strip(), "query": plain(parse_qsl(text(sent, "query")))})
    others = [each for each in await kept(request) if each.name != made.name]
    if len(others) >= MOST:
        raise GuardError(ErrorCode.CONFLICT, "These are too many filters; take one away first.")
    await _keep(request, [*others, made])
    return see_other(f"{made.link}&done=filter" if made.query else "/console/contacts?done=filter")


async def drop(request: web.Request) -> web.StreamResponse:
    """Take a filter away."""
    name = text(await form(request), "name")
    await _keep(request, [each for each in await kept(request) if each.name != name])
    return see_other("/console/contacts?done=unfiltered")


async def _keep(request: web.Request, filters: Sequence[Saved]) -> None:
    ctx, who = context(request), asking(request)
    value: dict[str, Any] = {"filters": msgspec.to_builtins(filters)}
    await ctx.preferences.put(who.tenant, who.caller.subject, KEPT_AS, value, at=from_ms(ctx.now_ms()))
