"""What has to be done now and then, by one worker at a time: partitions for the months to come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import product
from typing import Final

import structlog

from accessguard.errors import GuardError
from accessguard.guard.facts import from_ms
from accessguard.sessions.store import MONTHS_AHEAD, PARTITIONED, SessionStore

EVERY_S: Final = 6 * 3600.0
LOG: Final = structlog.get_logger("accessguard.upkeep")


class Upkeep:
    """One for each worker; an advisory lock lets one of them do the work."""

    def __init__(self, *, sessions: SessionStore, now_ms: Callable[[], int]) -> None:
        self._sessions = sessions
        self._now_ms = now_ms

    async def run(self) -> None:
        """Do what is to be done every six hours, until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(EVERY_S)

    async def once(self) -> None:
        """Make the partitions of this month and the next two.

        Without one, rows go to the default partition: nothing is lost, but
        they cannot be dropped by the month.
        """
        at = from_ms(self._now_ms())
        for parent, ahead in product(PARTITIONED, range(MONTHS_AHEAD + 1)):
            try:
                await self._sessions.ensure_partition(parent, at=at, ahead=ahead)
            except GuardError as error:
                LOG.warning("partition_not_made", table=parent, months_ahead=ahead, reason=error.code)
