"""How long a check may take in all, whatever it has to ask on the way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from accessguard.errors import ErrorCode, GuardError
from accessguard.metrics import DEADLINE_MISSES

T = TypeVar("T")


class Deadline:
    """The moment `seconds` from now, or from `since` (the loop's time); `entry` is what it is the deadline of."""

    __slots__ = ("_at", "_clock", "_misses")

    def __init__(self, seconds: float, *, entry: str, since: float | None = None) -> None:
        self._clock = asyncio.get_running_loop().time
        self._at = (self._clock() if since is None else since) + seconds
        self._misses = DEADLINE_MISSES.labels(entry)

    @property
    def left_s(self) -> float:
        """The seconds that are left; a millisecond once there are none, so that nothing takes it for no limit."""
        return max(0.001, self._at - self._clock())

    def missed(self) -> GuardError:
        """Count that something was not waited for any longer; the error to say so."""
        self._misses.inc()
        return GuardError(ErrorCode.UNAVAILABLE, "A store takes too long; try again shortly.")

    async def within(self, call: Awaitable[T], *, share: float = 1.0) -> T:
        """What `call` answers in (a share of) the time that is left. Raises GuardError(UNAVAILABLE) when it does not."""
        try:
            async with asyncio.timeout(self.left_s * share):
                return await call
        except TimeoutError:
            raise self.missed() from None
