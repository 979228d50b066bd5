"""A member's devices are bounded: whoever logs in is let in, and the devices that nobody has come with for longest make room."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import structlog

from accessguard.database import Database
from accessguard.devices.room import AT_ONCE, Place, RoomStore
from accessguard.errors import GuardError
from accessguard.guard.facts import from_ms
from accessguard.guard.upkeep import Chore, Job
from accessguard.metrics import DEVICES_FORGOTTEN

MEMBERS: Final = 10_000
"""Looked at in one step of upkeep: some 30 ms over an index."""
MADE: Final = 50
"""Members for whom room is made in one step, with 10 to 20 ms for a thousand devices too many."""
LOG: Final = structlog.get_logger("accessguard.room")


class Room:
    """At most `most` devices that are known of one member, and as many that are forgotten.

    Made after the commit of the login that was one too many, so there are
    moments with one more for each login that is under way; one whose worker
    dies there leaves it to the next, or to upkeep.
    """

    def __init__(self, *, db: Database, most: int, now_ms: Callable[[], int]) -> None:
        self.most = most
        self._db = db
        self._now_ms = now_ms
        self._after = Place()
        self._crowded: tuple[Place, ...] = ()
        self.chore = Chore(job=Job.DEVICES, every=timedelta(days=1), step=self.tidy, most=1)

    async def after_login(self, tenant: str, member_id: str, device_id: UUID | None) -> None:
        """Make room behind a login that brought a device. What fails is left to upkeep: the login is written."""
        try:
            place = Place(tenant=tenant, member_id=member_id)
            await self._make(self._db, place, from_ms(self._now_ms()), spared=device_id)
        except GuardError as error:
            LOG.warning("no_room_made", reason=error.code)

    async def tidy(self, tx: Database, now: datetime) -> int:
        """Go on through all members; 1 when there are more of them.

        Where it has come to is known to this worker alone: another one begins anew.
        """
        if not self._crowded:
            crowded, last = await RoomStore(tx, most=self.most).crowded(self._after, members=MEMBERS)
            self._crowded, self._after = crowded, last or Place()
        for place in self._crowded[:MADE]:
            await self._make(tx, place, now)
        self._crowded = self._crowded[MADE:]
        return int(bool(self._crowded) or self._after != Place())

    async def _make(self, db: Database, place: Place, at: datetime, *, spared: UUID | None = None) -> None:
        store = RoomStore(db, most=self.most)
        forgotten = AT_ONCE
        while forgotten == AT_ONCE:
            forgotten = await store.make(place, spared=spared, at=at)
            DEVICES_FORGOTTEN.inc(forgotten)
        await store.drop(place)
