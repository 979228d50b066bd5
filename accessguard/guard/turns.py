"""One at a time for each key within this worker; others wait, and nobody for long."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Final

from accessguard.errors import ErrorCode, GuardError

PATIENCE_S: Final = 20.0
"""Two hundred logins of one member at once, at 100 ms each: a busy machine takes a third of that."""


class BusyError(GuardError):
    """Too many others were before it: UNAVAILABLE, though no store is out."""

    def __init__(self) -> None:
        super().__init__(ErrorCode.UNAVAILABLE, "Another login of this member is under way; try again.")


class Turns:
    """Locks by key that exist only while somebody holds or awaits them."""

    def __init__(self) -> None:
        self._locks: dict[Hashable, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def turn(self, key: Hashable) -> AsyncIterator[None]:
        """Wait for the turn of `key`, and give it on at the end. Raises BusyError after 20 s."""
        lock, waiting = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = (lock, waiting + 1)
        try:
            await (self._mine(lock) if waiting else lock.acquire())  # nobody has it: no need of a clock
            try:
                yield
            finally:
                lock.release()
        finally:
            lock, waiting = self._locks[key]
            if waiting == 1:
                del self._locks[key]
            else:
                self._locks[key] = (lock, waiting - 1)

    async def _mine(self, lock: asyncio.Lock) -> None:
        try:
            async with asyncio.timeout(PATIENCE_S):
                await lock.acquire()
        except TimeoutError as error:
            raise BusyError from error
