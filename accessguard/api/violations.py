"""Violations: the restriction history and its read marks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TypeAlias
from uuid import UUID

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.paging import page
from accessguard.api.read import body, path_id, query
from accessguard.api.reply import reply
from accessguard.api.speech import reading
from accessguard.api.wire import MarkReply, MarkRequest, ResolutionPatch, ViolationsQuery
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.facts import from_ms
from accessguard.listing import Short
from accessguard.slices import in_slices
from accessguard.violations.model import Violation, ViolationFilter
from accessguard.words.operator import case_text

Place: TypeAlias = tuple[datetime, UUID]
Fetch: TypeAlias = Callable[[Place | None, int], Awaitable[Sequence[tuple[Violation, Place]]]]


async def listed(request: web.Request) -> web.StreamResponse:
    """List violations over all members."""
    asked = query(request, ViolationsQuery)
    fetch = await cases(request, narrowed(asked), reading(request), descending=asked.order == "desc")
    return await page(request, asked, Violation, tuple[datetime, UUID], fetch)


def narrowed(asked: ViolationsQuery) -> ViolationFilter:
    """Which cases are asked for."""
    return ViolationFilter(**{name: getattr(asked, name) for name in ViolationFilter.__struct_fields__})


async def cases(request: web.Request, found: ViolationFilter, language: str, *, descending: bool) -> Fetch:
    """What reads a page of these cases, told in a language; what is folded in memory is among them."""
    ctx, who = context(request), asking(request)
    await ctx.folds.flush()

    async def fetch(after: Place | None, limit: int) -> Sequence[tuple[Violation, Place]]:
        rows = await ctx.violations.listed(
            who.tenant, found, reader=who.caller.subject, after=after, limit=limit, descending=descending
        )
        shown = [(told(row, language), (row.last_at, row.id)) async for row in in_slices(rows)]
        return Short(shown, further=rows.further) if isinstance(rows, Short) else shown

    return fetch


async def mark(request: web.Request) -> web.Response:
    """Mark violations read or unread, for the operator who asks.

    Never changes a decision. Raises INVALID (400) when it does not say
    exactly one of `ids` and `member_id` and `up_to`, UNAVAILABLE (503).
    """
    asked = await body(request, MarkRequest)
    if [asked.ids, asked.member_id, asked.up_to].count(None) != 2:
        raise GuardError(ErrorCode.INVALID, "Say which violations: exactly one of ids, member_id, up_to.")
    ctx, who = context(request), asking(request)
    await ctx.folds.flush()
    ids = None if asked.ids is None else list(asked.ids)
    if asked.read:
        changed = await ctx.violations.mark_read(
            who.tenant,
            who.caller.subject,
            at=from_ms(ctx.now_ms()),
            ids=ids,
            member_id=asked.member_id,
            up_to=asked.up_to,
        )
    else:
        changed = await ctx.violations.mark_unread(
            who.tenant,
            who.caller.subject,
            at=from_ms(ctx.now_ms()),
            ids=ids,
            member_id=asked.member_id,
            up_to=asked.up_to,
        )
    return reply(MarkReply(marked=changed))


async def patch(request: web.Request) -> web.Response:
    """Say what a violation turned out to be, for all operators."""
    asked = await body(request, ResolutionPatch)
    ctx, who = context(request), asking(request)
    changed = await ctx.operators.resolve(
        who.tenant,
        who.actor,
        path_id(request, "violation_id"),
        resolution=asked.resolution,
        note=asked.note,
        reason=asked.reason,
        now_ms=ctx.now_ms(),
    )
    ctx.violations.changed(who.tenant)
    return reply(told(changed, reading(request)))


def told(case: Violation, language: str) -> Violation:
    """The case with what it was, in the operator's language."""
    return msgspec.structs.replace(case, summary=case_text(language, case.code, case.details))


async def summary(request: web.Request) -> web.Response:
    """Count unread and open violations, per code and per member."""
    ctx, who = context(request), asking(request)
    await ctx.folds.flush()
    return reply(await ctx.violations.summary(who.tenant, who.caller.subject))
