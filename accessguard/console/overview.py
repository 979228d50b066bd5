"""The last 30 days of a school at a glance: logins, refusals, what is unread."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Final

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.reports import up_to_date
from accessguard.console.charts import Bar, bars
from accessguard.console.pen import page, reader_of
from accessguard.rules.words import Effect
from accessguard.tallies.model import Tally, TallyKind
from accessguard.words.catalogues import word
from accessguard.words.operator import case_text

SHOWN: Final = timedelta(days=30)
MOST: Final = 5_000
"""Counts of a kind in 30 days: a day has one for each rule and effect, or outcome and decision."""
STOPS: Final = frozenset({Effect.DENIED, Effect.CHALLENGED, Effect.ENDED})


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """What is counted, how much in all, and a bar for each day."""

    name: str
    total: int
    bars: tuple[Bar, ...]


async def shown(request: web.Request) -> web.StreamResponse:
    """Charts by day, and the rules' findings by what they were."""
    reader, ctx, who = reader_of(request), context(request), asking(request)
    unread = ctx.violations.summary_soon(who.tenant, who.caller.subject)
    summary, _ = await asyncio.gather(unread, up_to_date(request))
    last = reader.now.astimezone(reader.zone).date()
    logins, findings = await _counted(request, TallyKind.LOGIN, last), await _counted(request, TallyKind.REFUSAL, last)
    stopped = [each for each in findings if each.three in STOPS]
    by_code: Counter[str] = Counter()
    for each in stopped:
        by_code[each.two] += each.amount
    told = {
        "summary": summary,
        "charts": (
            _chart(word("Logins that got in"), [each for each in logins if _got_in(each)], last),
            _chart(word("Logins that did not"), [each for each in logins if not _got_in(each)], last),
            _chart(word("Refused by rules"), stopped, last),
        ),
        "codes": [(case_text(reader.language, code, {}), amount) for code, amount in by_code.most_common()],
    }
    return page(request, "overview.html", told)


async def _counted(request: web.Request, kind: TallyKind, last: date) -> Sequence[Tally]:
    until = last + timedelta(days=1)
    return await context(request).tallies.listed(
        asking(request).tenant, kind, since=last - SHOWN, until=until, after=None, limit=MOST, descending=True
    )


def _got_in(tally: Tally) -> bool:
    return (tally.one, tally.two) == ("success", "allow")


def _chart(name: str, counted: Sequence[Tally], last: date) -> Chart:
    days: Counter[date] = Counter()
    for each in counted:
        days[each.day] += each.amount
    return Chart(name=name, total=days.total(), bars=bars(list(days.items()), first=last - SHOWN, last=last))
