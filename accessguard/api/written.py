"""Reports that are written whole, as jobs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, Final

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.idempotency import new_id
from accessguard.api.read import body
from accessguard.api.reply import CSV, csv_header, csv_lines, reply
from accessguard.api.reports import DAYS, Fetch, accesses, days, period, up_to_date
from accessguard.api.wire import ReportRequest, SharingQuery
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.facts import from_ms
from accessguard.guard.reporting import Work
from accessguard.members.access import AccessLine
from accessguard.members.sharing import Suspicion

PORTION: Final = 1_000
"""Rows of a report that are read at once, some 20 ms of work."""
RANKED: Final = 10_000
"""The same of a ranking, which is made anew for each portion: half a second where a million members are ranked."""
SLICE: Final = 500
"""Rows that are written down at once: some 10 ms, in which a worker answers nobody else."""
REST_S: Final = 0.005
DATED: Final = frozenset({"activity", "logins", "devices", "refusals", "sharing"})

Total = Callable[[], Awaitable[int]]


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """A report that can be written: what a row is, how rows are read and how many there are."""

    item: type[msgspec.Struct]
    fetch: Fetch
    total: Total
    portion: int = PORTION


async def write(request: web.Request) -> web.Response:
    """Have a whole report written as CSV, as a job: `GET /v1/jobs/{id}` tells how far it is, `.../result` gives it.

    Raises INVALID (400) with a filter that means nothing to the report,
    CONFLICT (409) when two are being written already.
    """
    asked = await body(request, ReportRequest)
    _check_fields(asked)
    ctx, who = context(request), asking(request)
    await up_to_date(request)
    written = _written(request, asked)
    work = Work(
        report=asked.report,
        lines=lambda: _lines(written),
        total=written.total,
        content_type=f"{CSV}; charset=utf-8",
    )
    job = await ctx.reporting.begin(who.tenant, await new_id(request), work)
    return reply(job, status=202)


def _written(request: web.Request, asked: ReportRequest) -> Written:
    match asked.report:
        case "access":
            return _access(request, asked)
        case "sharing":
            return _sharing(request, asked)
        case _:
            return _by_day(request, asked)


def _access(request: web.Request, asked: ReportRequest) -> Written:
    ctx, tenant = context(request), asking(request).tenant
    return Written(
        item=AccessLine,
        fetch=accesses(request, asked.product_id, asked.member_id),
        total=lambda: ctx.access.count(tenant, product_id=asked.product_id, member_id=asked.member_id),
    )


def _by_day(request: web.Request, asked: ReportRequest) -> Written:
    ctx, tenant, (kind, item, _) = context(request), asking(request).tenant, DAYS[asked.report]
    since, until = asked.since or date.min, asked.until or date.max
    return Written(
        item=item,
        fetch=days(request, asked.report, since, until, descending=False),
        total=lambda: ctx.tallies.count(tenant, kind, since=since, until=until),
    )


def _sharing(request: web.Request, asked: ReportRequest) -> Written:
    ctx, tenant = context(request), asking(request).tenant
    within = period(SharingQuery(since=_begin(asked.since), until=_begin(asked.until)), from_ms(ctx.now_ms()))

    async def fetch(after: Any, limit: int) -> Sequence[tuple[Suspicion, Any]]:
        rows = await ctx.sharing.ranked(tenant, within, key="score", descending=True, after=after, limit=limit)
        return [(row, (row.score, row.member_id)) for row in rows]

    return Written(item=Suspicion, fetch=fetch, total=lambda: ctx.sharing.count(tenant, within), portion=RANKED)


def _begin(day: date | None) -> datetime | None:
    """When a day begins, in UTC."""
    return None if day is None else datetime.combine(day, time.min, tzinfo=UTC)


def _check_fields(asked: ReportRequest) -> None:
    """Raise GuardError(INVALID) for what means nothing to the report: a file is not to hold more than was meant."""
    strange = ("product_id", "member_id") if asked.report in DATED else ("since", "until")
    names = {field.name: field.encode_name for field in msgspec.structs.fields(asked)}
    problems = [
        Problem(pointer=f"/{names[each]}", detail="means nothing to this report")
        for each in strange
        if getattr(asked, each) is not None
    ]
    if problems:
        raise GuardError(ErrorCode.INVALID, "The body was refused.", *problems)


async def _lines(written: Written) -> AsyncIterator[tuple[bytes, int]]:
    """The report as CSV, slice by slice, with the rows of each."""
    after = None
    yield csv_header(written.item.__struct_fields__), 0
    while rows := await written.fetch(after, written.portion):
        for begin in range(0, len(rows), SLICE):
            some = rows[begin : begin + SLICE]
            yield csv_lines(row for row, _ in some), len(some)
            await asyncio.sleep(REST_S)
        after = rows[-1][1]
