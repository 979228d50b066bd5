"""The time by which a worker decides: the system's, of which a step back is noticed at the next look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from accessguard.metrics import CLOCK_STEPS

STEP_MS: Final = 1_000
"""Clocks that are slewed go back by less; a second more or less is in nobody's rule."""


class Clock:
    """Milliseconds since the epoch; `stepped` is called when they have gone back.

    What is held until a time that was near is then held until one that is far,
    so it has to be let go of. After a step forward nothing is held too long.
    """

    __slots__ = ("_newest", "_now_ms", "_stepped")

    def __init__(self, now_ms: Callable[[], int], stepped: Callable[[], None]) -> None:
        self._now_ms = now_ms
        self._stepped = stepped
        self._newest = 0

    def __call__(self) -> int:
        """The time now."""
        now = self._now_ms()
        if now > self._newest:
            self._newest = now
        elif now < self._newest - STEP_MS:
            self._newest = now
            CLOCK_STEPS.inc()
            self._stepped()
        return now
