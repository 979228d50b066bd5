"""Gathers the evidence of shared accounts a little at a time, so that the report answers from what is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import partial
from typing import Final

import structlog

from accessguard.database import Database
from accessguard.errors import GuardError
from accessguard.guard.facts import from_ms
from accessguard.members.gathering import GatherStore, Mark
from accessguard.members.sharing import KEPT
from accessguard.members.store import MemberStore

EVERY_S: Final = 900.0
REST_S: Final = 0.05
"""Between two steps, so that gathering never takes more than a part of one connection."""
AT_ONCE: Final = 100
TENANTS_AT_ONCE: Final = 100
PHONES_AT_ONCE: Final = 500
SETTLES: Final = timedelta(minutes=5)
"""Activity of all workers is written by then: it is flushed every second."""
FIRST_REACH: Final = timedelta(days=30)
LOG: Final = structlog.get_logger("accessguard.sharing")


class Sharing:
    """One for each worker; an advisory lock lets one of them work on a tenant at a time."""

    def __init__(self, *, db: Database, now_ms: Callable[[], int]) -> None:
        self._db = db
        self._now_ms = now_ms

    async def run(self) -> None:
        """Gather every quarter of an hour, until cancelled."""
        while True:
            try:
                await self.once()
            except GuardError as error:
                LOG.warning("evidence_not_gathered", reason=error.code)
            await asyncio.sleep(EVERY_S)

    async def once(self) -> None:
        """Catch up with every tenant, and with telephone numbers that a release before stored."""
        await _until_done(self._phones)
        after = ""
        while page := await GatherStore(self._db).tenants(after, most=TENANTS_AT_ONCE):
            for tenant in page:
                await _until_done(partial(self.step, tenant))
            after = page[-1]

    async def _phones(self) -> bool:
        return await MemberStore(self._db).read_phones(most=PHONES_AT_ONCE) == PHONES_AT_ONCE

    async def step(self, tenant: str) -> bool:
        """Look at the next members who were active; whether there are more."""
        now = from_ms(self._now_ms())
        async with self._db.transaction() as tx:
            store = GatherStore(tx)
            if not await store.held(tenant):
                return False
            begin = now - FIRST_REACH
            mark = await store.mark(tenant) or Mark(at=begin, member_id="", since=begin)
            return await self._gathered(store, tenant, mark, now)

    async def _gathered(self, store: GatherStore, tenant: str, mark: Mark, now: datetime) -> bool:
        """Those after the mark, whose days since the round began may have changed; then the mark moves."""
        until = max(mark.at, now - SETTLES)
        active = await store.active(tenant, (mark.at, mark.member_id), until=until, most=AT_ONCE)
        members = sorted(member_id for member_id, _, staff in active if not staff)
        if members:
            await store.gather(tenant, members, since=mark.since - SETTLES, until=now)
        if len(active) == AT_ONCE:
            last, at, _ = active[-1]
            await store.set_mark(tenant, Mark(at=at, member_id=last, since=mark.since))
            return True
        await store.set_mark(tenant, Mark(at=until, member_id="", since=until))
        await store.drop(tenant, before=now - KEPT)
        return False


async def _until_done(step: Callable[[], Awaitable[bool]]) -> None:
    """Go on step by step, with a rest after each, until there is nothing more to do."""
    more = True
    while more:
        more = await step()
        await asyncio.sleep(REST_S if more else 0)
