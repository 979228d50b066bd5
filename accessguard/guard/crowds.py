"""First logins of one browser that are under way at once: they are one device.

See docs/decisions/0005-device-token.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Final
from uuid import UUID

AT_ONCE: Final = timedelta(seconds=2)
"""How long ago another worker may have had the last of them; a private window is rarely opened as fast."""

LINGER_S: Final = 2.0
"""How long a crowd of two or more waits for stragglers of the same burst, which a busy worker reads late."""

MOST_ANSWERED: Final = 4096
"""Devices of whose first login the answer has left; what is forgotten of them lasts 2 s at the most anyway."""


class Crowd:
    """First logins under way of one browser; `device_id` is what the first of them made, once it has."""

    __slots__ = ("burst", "device_id", "size")

    def __init__(self) -> None:
        self.device_id: UUID | None = None
        self.size = 0
        self.burst = False


class Crowds:
    """The crowds of one worker, by whatever makes a browser the same."""

    def __init__(self) -> None:
        self._crowds: dict[Hashable, Crowd] = {}
        self._answered: dict[UUID, None] = {}

    @contextmanager
    def joined(self, key: Hashable | None) -> Iterator[Crowd | None]:
        """Be one of a crowd until the answer is there; None for a login that is no first one."""
        if key is None:
            yield None
            return
        crowd = self._crowds.setdefault(key, Crowd())
        crowd.size += 1
        crowd.burst = crowd.burst or crowd.size > 1
        try:
            yield crowd
        finally:
            crowd.size -= 1
            if crowd.burst:
                asyncio.get_running_loop().call_later(LINGER_S, self._end, key, crowd)
            else:
                self._end(key, crowd)

    def _end(self, key: Hashable, crowd: Crowd) -> None:
        if crowd.size == 0 and self._crowds.get(key) is crowd:
            del self._crowds[key]
            self._remember(crowd.device_id)

    def same(self, crowd: Crowd | None, device_id: UUID) -> bool:
        """Whether a device that was made just now may be this crowd's: its own, or made by another worker."""
        return crowd is not None and (crowd.device_id == device_id or device_id not in self._answered)

    def _remember(self, device_id: UUID | None) -> None:
        if device_id is None:
            return
        self._answered[device_id] = None
        if len(self._answered) > MOST_ANSWERED:
            del self._answered[next(iter(self._answered))]
