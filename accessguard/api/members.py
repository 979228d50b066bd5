"""Members: kept by the platform, read and annotated by operators."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, TypeAlias
from uuid import UUID

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.keys import Role
from accessguard.api.paging import page
from accessguard.api.read import body, path_text, query
from accessguard.api.reply import reply
from accessguard.api.speech import reading
from accessguard.api.violations import cases
from accessguard.api.wire import (
    EndAllReply,
    EndAllRequest,
    ListQuery,
    MemberMergeRequest,
    MemberPatch,
    MemberRequest,
    MembersQuery,
    RelatedQuery,
)
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.facts import from_ms
from accessguard.guard.model import EndedSession
from accessguard.guard.operators import MemberChange
from accessguard.listing import Short
from accessguard.members.model import Card, Member, MemberFilter, MemberSort, Profile, card
from accessguard.members.phone import e164
from accessguard.members.related import Related
from accessguard.sessions.history import ActivityItem, LoginItem, SessionItem
from accessguard.sessions.live import Change
from accessguard.violations.model import Violation, ViolationFilter

Fetch: TypeAlias = Callable[[tuple[str, str] | None, int], Awaitable[Sequence[tuple[Member, tuple[str, str]]]]]
RelatedPlace: TypeAlias = tuple[int, float, str, str]
RELATED_REACH: Final = timedelta(days=90)
"""How far back addresses are looked at; the access log is kept for about as long."""
AT_ONCE: Final = 1_000
"""Members that are found at once for a file: with a filter, to find some takes as long as to find many."""


async def put(request: web.Request) -> web.Response:
    """Make a member, or replace what the platform knows of it; a former e-mail stays searchable."""
    asked = await body(request, MemberRequest)
    ctx, who, member_id = context(request), asking(request), path_text(request, "member_id")
    phone = e164(asked.phone, await country_of(request))
    profile = Profile(**msgspec.structs.asdict(asked), phone_e164=phone)
    await ctx.members.upsert(who.tenant, member_id, profile, at=from_ms(ctx.now_ms()))
    await ctx.changes.announce(Change(tenant=who.tenant, kind="member_changed", member_id=member_id))
    return reply(await _member(request))


async def listed(request: web.Request) -> web.StreamResponse:
    """Search and list members; an attendant sees no devices, sessions or restrictions."""
    asked = query(request, MembersQuery)
    fetch = await directory(request, asked)
    return await page(request, asked, Member, tuple[str, str], fetch, at_once=AT_ONCE)


async def directory(request: web.Request, asked: MembersQuery) -> Fetch:
    """What reads a page of members, as the caller's role sees them; what is pending in memory is among it.

    Raises FORBIDDEN for what the role may not ask by.
    """
    ctx, who = context(request), asking(request)
    check_seen(asked, who.caller.role)
    await ctx.activity.flush()
    await ctx.folds.flush()
    found = MemberFilter(**{name: getattr(asked, name) for name in MemberFilter.__struct_fields__})
    country = await country_of(request)
    descending = (asked.order or ("asc" if asked.sort is MemberSort.NAME else "desc")) == "desc"

    async def fetch(after: tuple[str, str] | None, limit: int) -> Sequence[tuple[Member, tuple[str, str]]]:
        rows = await ctx.directory.listed(
            who.tenant,
            found,
            reader=who.caller.subject,
            now=from_ms(ctx.now_ms()),
            sort=asked.sort,
            descending=descending,
            after=after,
            limit=limit,
            country=country,
        )
        seen = [(as_seen(member, who.caller.role), place) for member, place in rows]
        return Short(seen, further=rows.further) if isinstance(rows, Short) else seen

    return fetch


async def patch(request: web.Request) -> web.Response:
    """Switch the checks of a member off or on, write a note, set tags."""
    asked = await body(request, MemberPatch)
    ctx, who = context(request), asking(request)
    change = MemberChange(**{name: getattr(asked, name) for name in MemberChange.__struct_fields__})
    changed = await ctx.operators.change_member(
        who.tenant, who.actor, path_text(request, "member_id"), change, reason=asked.reason, now_ms=ctx.now_ms()
    )
    return reply(changed)


async def logins(request: web.Request) -> web.StreamResponse:
    """List the login attempts of a member: the access log."""
    asked = query(request, ListQuery)
    ctx, tenant, member_id = context(request), asking(request).tenant, await known(request)

    async def fetch(
        after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[tuple[LoginItem, tuple[datetime, UUID]]]:
        descending = asked.order == "desc"
        rows = await ctx.history.logins(tenant, member_id, after=after, limit=limit, descending=descending)
        return [(row, (row.at, row.id)) for row in rows]

    return await page(request, asked, LoginItem, tuple[datetime, UUID], fetch)


async def sessions(request: web.Request) -> web.StreamResponse:
    """List the sessions of a member, open and ended."""
    asked = query(request, ListQuery)
    ctx, tenant, member_id = context(request), asking(request).tenant, await known(request)
    await ctx.activity.flush()

    async def fetch(
        after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[tuple[SessionItem, tuple[datetime, str]]]:
        now, descending = from_ms(ctx.now_ms()), asked.order == "desc"
        rows = await ctx.history.sessions(tenant, member_id, now=now, after=after, limit=limit, descending=descending)
        return [(row, (row.started_at, row.id)) for row in rows]

    return await page(request, asked, SessionItem, tuple[datetime, str], fetch)


async def activity(request: web.Request) -> web.StreamResponse:
    """List the counted interactions of a member."""
    asked = query(request, ListQuery)
    ctx, tenant, member_id = context(request), asking(request).tenant, await known(request)
    await ctx.activity.flush()

    async def fetch(
        after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[tuple[ActivityItem, tuple[datetime, str]]]:
        descending = asked.order == "desc"
        rows = await ctx.history.activity(tenant, member_id, after=after, limit=limit, descending=descending)
        return [(row, (row.at, row.session_id)) for row in rows]

    return await page(request, asked, ActivityItem, tuple[datetime, str], fetch)


async def violations(request: web.Request) -> web.StreamResponse:
    """List the restriction history of a member."""
    asked = query(request, ListQuery)
    found = ViolationFilter(member_id=await known(request))
    fetch = await cases(request, found, reading(request), descending=asked.order == "desc")
    return await page(request, asked, Violation, tuple[datetime, UUID], fetch)


async def related(request: web.Request) -> web.StreamResponse:
    """List the members that have a browser, an address at the same time, or a telephone number in common with one.

    A hint, no verdict: families share addresses, schools share computers. The
    strongest come first; 600 at most.
    """
    asked = query(request, RelatedQuery)
    found = await kin(request)

    async def fetch(after: RelatedPlace | None, limit: int) -> Sequence[tuple[Related, RelatedPlace]]:
        return [(each, each.place) for each in found if after is None or each.place > after][:limit]

    return await page(request, asked, Related, tuple[int, float, str, str], fetch)


async def kin(request: web.Request) -> Sequence[Related]:
    """Whom the member of the path has something in common with, the strongest first. Raises GuardError(NOT_FOUND)."""
    ctx, tenant, member_id = context(request), asking(request).tenant, await known(request)
    await ctx.activity.flush()
    number = e164(await ctx.members.phone(tenant, member_id), await country_of(request))
    since = from_ms(ctx.now_ms()) - RELATED_REACH
    found = [
        *await ctx.related.by_device(tenant, member_id),
        *await ctx.related.by_address(tenant, member_id, since=since),
        *(await ctx.related.by_phone(tenant, member_id, number) if number else ()),
    ]
    return sorted(found, key=lambda each: each.place)


async def country_of(request: web.Request) -> str | None:
    """The country that the tenant's telephone numbers belong to; None where it does not say."""
    policy = await context(request).book.policy(asking(request).tenant)
    return policy.settings.country if policy else None


