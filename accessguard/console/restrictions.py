"""Restrictions over all members: what nobody has looked at first, and marking what has been."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.paging import portion
from accessguard.api.read import path_id
from accessguard.api.violations import Fetch, cases, narrowed
from accessguard.api.wire import MarkRequest, ResolutionPatch, ViolationsQuery
from accessguard.console.door import inside, see_other
from accessguard.console.forms import Form, form, taken, text, texts
from accessguard.console.lists import asked, between, file, link
from accessguard.console.pen import page, reader_of
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.facts import from_ms
from accessguard.rules.model import Code
from accessguard.violations.model import Resolution, Violation
from accessguard.words.operator import case_text

ALL: Final = "all"
ROWS: Final = 20
"""Cases of a page, each with its forms: some 60 KB."""


async def listed(request: web.Request) -> web.StreamResponse:
    """The cases that are unread, or with `show=all` every one."""
    everything = request.query.get("show") == ALL
    wanted = _wanted(request, limit=ROWS)
    language = reader_of(request).language
    found, further = await portion(wanted, tuple[datetime, UUID], await _cases(request, wanted))
    shown = {
        "asked": wanted,
        "everything": everything,
        "cases": found,
        "said": {name: request.query.get(name, "") for name in ("from", "to")},
        "codes": {code.value: case_text(language, code.value, {}) for code in Code},
        "resolutions": tuple(Resolution),
        "further": None if further is None else link(request, cursor=further),
        "first": link(request) if wanted.cursor else None,
        "all": f"/console/restrictions?{urlencode({'show': ALL})}",
        "export": link(request).replace("/console/restrictions", "/console/restrictions.csv", 1),
    }
    return page(request, "restrictions.html", shown)


async def exported(request: web.Request) -> web.StreamResponse:
    """Every case that the filters find, as a file."""
    wanted = _wanted(request)
    return await file(request, "restrictions.csv", Violation, await _cases(request, wanted))


async def mark(request: web.Request) -> web.StreamResponse:
    """Mark cases read or unread: those that are chosen, all of a member, or all up to a time."""
    sent, ctx, who = await form(request), context(request), asking(request)
    wanted = _marked(sent)
    await ctx.folds.flush()
    ids = None if wanted.ids is None else list(wanted.ids)
    change = ctx.violations.mark_read if wanted.read else ctx.violations.mark_unread
    await change(
        who.tenant,
        who.caller.subject,
        at=from_ms(ctx.now_ms()),
        ids=ids,
        member_id=wanted.member_id,
        up_to=wanted.up_to,
    )
    return _back(sent, "read" if wanted.read else "unread")


async def resolve(request: web.Request) -> web.StreamResponse:
    """Say what a case turned out to be."""
    sent, ctx, who = await form(request), context(request), asking(request)
    said = {"resolution": text(sent, "resolution") or None, "note": text(sent, "note") if "note" in sent else None}
    wanted = taken(ResolutionPatch, said)
    await ctx.operators.resolve(
        who.tenant,
        who.actor,
        path_id(request, "violation_id"),
        resolution=wanted.resolution,
        note=wanted.note,
        reason=None,
        now_ms=ctx.now_ms(),
    )
    ctx.violations.changed(who.tenant)
    return _back(sent, "resolved")


def _wanted(request: web.Request, **fixed: object) -> ViolationsQuery:
    everything = request.query.get("show") == ALL
    return asked(request, ViolationsQuery, read=None if everything else False, **between(request), **fixed)


async def _cases(request: web.Request, wanted: ViolationsQuery) -> Fetch:
    language = reader_of(request).language
    return await cases(request, narrowed(wanted), language, descending=wanted.order == "desc")


def _marked(sent: Form) -> MarkRequest:
    """Which cases: a button of one case or of "up to here" says so before the selection does."""
    said: dict[str, object] = {"read": text(sent, "read") != "false"}
    one, up_to, member = text(sent, "one"), text(sent, "up_to"), text(sent, "member_id")
    if not_read := text(sent, "not_read"):
        said = {"read": False, "ids": [not_read]}
    elif one:
        said |= {"ids": [one]}
    elif up_to:
        said |= {"up_to": up_to}
    elif member:
        said |= {"member_id": member}
    elif not texts(sent, "ids"):
        raise GuardError(ErrorCode.INVALID, "Choose at least one restriction.")
    else:
        said |= {"ids": texts(sent, "ids")}
    return taken(MarkRequest, said)


def _back(sent: Form, done: str) -> web.Response:
    where = inside(text(sent, "back") or "/console/restrictions")
    path, _, kept = where.partition("?")
    parts = [each for each in kept.split("&") if each and not each.startswith("done=")]
    return see_other(f"{path}?{'&'.join([*parts, f'done={done}'])}")
