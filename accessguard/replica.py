"""Lists and reports from a replica of PostgreSQL that has everything the primary had when they were asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from accessguard.database import Database, Row
from accessguard.errors import GuardError
from accessguard.metrics import REPLICA_READS

T = TypeVar("T")

WRITTEN: Final = "SELECT pg_current_wal_flush_lsn()::text"
REACHED: Final = "SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= $1::text::pg_lsn"
WAITS_S: Final = (0.0, 0.005, 0.01, 0.02, 0.04, 0.1)
"""How long a replica is given to catch up, in steps; one that is further behind is left out."""
REPLICA_S: Final = 1.0
"""How long a replica may take for a list; then the primary is asked."""


class Reading(Database):
    """Reads on a replica what an operator asks for, and on the primary when that is out, or behind.

    Whoever has just written something, by whichever worker, reads it: the
    place in the primary's journal is asked for first, and the replica must
    have come as far. What is no read fails there and is done on the primary.
    """

    def __init__(self, primary: Database, replica: Database) -> None:
        self._primary = primary
        self._replica = replica

    async def close(self) -> None:
        """Close the replica's pool; the primary is closed by who opened it."""
        await self._replica.close()

    async def fetch(self, statement: str, *values: object, timeout_s: float | None = None) -> list[Row]:
        """Every row of one statement. Raises GuardError(UNAVAILABLE)."""
        return await self._read(lambda db: db.fetch(statement, *values, timeout_s=timeout_s))

    async def row(self, statement: str, *values: object, timeout_s: float | None = None) -> Row | None:
        """The first row of one statement, or None. Raises GuardError(UNAVAILABLE)."""
        return await self._read(lambda db: db.row(statement, *values, timeout_s=timeout_s))

    async def _read(self, read: Callable[[Database], Awaitable[T]]) -> T:
        try:
            written = await self._primary.value(WRITTEN)
            # On one connection: behind one address there may be several replicas.
            async with self._replica.transaction() as there:
                if await _reached(there, written):
                    found = await read(there)
                    REPLICA_READS.labels("replica").inc()
                    return found
        except GuardError:
            pass  # the primary says what is wrong, if it is not the replica
        REPLICA_READS.labels("primary").inc()
        return await read(self._primary)


async def _reached(replica: Database, written: str) -> bool:
    for wait_s in WAITS_S:
        await asyncio.sleep(wait_s)
        if await replica.value(REACHED, written):
            return True
    return False
