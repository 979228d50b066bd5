"""Contacts: everybody, found by what is typed, narrowed by filters."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.members import as_seen, check_seen, country_of
from accessguard.api.wire import MembersQuery
from accessguard.console.lists import asked, link, rows
from accessguard.console.pen import page
from accessguard.guard.facts import from_ms
from accessguard.members.model import Member, MemberFilter, MemberSort

SORTS = {
    MemberSort.LAST_ACTIVITY: "Last activity",
    MemberSort.NAME: "Name",
    MemberSort.FIRST_ACCESS: "First access",
    MemberSort.LAST_ACCESS: "Last access",
    MemberSort.UNREAD: "Unread restrictions",
}


async def listed(request: web.Request) -> web.StreamResponse:
    """The directory."""
    wanted = asked(request, MembersQuery)
    check_seen(wanted, asking(request).caller.role)
    found, further = await _found(request, wanted)
    shown = {
        "asked": wanted,
        "members": found,
        "further": None if further is None else link(request, cursor=further),
        "first": link(request) if wanted.cursor else None,
        "sorts": SORTS,
        "filtered": wanted.q or wanted.status or wanted.tag or wanted.unread or wanted.restricted or wanted.product_id,
    }
    return page(request, "contacts.html", shown)


async def _found(request: web.Request, wanted: MembersQuery) -> tuple[Sequence[Member], str | None]:
    ctx, who, now = context(request), asking(request), from_ms(context(request).now_ms())
    await ctx.activity.flush()
    await ctx.folds.flush()
    narrowed = MemberFilter(**{name: getattr(wanted, name) for name in MemberFilter.__struct_fields__})
    country = await country_of(request)
    descending = (wanted.order or ("asc" if wanted.sort is MemberSort.NAME else "desc")) == "desc"

    async def fetch(after: tuple[str, str] | None, limit: int) -> Sequence[tuple[Member, tuple[str, str]]]:
        found = await ctx.directory.listed(
            who.tenant,
            narrowed,
            reader=who.caller.subject,
            now=now,
            sort=wanted.sort,
            descending=descending,
            after=after,
            limit=limit,
            country=country,
        )
        return [(as_seen(member, who.caller.role), place) for member, place in found]

    return await rows(wanted, tuple[str, str], fetch)
