"""The page of one member: access history, devices, restriction history, notes; and what an operator does there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from aiohttp import web

from accessguard.api import card as api_card
from accessguard.api.context import asking, context
from accessguard.api.devices import alike
from accessguard.api.paging import portion
from accessguard.api.read import path_id, path_text
from accessguard.api.sessions import ended_now
from accessguard.api.violations import cases
from accessguard.api.wire import (
    CommentRequest,
    DevicePatch,
    EndRequest,
    HistoryQuery,
    ListQuery,
    MemberPatch,
    MergeRequest,
    PassRequest,
)
from accessguard.console.door import inside, see_other
from accessguard.console.entries import line
from accessguard.console.forms import Form, form, moment, taken, text
from accessguard.console.lists import asked, link
from accessguard.console.pen import page, reader_of, segment
from accessguard.devices.model import Device
from accessguard.events.audit import Entry, HistoryFilter
from accessguard.guard.facts import from_ms
from accessguard.guard.operators import DeviceChange, MemberChange
from accessguard.members.comments import Comment
from accessguard.members.model import Pass
from accessguard.sessions.history import LoginItem, SessionItem
from accessguard.violations.model import Resolution, ViolationFilter
from accessguard.words.operator import case_text

ENDED: Final = "ended_by_operator"


async def history(request: web.Request) -> web.StreamResponse:
    """Access history: open sessions, then every attempt to log in; for who may see no address, enrolments alone."""
    card = await api_card.shown(request)
    if asking(request).caller.role == "attendant":
        return page(request, "card_plain.html", {"card": card})
    wanted, ctx, tenant = asked(request, ListQuery), context(request), asking(request).tenant

    async def fetch(
        after: tuple[datetime, UUID] | None, limit: int
    ) -> Sequence[tuple[LoginItem, tuple[datetime, UUID]]]:
        found = await ctx.history.logins(tenant, card.member_id, after=after, limit=limit, descending=True)
        return [(row, (row.at, row.id)) for row in found]

    logins, further = await portion(wanted, tuple[datetime, UUID], fetch)
    known = {each.id: each for each in card.known_devices}
    return _tab(
        request,
        "card_history.html",
        further,
        card=card,
        logins=logins,
        known=known,
        sessions=card.live_sessions,
        said=_said(request),
    )


async def sessions(request: web.Request) -> web.StreamResponse:
    """Every session, open and ended."""
    card = await api_card.shown(request)
    wanted, ctx, tenant, now = asked(request, ListQuery), context(request), asking(request).tenant, _now(request)

    async def fetch(
        after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[tuple[SessionItem, tuple[datetime, str]]]:
        found = await ctx.history.sessions(tenant, card.member_id, now=now, after=after, limit=limit, descending=True)
        return [(row, (row.started_at, row.id)) for row in found]

    found, further = await portion(wanted, tuple[datetime, str], fetch)
    known = {each.id: each for each in card.known_devices}
    return _tab(request, "card_sessions.html", further, card=card, sessions=found, known=known)


async def devices(request: web.Request) -> web.StreamResponse:
    """Every device with what is known of it, and which other one it seems to be."""
    card = await api_card.shown(request)
    wanted, ctx, tenant, now = asked(request, ListQuery), context(request), asking(request).tenant, _now(request)
    sighted = {each.id: each for each in await ctx.devices.sighted(tenant, card.member_id)}

    async def fetch(after: tuple[datetime, UUID] | None, limit: int) -> Sequence[tuple[Device, tuple[datetime, UUID]]]:
        found = await ctx.devices.listed(tenant, card.member_id, now=now, after=after, limit=limit)
        return [(alike(row, sighted), (row.last_seen_at, row.id)) for row in found]

    found, further = await portion(wanted, tuple[datetime, UUID], fetch)
    names = {each.id: each.name or each.label for each in (*card.known_devices, *found)}
    return _tab(request, "card_devices.html", further, card=card, devices=found, names=names)


async def restrictions(request: web.Request) -> web.StreamResponse:
    """Every case of this member."""
    card = await api_card.shown(request)
    wanted, language = asked(request, ListQuery), reader_of(request).language
    found = ViolationFilter(member_id=card.member_id)
    shown, further = await portion(
        wanted, tuple[datetime, UUID], await cases(request, found, language, descending=True)
    )
    return _tab(request, "card_restrictions.html", further, card=card, cases=shown, resolutions=tuple(Resolution))


async def notes(request: web.Request) -> web.StreamResponse:
    """The note, every comment, and what operators changed."""
    card = await api_card.shown(request)
    wanted, ctx, who = asked(request, HistoryQuery), context(request), asking(request)
    tenant = who.tenant
    kept = (await ctx.preferences.one(tenant, who.caller.subject, api_card.REMEMBERED)).value.get("kind")
    kind = kept if isinstance(kept, str) else None

    async def fetch(after: tuple[datetime, UUID] | None, limit: int) -> Sequence[tuple[Entry, tuple[datetime, UUID]]]:
        narrowed = HistoryFilter(kind=kind)
        found = await ctx.audit.of_member(tenant, card.member_id, narrowed, after=after, limit=limit, descending=True)
        return [(row, (row.at, row.id)) for row in found]

    changes, further = await portion(wanted, tuple[datetime, UUID], fetch)
    comments: Sequence[Comment] = await ctx.comments.listed(tenant, card.member_id, after=None, limit=200)
    lines = [line(each) for each in changes]
    return _tab(request, "card_notes.html", further, card=card, comments=comments, lines=lines, kind=kind)


async def switch_checks(request: web.Request) -> web.StreamResponse:
    """Switch the checks off, with until and why, or on again."""
    sent = await form(request)
    said = {
        "checks_enabled": text(sent, "checks_enabled") == "true",
        "checks_disabled_until": moment(sent, "until", reader_of(request).zone),
    }
    return await _changed(request, sent, said, "checks")


async def write_note(request: web.Request) -> web.StreamResponse:
    """Write the note that stands on top of the card."""
    sent = await form(request)
    return await _changed(request, sent, {"note": text(sent, "note")}, "note")


async def write_comment(request: web.Request) -> web.StreamResponse:
    """Add a comment."""
    sent, ctx, who = await form(request), context(request), asking(request)
    asked_for = taken(CommentRequest, {"text": text(sent, "text")})
    member_id = path_text(request, "member_id")
    await ctx.annals.comment(who.tenant, who.actor, member_id, ctx.new_id(), asked_for.text, now_ms=ctx.now_ms())
    return _back(request, sent, "comment")


async def give_pass(request: web.Request) -> web.StreamResponse:
    """Give one more device or session, or suspend the checks, for a while."""
    sent, ctx, who = await form(request), context(request), asking(request)
    said = {
        "kind": text(sent, "kind"),
        "until": moment(sent, "until", reader_of(request).zone),
        "reason": text(sent, "reason") or None,
    }
    asked_for = taken(PassRequest, said)
    given = Pass(
        id=ctx.new_id(),
        kind=asked_for.kind,
        until=asked_for.until,
        reason=asked_for.reason,
        own=False,
        created_at=_now(request),
        created_by=who.caller.subject,
    )
    await ctx.grants.give_pass(who.tenant, who.actor, path_text(request, "member_id"), given)
    return _back(request, sent, "pass")


async def end_sessions(request: web.Request) -> web.StreamResponse:
    """End every open session."""
    sent, ctx, who = await form(request), context(request), asking(request)
    await ctx.operators.end_sessions(
        who.tenant, who.actor, path_text(request, "member_id"), reason=text(sent, "reason") or None, now_ms=ctx.now_ms()
    )
    return _back(request, sent, "sessions")


async def end_session(request: web.Request) -> web.StreamResponse:
    """End one session."""
    await ended_now(request, EndRequest(reason=ENDED))
    return _back(request, await form(request), "session")


async def change_device(request: web.Request) -> web.StreamResponse:
    """Block a device, allow it, name it."""
    sent, ctx, who = await form(request), context(request), asking(request)
    said = {name: text(sent, name) for name in ("access", "name") if name in sent}
    asked_for = taken(DevicePatch, said | {"reason": text(sent, "reason") or None})
    changed = await ctx.operators.change_device(
        who.tenant,
        who.actor,
        path_text(request, "member_id"),
        path_id(request, "device_id"),
        DeviceChange(access=asked_for.access, name=asked_for.name),
        reason=asked_for.reason,
        now_ms=ctx.now_ms(),
    )
    return _back(request, sent, changed.access.value if "access" in said else "saved")


async def forget_device(request: web.Request) -> web.StreamResponse:
    """Forget a device."""
    sent, ctx, who = await form(request), context(request), asking(request)
    await ctx.operators.forget_device(
        who.tenant,
        who.actor,
        path_text(request, "member_id"),
        path_id(request, "device_id"),
        reason=text(sent, "reason") or None,
        now_ms=ctx.now_ms(),
    )
    return _back(request, sent, "forgotten")


async def merge_device(request: web.Request) -> web.StreamResponse:
    """Make a device part of another one."""
    sent, ctx, who = await form(request), context(request), asking(request)
    asked_for = taken(MergeRequest, {"into": text(sent, "into"), "reason": text(sent, "reason") or None})
    await ctx.activity.flush()
    await ctx.folds.flush()
    await ctx.merging.merge(
        who.tenant,
        who.actor,
        path_text(request, "member_id"),
        path_id(request, "device_id"),
        asked_for.into,
        reason=asked_for.reason,
        now_ms=ctx.now_ms(),
    )
    return _back(request, sent, "merged")


async def _changed(request: web.Request, sent: Form, said: Mapping[str, object], done: str) -> web.StreamResponse:
    ctx, who = context(request), asking(request)
    asked_for = taken(MemberPatch, {**said, "reason": text(sent, "reason") or None})
    change = MemberChange(**{name: getattr(asked_for, name) for name in MemberChange.__struct_fields__})
    await ctx.operators.change_member(
        who.tenant,
        who.actor,
        path_text(request, "member_id"),
        change,
        reason=asked_for.reason,
        now_ms=ctx.now_ms(),
    )
    return _back(request, sent, done)


def _said(request: web.Request) -> Callable[[str], str]:
    """Why a login was refused, in words."""
    language = reader_of(request).language
    return lambda code: case_text(language, code, {})


def _tab(request: web.Request, template: str, further: str | None, **shown: object) -> web.Response:
    more = {
        "further": None if further is None else link(request, cursor=further),
        "first": link(request) if request.query.get("cursor") else None,
    }
    return page(request, template, shown | more)


def _back(request: web.Request, sent: Form, done: str) -> web.Response:
    """To the page that the form was on, which says what was done."""
    there = f"/console/contacts/~{segment(path_text(request, 'member_id'))}"
    wanted = text(sent, "back")
    where = inside(wanted) if wanted else there
    path, _, asked_for = where.partition("?")
    kept = [each for each in asked_for.split("&") if each and not each.startswith("done=")]
    return see_other(f"{path}?{'&'.join([*kept, f'done={done}'])}")


def _now(request: web.Request) -> datetime:
    return from_ms(context(request).now_ms())
