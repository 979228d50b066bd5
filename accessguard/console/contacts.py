"""Contacts: everybody, found by what is typed, narrowed by filters."""

from __future__ import annotations

from aiohttp import web

from accessguard.api.members import AT_ONCE, directory
from accessguard.api.paging import portion
from accessguard.api.wire import MembersQuery
from accessguard.console.lists import asked, file, link
from accessguard.console.pen import page
from accessguard.console.saved import kept, plain
from accessguard.members.model import Member, MemberSort
from accessguard.words.catalogues import word

SORTS = {
    MemberSort.LAST_ACTIVITY: word("Last activity"),
    MemberSort.NAME: word("Full name"),
    MemberSort.FIRST_ACCESS: word("First access"),
    MemberSort.LAST_ACCESS: word("Last access"),
    MemberSort.UNREAD: word("Unread restrictions"),
}


async def listed(request: web.Request) -> web.StreamResponse:
    """The directory."""
    wanted = asked(request, MembersQuery)
    found, further = await portion(wanted, tuple[str, str], await directory(request, wanted))
    query = plain(tuple(request.query.items()))
    shown = {
        "asked": wanted,
        "members": found,
        "further": None if further is None else link(request, cursor=further),
        "first": link(request) if wanted.cursor else None,
        "sorts": SORTS,
        "saved": await kept(request),
        "query": query,
        "export": f"/console/contacts.csv?{query}",
        "filtered": wanted.q or wanted.status or wanted.tag or wanted.unread or wanted.restricted or wanted.product_id,
    }
    return page(request, "contacts.html", shown)


async def exported(request: web.Request) -> web.StreamResponse:
    """Everybody whom the filters find, as a file."""
    wanted = asked(request, MembersQuery)
    return await file(request, "contacts.csv", Member, await directory(request, wanted), at_once=AT_ONCE)
