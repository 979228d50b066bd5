"""Tells of members at risk: looks now and then, on the side, at tenants who want to be told."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Final

import structlog

from accessguard.database import Database
from accessguard.errors import GuardError
from accessguard.events.telling import TellingStore
from accessguard.events.webhooks import WebhookEvent
from accessguard.guard.facts import from_ms, time_text
from accessguard.guard.webhooks import LOCK, LOCK_NUMBER
from accessguard.members.risk import SCORE, WINDOW, AtRisk, Reason, RiskStore, suspected
from accessguard.members.sharing import Period, SharingStore, Suspicion

EVERY: Final = timedelta(minutes=15)
"""How often one tenant is looked at: the evidence is gathered as often."""
ASK_S: Final = 60.0
PAGE: Final = 200
MOST_PAGES: Final = 25
MOST_TOLD: Final = 500
"""Members of one tenant that others are told of in one look; the rest waits for the next."""
MOST_EXPIRED: Final = 1_000
LOG: Final = structlog.get_logger("accessguard.risk")


class Risk:
    """One for each worker; whoever asks for a tenant has it until it is due again."""

    def __init__(self, *, db: Database, now_ms: Callable[[], int]) -> None:
        self._db = db
        self._now_ms = now_ms

    async def run(self) -> None:
        """Look at whom there is to look at, until cancelled."""
        while True:
            try:
                while await self.once():
                    pass
                await RiskStore(self._db).expire(from_ms(self._now_ms()), MOST_EXPIRED)
            except GuardError as error:
                LOG.warning("risk_not_looked_at", reason=error.code)
            await asyncio.sleep(ASK_S)

    async def once(self) -> bool:
        """Look at the members of the tenant that waits longest; False when none does."""
        now = from_ms(self._now_ms())
        async with self._db.transaction() as tx:
            held = await tx.value(LOCK, LOCK_NUMBER)
            tenant = await TellingStore(tx).look(now, every=EVERY) if held else None
        if tenant is None:
            return False
        await self._look(tenant, now)
        return True

    async def _look(self, tenant: str, now: datetime) -> None:
        """Tell of those who are at risk and of whom nobody was told lately, those with the highest score first."""
        restricted = await RiskStore(self._db).restricted(tenant, now=now, most=MOST_TOLD)
        period, after, told = Period(since=now - WINDOW, until=now), None, 0
        for _ in range(MOST_PAGES):
            page = await SharingStore(self._db).ranked(
                tenant, period, key="score", descending=True, after=after, limit=PAGE
            )
            high = [each for each in page if each.score >= SCORE]
            found = {each.member_id: _of_score(each, restricted.pop(each.member_id, None), period) for each in high}
            told += await self._tell(tenant, found, now)
            if len(high) < PAGE or told >= MOST_TOLD:
                break
            after = (page[-1].score, page[-1].member_id)
        others = {name: _at_risk(None, (reason,), period) for name, reason in restricted.items()}
        await self._tell(tenant, others, now)

    async def _tell(self, tenant: str, found: Mapping[str, AtRisk], now: datetime) -> int:
        """Make out messages about those of them that are news, with the note that they are none any more; how many."""
        if not found:
            return 0
        async with self._db.transaction() as tx:
            fresh = await RiskStore(tx).mark(tenant, list(found), at=now)
            news = {name: each for name, each in found.items() if name in fresh}
            if news:
                await TellingStore(tx).tell(tenant, WebhookEvent.MEMBER_AT_RISK, news, at=now)
        return len(news)


def _of_score(found: Suspicion, restrictions: Reason | None, period: Period) -> AtRisk:
    more = () if restrictions is None else (restrictions,)
    return _at_risk(found.score, (*suspected(found), *more), period)


def _at_risk(score: int | None, reasons: tuple[Reason, ...], period: Period) -> AtRisk:
    return AtRisk(score=score, since=time_text(period.since), until=time_text(period.until), reasons=reasons)
