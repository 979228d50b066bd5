"""Reports over all members."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.paging import page
from accessguard.api.read import query
from accessguard.api.wire import SharingQuery
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.facts import from_ms
from accessguard.members.sharing import KEPT, Period, Suspicion

USUAL: Final = timedelta(days=30)
EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
PLACES: Final[dict[str, Any]] = {"score": tuple[int, str], "last_at": tuple[datetime, str]}
"""The place in the list, for each key."""


async def sharing(request: web.Request) -> web.StreamResponse:
    """List the members with evidence that several people use the account, the most of it first.

    Evidence, never a verdict: each point says what was seen, how often, when
    last and what it weighs. What an operator marked as a false alarm lowers
    it. `from` is 30 days before `to` unless given, and 93 at most.
    """
    asked = query(request, SharingQuery)
    ctx, tenant = context(request), asking(request).tenant
    await ctx.folds.flush()
    period = _period(asked, from_ms(ctx.now_ms()))

    async def fetch(after: Any, limit: int) -> Sequence[tuple[Suspicion, Any]]:
        descending = asked.order == "desc"
        rows = await ctx.sharing.ranked(tenant, period, key=asked.sort, descending=descending, after=after, limit=limit)
        return [(row, (getattr(row, asked.sort), row.member_id)) for row in rows]

    return await page(request, asked, Suspicion, PLACES[asked.sort], fetch)


def _period(asked: SharingQuery, now: datetime) -> Period:
    """What was asked for. Raises GuardError(INVALID) for a period that is empty or too long."""
    until = asked.until or now
    since = asked.since or until - min(USUAL, until - EARLIEST)
    if not timedelta(0) < until - since <= KEPT:
        problem = Problem(pointer="/from", detail=f"must lie before `to`, by {KEPT.days} days at most")
        raise GuardError(ErrorCode.INVALID, "The query is not valid.", problem)
    return Period(since=since, until=until)
