"""Asks a service that does not answer only now and then."""

from __future__ import annotations

from collections.abc import Callable


class Breaker:
    """Opens after `failures` in a row for `pause_s`, then lets one exchange try."""

    __slots__ = ("_clock", "_failed", "_failures", "_pause_s", "_until")

    def __init__(self, failures: int, pause_s: float, clock: Callable[[], float]) -> None:
        self._failures = failures
        self._pause_s = pause_s
        self._clock = clock
        self._failed = 0
        self._until = 0.0

    def lets(self) -> bool:
        """Whether to ask; after the pause the one who asks first tries, the others wait on."""
        if self._failed < self._failures:
            return True
        now = self._clock()
        if now < self._until:
            return False
        self._until = now + self._pause_s
        return True

    def succeeded(self) -> None:
        """The service answered."""
        self._failed = 0

    def failed(self) -> None:
        """It did not, or with a 5xx."""
        self._failed += 1
        if self._failed >= self._failures:
            self._until = self._clock() + self._pause_s
