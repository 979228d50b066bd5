"""Unread and open cases in all, per code and per member: counted anew where there are few, now and then where there are many."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Final, TypeAlias

from accessguard.database import Database, Row
from accessguard.violations.model import CodeCount, MemberCount, Summary

MANY: Final = 20_000
"""Cases of a tenant from which on a summary is good for a while: to count so many takes some 50 ms."""
GOOD_FOR: Final = timedelta(minutes=1)
SHOWN_FOR: Final = timedelta(minutes=10)
"""How long it is shown at most, while it is counted anew: whoever asks now and then never waits."""
SOON_S: Final = 0.1
"""How long a page waits for it."""
MOST_HELD: Final = 1_000
MOST_CODES: Final = 100
MOST_MEMBERS: Final = 100

Key: TypeAlias = tuple[str, str]

# Both at once, in one way through the cases of a tenant. The marks of one reader are read in the order of an index of
# their own. Codes come first, then members.
COUNTED: Final = """
    SELECT v.code, v.member_id, count(*) AS cases,
           count(*) FILTER (WHERE v.effect <> 'exempt' AND (r.hits >= v.hits) IS NOT TRUE) AS unread,
           count(*) FILTER (WHERE v.resolution = 'open') AS open
      FROM violation v
      LEFT JOIN read_mark r ON r.tenant = $1 AND r.reader = $2 AND r.violation_id = v.id
     WHERE v.tenant = $1
     GROUP BY GROUPING SETS ((v.code), (v.member_id))
     ORDER BY (v.member_id IS NULL) DESC, unread DESC, open DESC, v.code, v.member_id LIMIT $3
"""


class Summaries:
    """What was counted lately, for tenants with many cases; those who have to wait, wait for one count together.

    A reader whose marks change here has it counted again, and so have all when
    a case is resolved here; what happens elsewhere shows soon after
    GOOD_FOR.
    Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach.
    """

    def __init__(self, db: Database, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._db = db
        self._now = now
        self._held: dict[Key, Summary] = {}
        self._counting: dict[Key, asyncio.Task[Summary]] = {}

    async def of(self, tenant: str, reader: str) -> Summary:
        """The summary as `reader` sees it."""
        key = (tenant, reader)
        held = self._held.get(key)
        age = SHOWN_FOR if held is None else self._now() - held.as_of
        if held is not None and timedelta(0) <= age < GOOD_FOR:
            return held
        counting = self._started(key)
        if held is not None and timedelta(0) <= age < SHOWN_FOR:
            return held
        return await asyncio.shield(counting)

    async def soon(self, tenant: str, reader: str) -> Summary | None:
        """The same, for whoever would rather have none than wait."""
        asked = asyncio.ensure_future(self.of(tenant, reader))
        await asyncio.wait({asked}, timeout=SOON_S)
        if asked.done():
            return asked.result()
        asked.cancel()
        return None

    def drop(self, tenant: str, reader: str | None = None) -> None:
        """Count again for this reader; None: for everybody of the tenant."""
        for key in [each for each in (*self._held, *self._counting) if each[0] == tenant and reader in {None, each[1]}]:
            self._held.pop(key, None)
            self._counting.pop(key, None)

    def _started(self, key: Key) -> asyncio.Task[Summary]:
        """The count under way, or a new one."""
        counting = self._counting.get(key)
        if counting is None:
            counting = self._counting[key] = asyncio.create_task(self._count(key))
            counting.add_done_callback(partial(self._counted, key))
        return counting

    def _counted(self, key: Key, task: asyncio.Task[Summary]) -> None:
        if self._counting.get(key) is task:
            del self._counting[key]
        if not task.cancelled():
            task.exception()  # told to whoever waits, if anybody does

    async def _count(self, key: Key) -> Summary:
        at, own = self._now(), asyncio.current_task()
        rows = await self._db.fetch(COUNTED, *key, MOST_CODES + MOST_MEMBERS)
        summary, cases = _summary(rows, at)
        if cases >= MANY and self._counting.get(key) is own:
            if len(self._held) >= MOST_HELD:
                self._held.pop(next(iter(self._held)))
            self._held[key] = summary
            asyncio.get_running_loop().call_later(SHOWN_FOR.total_seconds(), self._expire, key, summary)
        return summary

    def _expire(self, key: Key, summary: Summary) -> None:
        """Members are named in it: it does not outlive them for long."""
        if self._held.get(key) is summary:
            del self._held[key]


def _summary(rows: list[Row], at: datetime) -> tuple[Summary, int]:
    """The summary, and how many cases it is about."""
    codes = [row for row in rows if row["member_id"] is None]
    members = [row for row in rows if row["member_id"] is not None][:MOST_MEMBERS]
    summary = Summary(
        unread=sum(row["unread"] for row in codes),
        open=sum(row["open"] for row in codes),
        by_code=tuple(CodeCount(code=row["code"], unread=row["unread"], open=row["open"]) for row in codes),
        by_member=tuple(
            MemberCount(member_id=row["member_id"], unread=row["unread"], open=row["open"]) for row in members
        ),
        as_of=at,
    )
    return summary, sum(row["cases"] for row in codes)
