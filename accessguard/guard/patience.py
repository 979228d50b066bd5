"""Beats that Valkey does not answer are given up in time for their checks to be decided without it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

LOOK_S: Final = 0.01
SHARE: Final = 0.4
"""Of a check's deadline, what its beat may take; with two looks at 100 ms that is 60 at most."""


class Waiting:
    """One beat under way; whoever settles it first is heard."""

    __slots__ = ("_then",)

    def __init__(self, then: Callable[[bool], None]) -> None:
        self._then: Callable[[bool], None] | None = then

    @property
    def settled(self) -> bool:
        """Whether somebody was heard."""
        return self._then is None

    def drop(self) -> None:
        """Say nothing: it was never under way."""
        self._then = None

    def settle(self, stands: bool) -> None:  # noqa: FBT001 - the one thing that is said
        """Say whether the verdict stands."""
        then, self._then = self._then, None
        if then is not None:
            then(stands)


class Patience:
    """Waits `within_s` for each; one timer for all of them, as long as there are any."""

    def __init__(self, within_s: float) -> None:
        self._within_s = within_s
        self._line: deque[tuple[float, Waiting]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._looked = 0.0

    def wait(self, then: Callable[[bool], None]) -> Waiting:
        """Wait for one; `then` hears False when its time is over."""
        loop, waiting = asyncio.get_running_loop(), Waiting(then)
        now = loop.time()
        self._line.append((now + self._within_s, waiting))
        if self._timer is None:
            self._looked, self._timer = now, loop.call_later(LOOK_S, self._look, loop)
        return waiting

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Give up what was late at the last look already: at first it may be this process that stood still."""
        line = self._line
        while line and (line[0][1].settled or line[0][0] <= self._looked):
            line.popleft()[1].settle(False)  # noqa: FBT003 - the one thing that is said
        self._looked = loop.time()
        self._timer = loop.call_later(LOOK_S, self._look, loop) if line else None
