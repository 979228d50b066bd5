"""How many cases a reader has not read in all, for every page of theirs: added up from their sheet, never counted from the cases."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final, TypeAlias

from accessguard.database import Database

MOVED: Final = 5_000
"""Members who are counted one by one before all cases are gone through (members/sheets.py)."""
COUNTING_S: Final = 60.0
SOON_S: Final = 0.1
"""How long a page waits for it; the page after it shows what was still being counted."""
GOOD_FOR_S: Final = 5.0
SHOWN_FOR_S: Final = 60.0
"""How long it is shown at most, while it is counted anew: whoever opens one page after the other does not wait."""
MOST_HELD: Final = 10_000

SHEET: Final = "SELECT unread_catch_up($1, $2, $3)"
TOTAL: Final = "SELECT coalesce(sum(unread), 0)::bigint FROM unread_member WHERE tenant = $1 AND reader = $2"

Key: TypeAlias = tuple[str, str]


class Unread:
    """What was counted last, by tenant and reader; whoever asks at the same time waits for one count together."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._held: dict[Key, tuple[int, float]] = {}
        self._counting: dict[Key, asyncio.Task[None]] = {}

    async def soon(self, tenant: str, reader: str) -> int | None:
        """The number as it is, or as it was within a minute; None where nobody knows it yet. Who has marked something waits.

        Raises GuardError(UNAVAILABLE) when Postgres is out of reach.
        """
        key = (tenant, reader)
        number, at = self._held.get(key, (None, float("-inf")))
        age_s = asyncio.get_running_loop().time() - at
        if number is not None and age_s < GOOD_FOR_S:
            return number
        counting = self._started(key)
        if number is not None and age_s < SHOWN_FOR_S:
            return number
        await asyncio.wait({counting}, timeout=SOON_S)
        if counting.done():
            counting.result()
        return self._held.get(key, (None, 0.0))[0]

    def moved(self, tenant: str, reader: str) -> None:
        """The reader has marked something: their sheet is brought up to date before anybody asks."""
        key = (tenant, reader)
        if key in self._held:
            self._held[key] = (self._held[key][0], float("-inf"))
        self._counting.pop(key, None)
        self._started(key)

    def _started(self, key: Key) -> asyncio.Task[None]:
        counting = self._counting.get(key)
        if counting is None:
            counting = self._counting[key] = asyncio.create_task(self._count(key))
            counting.add_done_callback(partial(self._counted, key))
        return counting

    def _counted(self, key: Key, task: asyncio.Task[None]) -> None:
        if self._counting.get(key) is task:
            del self._counting[key]
        if not task.cancelled():
            task.exception()  # told to whoever waits, if anybody does

    async def _count(self, key: Key) -> None:
        own = asyncio.current_task()
        sheet = await self._db.value(SHEET, *key, MOVED, timeout_s=COUNTING_S)
        number = int(await self._db.value(TOTAL, key[0], sheet))
        if self._counting.get(key) is own:
            if len(self._held) >= MOST_HELD:
                self._held.pop(next(iter(self._held)))
            self._held[key] = (number, asyncio.get_running_loop().time())
