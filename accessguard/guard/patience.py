"""Beats that Valkey does not answer are given up in time for their checks to be decided without it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections import deque
from typing import Final

from accessguard.guard.memory import Held
from accessguard.guard.model import Check

LOOK_S: Final = 0.01
SHARE: Final = 0.4
"""Of a check's deadline, what its beat may take; with two looks at 100 ms that is 60 at most."""


class Beating(ABC):
    """One beat under way: what is needed when it is heard, in one object. Whoever settles it first is heard.

    `since` is when it began (the loop's time).
    """

    __slots__ = ("asked", "held", "now_ms", "settled", "since", "tenant")

    def __init__(self, tenant: str, asked: Check, held: Held, now_ms: int) -> None:
        self.tenant = tenant
        self.asked = asked
        self.held = held
        self.now_ms = now_ms
        self.settled = False
        self.since = 0.0

    def settle(self, stands: bool) -> None:  # noqa: FBT001 - the one thing that is said
        """Say whether the verdict stands."""
        if not self.settled:
            self.settled = True
            self.then(stands)

    @abstractmethod
    def then(self, stands: bool) -> None:  # noqa: FBT001 - as above
        """What hears it, once."""


class Awaited(Beating):
    """One that a future hears."""

    __slots__ = ("stands",)

    def __init__(self, tenant: str, asked: Check, held: Held, now_ms: int) -> None:
        super().__init__(tenant, asked, held, now_ms)
        self.stands: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def then(self, stands: bool) -> None:  # noqa: FBT001 - as above
        """Tell the future, which nobody gives up."""
        self.stands.set_result(stands)


class Patience:
    """Waits `within_s` for each; one timer for all of them, as long as there are any."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._line: deque[Beating] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._looked = 0.0

    def wait(self, beating: Beating) -> None:
        """Wait for one; it hears False when its time is over."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        beating.since = now
        self._line.append(beating)
        if self._timer is None:
            self._looked, self._timer = now, loop.call_later(LOOK_S, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give up what was late at the last look already: at first it may be this process that stood still."""
        line, since = self._line, self._looked - self._within_s
        while line and (line[0].settled or line[0].since <= since):
            line.popleft().settle(False)  # noqa: FBT003 - the one thing that is said
        self._looked = loop.time()
        self._timer = loop.call_later(LOOK_S, self._look, loop) if line else None