async def merge(request: web.Request) -> web.Response:
    """Make one member part of another: the same student, whose id was two.

    Everything of it is the other's: sessions, devices, logins, cases with their
    read marks, enrolments (of two in one product the one that lasts longer),
    passes, former e-mails. What the two have too many of by a limit that ends
    sessions, is ended. An exemption and `staff` do not come over. The old id is
    unknown from then on, and finds the other one in a search; cannot be undone.
    Raises INVALID (400) for one and the same, CONFLICT (409) while logins wait for PostgreSQL.
    """
    asked = await body(request, MemberMergeRequest)
    ctx, who = context(request), asking(request)
    await ctx.activity.flush()
    await ctx.folds.flush()
    report = await ctx.union.merge(
        who.tenant,
        who.actor,
        path_text(request, "member_id"),
        asked.into,
        reason=asked.reason,
        now_ms=ctx.now_ms(),
    )
    return reply(report)


async def end_sessions(request: web.Request) -> web.Response:
    """End every open session of a member."""
    asked = await body(request, EndAllRequest) if request.can_read_body else EndAllRequest()
    ctx, who = context(request), asking(request)
    ended = await ctx.operators.end_sessions(
        who.tenant, who.actor, path_text(request, "member_id"), reason=asked.reason, now_ms=ctx.now_ms()
    )
    return reply(EndAllReply(ended_sessions=tuple(EndedSession(id=each, reason="ended_by_operator") for each in ended)))


async def _member(request: web.Request) -> Member:
    ctx, who = context(request), asking(request)
    found = await ctx.members.one(
        who.tenant, path_text(request, "member_id"), reader=who.caller.subject, now=from_ms(ctx.now_ms())
    )
    if found is None:
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")
    return found


async def card_of(request: web.Request) -> Card:
    """The member with what it is granted, as far as the caller sees it. Raises GuardError(NOT_FOUND)."""
    ctx, tenant, member_id = context(request), asking(request).tenant, path_text(request, "member_id")
    role = asking(request).caller.role
    member = as_seen(await _member(request), role)
    enrolments = await ctx.enrolments.of_member(tenant, member_id)
    seen = role is not Role.ATTENDANT
    passes = await ctx.passes.live(tenant, member_id, now=from_ms(ctx.now_ms())) if seen else ()
    return card(member, enrolments=enrolments, passes=passes)


async def known(request: web.Request) -> str:
    """The member that the path names. Raises GuardError(NOT_FOUND)."""
    member_id = path_text(request, "member_id")
    if not await context(request).members.exists(asking(request).tenant, member_id):
        raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")
    return member_id


def check_seen(asked: MembersQuery, role: Role) -> None:
    """Raise GuardError(FORBIDDEN) for an attendant who asks who is restricted, which it does not see."""
    if role is Role.ATTENDANT and (asked.restricted or asked.unread or asked.sort is MemberSort.UNREAD):
        raise GuardError(ErrorCode.FORBIDDEN, "Your role does not see who is restricted.")


def as_seen(member: Member, role: Role) -> Member:
    """An attendant searches members and sees first and last access, no address, device or restriction."""
    if role is not Role.ATTENDANT:
        return member
    return msgspec.structs.replace(
        member, last_activity=None, active_sessions=0, devices=0, unread_violations=0, latest_violation=None, note=""
    )
