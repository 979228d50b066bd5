"""One member in full: the card, the support bundle, comments, what operators changed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec
from aiohttp import web

from accessguard.api.bundle_text import written
from accessguard.api.context import asking, context
from accessguard.api.idempotency import new_id
from accessguard.api.keys import Role
from accessguard.api.members import card_of, known
from accessguard.api.paging import page
from accessguard.api.read import body, path_text, query
from accessguard.api.reply import SAFE_HEADERS, reply
from accessguard.api.speech import reading
from accessguard.api.violations import told
from accessguard.api.wire import CommentRequest, HistoryQuery, ListQuery
from accessguard.events.audit import Entry, HistoryFilter
from accessguard.events.preferences import Preference
from accessguard.guard.bundle import Bundle
from accessguard.guard.card import MemberCard
from accessguard.members.comments import Comment
from accessguard.policies.model import Settings

TEXT: Final = "text/plain"
REMEMBERED: Final = "member_history"
"""The preference in which an operator keeps the filters of this list."""


async def get(request: web.Request) -> web.Response:
    """Read the card of one member: all that its page shows, in one call.

    An attendant sees no address, device, session, case or comment. Where the
    member was seen is a hint by its address, which may be a proxy's.
    """
    return reply(await shown(request))


async def bundle(request: web.Request) -> web.Response:
    """Gather what a help desk would ask a member for; as text for people with `Accept: text/plain`.

    Account, devices with browser and version, app or web, place, sessions, the
    last resources, the last verdicts with their reasons. Recorded in the audit log before it is answered.
    """
    made = await bundled(request)
    if TEXT in request.headers.get("Accept", ""):
        return web.Response(text=written(made), content_type=TEXT, charset="utf-8", headers=SAFE_HEADERS)
    return reply(made)


async def bundled(request: web.Request) -> Bundle:
    """What a help desk would ask the member of the path for. Raises GuardError(NOT_FOUND)."""
    await _up_to_date(request)
    ctx, who, card = context(request), asking(request), await card_of(request)
    await ctx.operators.read(who.tenant, who.actor, "member.bundle", card.member_id, now_ms=ctx.now_ms())
    return await ctx.bundles.of(
        who.tenant,
        card,
        await _settings(request),
        reader=who.caller.subject,
        language=reading(request),
        now_ms=ctx.now_ms(),
    )


async def comments(request: web.Request) -> web.StreamResponse:
    """List what operators wrote about a member."""
    asked = query(request, ListQuery)
    ctx, tenant, member_id = context(request), asking(request).tenant, await known(request)

    async def fetch(after: tuple[datetime, UUID] | None, limit: int) -> Sequence[tuple[Comment, tuple[datetime, UUID]]]:
        descending = asked.order == "desc"
        rows = await ctx.comments.listed(tenant, member_id, after=after, limit=limit, descending=descending)
        return [(row, (row.at, row.id)) for row in rows]

    return await page(request, asked, Comment, tuple[datetime, UUID], fetch)


async def comment(request: web.Request) -> web.Response:
    """Write a comment about a member; it can be neither edited nor deleted, and goes with the member alone."""
    asked = await body(request, CommentRequest)
    ctx, who, member_id = context(request), asking(request), path_text(request, "member_id")
    made = await ctx.annals.comment(
        who.tenant, who.actor, member_id, await new_id(request), asked.text, now_ms=ctx.now_ms()
    )
    return reply(made, status=201)


async def history(request: web.Request) -> web.StreamResponse:
    """List what operators changed about a member: itself, its devices, sessions, cases and passes.

    With `remembered`, filters that are left out are those that the operator
    keeps in the preference `member_history`, such as `{"kind": "device"}`.
    """
    asked = query(request, HistoryQuery)
    ctx, who, member_id = context(request), asking(request), await known(request)
    kept = await ctx.preferences.one(who.tenant, who.caller.subject, REMEMBERED) if asked.remembered else None
    found = _filter(asked, kept)

    async def fetch(after: tuple[datetime, UUID] | None, limit: int) -> Sequence[tuple[Entry, tuple[datetime, UUID]]]:
        descending = asked.order == "desc"
        rows = await ctx.audit.of_member(who.tenant, member_id, found, after=after, limit=limit, descending=descending)
        return [(row, (row.at, row.id)) for row in rows]

    return await page(request, asked, Entry, tuple[datetime, UUID], fetch)


async def _up_to_date(request: web.Request) -> None:
    await context(request).activity.flush()
    await context(request).folds.flush()


async def shown(request: web.Request) -> MemberCard:
    """The card of the member that the path names, up to date, as far as the caller sees it. Raises GuardError(NOT_FOUND)."""
    await _up_to_date(request)
    ctx, who = context(request), asking(request)
    card, settings = await card_of(request), await _settings(request)
    if who.caller.role is Role.ATTENDANT:
        return ctx.cards.plain(card, settings, now_ms=ctx.now_ms())
    whole = await ctx.cards.whole(who.tenant, card, settings, reader=who.caller.subject, now_ms=ctx.now_ms())
    return told_all(whole, reading(request))


def told_all(card: MemberCard, language: str) -> MemberCard:
    """The card with what its cases were, in the operator's language."""
    return msgspec.structs.replace(card, unread_cases=tuple(told(each, language) for each in card.unread_cases))


async def _settings(request: web.Request) -> Settings:
    policy = await context(request).book.policy(asking(request).tenant)
    return policy.settings if policy else Settings()


def _filter(asked: HistoryQuery, kept: Preference | None) -> HistoryFilter:
    """What was asked for, and for what was not, what is kept; anything but a text says nothing."""
    value = kept.value if kept else {}
    texts = {name: each for name in ("actor", "kind") if isinstance(each := value.get(name), str)}
    return HistoryFilter(
        actor=asked.actor or texts.get("actor"),
        kind=asked.kind or texts.get("kind"),
        since=asked.since,
        until=asked.until,
    )
