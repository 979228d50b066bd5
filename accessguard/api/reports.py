"""Reports over all members."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.lists import ActivityDay, DeviceDay, LoginDay, RefusalDay
from accessguard.api.paging import page
from accessguard.api.read import query
from accessguard.api.wire import AccessQuery, DaysQuery, SharingQuery
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.facts import from_ms
from accessguard.members.access import AccessLine
from accessguard.members.sharing import KEPT, Period, Suspicion
from accessguard.tallies.model import Tally, TallyKind

USUAL: Final = timedelta(days=30)
RANKED: Final = 1_000
"""Of a ranking, which is made anew for each portion of a file, more are read at once."""
Place: TypeAlias = tuple[Any, ...]
Fetch: TypeAlias = Callable[[Any, int], Awaitable[Sequence[tuple[Any, Place]]]]
EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
PLACES: Final[dict[str, Any]] = {"score": tuple[int, str], "last_at": tuple[datetime, str]}
"""The place in the list, for each key."""


async def sharing(request: web.Request) -> web.StreamResponse:
    """List the members with evidence that several people use the account, the most of it first.

    Evidence, never a verdict: each point says what was seen, how often, when
    last and what it weighs. What an operator marked as a false alarm lowers
    it. `from` is 30 days before `to` unless given, and 93 at most. Raises
    INVALID (400) for a period that is empty or too long.
    """
    asked = query(request, SharingQuery)
    ctx, tenant = context(request), asking(request).tenant
    await ctx.folds.flush()
    within, lately = period(asked, from_ms(ctx.now_ms())), asked.since is None and asked.until is None

    async def fetch(after: Any, limit: int) -> Sequence[tuple[Suspicion, Any]]:
        descending = asked.order == "desc"
        rows = await ctx.sharing.ranked(
            tenant, within, key=asked.sort, descending=descending, after=after, limit=limit, lately=lately
        )
        return [(row, (getattr(row, asked.sort), row.member_id)) for row in rows]

    return await page(request, asked, Suspicion, PLACES[asked.sort], fetch, at_once=RANKED)


def period(asked: SharingQuery, now: datetime) -> Period:
    """What was asked for. Raises GuardError(INVALID) for a period that is empty or too long."""
    until = asked.until or now
    since = asked.since or until - min(USUAL, until - EARLIEST)
    if not timedelta(0) < until - since <= KEPT:
        problem = Problem(pointer="/from", detail=f"must lie before `to`, by {KEPT.days} days at most")
        raise GuardError(ErrorCode.INVALID, "The query is not valid.", problem)
    return Period(since=since, until=until)


async def access(request: web.Request) -> web.StreamResponse:
    """List first and last access by member and product, with the purchase date; kept for ever, whatever logs are.

    A member without a product has one line. Access to a product is a counted
    interaction that named it; logins move the member's own times.
    """
    asked = query(request, AccessQuery)
    await context(request).activity.flush()
    fetch = accesses(request, asked.product_id, asked.member_id)
    return await page(request, asked, AccessLine, tuple[str, str], fetch)


async def activity(request: web.Request) -> web.StreamResponse:
    """Count the interactions of each kind by day, in the tenant's time zone; outlives the rows that were counted."""
    return await _by_day(request, "activity")


async def logins(request: web.Request) -> web.StreamResponse:
    """Count the logins of each outcome by day: what the platform said, and what was decided on it."""
    return await _by_day(request, "logins")


async def devices(request: web.Request) -> web.StreamResponse:
    """Count by day what logins came in from: class of device, browser, how many were new."""
    return await _by_day(request, "devices")


async def refusals(request: web.Request) -> web.StreamResponse:
    """Count by day what each rule found, and what became of it; what was only logged or exempt included."""
    return await _by_day(request, "refusals")


async def _by_day(request: web.Request, report: str) -> web.StreamResponse:
    asked = query(request, DaysQuery)
    await up_to_date(request)
    fetch = days(request, report, asked.since, asked.until, descending=asked.order == "desc")
    return await page(request, asked, DAYS[report][1], tuple[date, str, str, str], fetch)


async def up_to_date(request: web.Request) -> None:
    """What this worker has counted and not written, and what nobody has added up yet, is in the report."""
    ctx = context(request)
    await ctx.activity.flush()
    await ctx.folds.flush()
    await ctx.annals.add_up(asking(request).tenant)


def accesses(request: web.Request, product_id: str | None, member_id: str | None) -> Fetch:
    """What reads the report on access."""
    ctx, tenant = context(request), asking(request).tenant

    async def fetch(after: tuple[str, str] | None, limit: int) -> Sequence[tuple[AccessLine, Place]]:
        rows = await ctx.access.listed(tenant, product_id=product_id, member_id=member_id, after=after, limit=limit)
        return [(row, row.place) for row in rows]

    return fetch


def days(request: web.Request, report: str, since: date | None, until: date | None, *, descending: bool) -> Fetch:
    """What reads a report by day."""
    ctx, tenant, (kind, _, shown) = context(request), asking(request).tenant, DAYS[report]

    async def fetch(after: tuple[date, str, str, str] | None, limit: int) -> Sequence[tuple[Any, Place]]:
        rows = await ctx.tallies.listed(
            tenant,
            kind,
            since=since or date.min,
            until=until or date.max,
            after=after,
            limit=limit,
            descending=descending,
        )
        return [(shown(row), row.place) for row in rows]

    return fetch


def _activity(tally: Tally) -> ActivityDay:
    return ActivityDay(day=tally.day, kind=tally.one, count=tally.amount)


def _logins(tally: Tally) -> LoginDay:
    return LoginDay(day=tally.day, outcome=tally.one, decision=tally.two, count=tally.amount)


def _devices(tally: Tally) -> DeviceDay:
    return DeviceDay(
        day=tally.day,
        device_class=tally.one or "unknown",
        browser=tally.two or "Other",
        logins=tally.amount,
        new_devices=tally.fresh,
    )


def _refusals(tally: Tally) -> RefusalDay:
    rule_id = UUID(tally.one) if tally.one else None
    return RefusalDay(day=tally.day, rule_id=rule_id, code=tally.two, effect=tally.three, hits=tally.amount)


DAYS: Final[Mapping[str, tuple[TallyKind, type[msgspec.Struct], Callable[[Tally], msgspec.Struct]]]] = {
    "activity": (TallyKind.ACTIVITY, ActivityDay, _activity),
    "logins": (TallyKind.LOGIN, LoginDay, _logins),
    "devices": (TallyKind.DEVICE, DeviceDay, _devices),
    "refusals": (TallyKind.REFUSAL, RefusalDay, _refusals),
}
"""Reports by day: what is counted, as what it is shown, and how."""
