"""Connections of a worker: how many, and none that holds one for nothing.

Nobody is asked anything while requests are answered: a round over all
connections, every second and in slices, looks at what each is waiting for.
When there are too many, those that hold back a request go first, then idle
ones, each time of whichever address has most of them, so that a crowd from one
place makes room among itself.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection, Iterator
from enum import IntEnum
from typing import Final, Protocol

import msgspec

from accessguard.metrics import CONNECTIONS, CONNECTIONS_CUT

ROUND_S: Final = 1.0
SLICE_S: Final = 0.02
AT_ONCE: Final = 500
"""Connections that are looked at in one go: some 0.3 ms."""
PARTING_S: Final = 0.001
"""The pause after each that was parted with, which takes some 0.1 ms: a thousand clients that came at once are late at once."""
SHARE: Final = 32
"""When there are too many, one in so many goes, so that the next ones find room without another look."""
REST_S: Final = 0.1
"""How long nobody looks again for room where there was none."""


class Stage(IntEnum):
    """What a connection waits for; in the order in which it is parted with."""

    HOLDING = 0
    """the rest of a request"""
    IDLE = 1
    """the next request"""
    UNREAD = 2
    """its reader"""
    BUSY = 3
    """an answer of ours"""


class Connection(Protocol):
    """One connection, as far as it is looked after here."""

    def stage(self) -> tuple[Stage, float]:
        """What it waits for, and since when (loop time)."""

    def peer(self) -> str | None:
        """The socket's other end."""

    def late(self) -> None:
        """Say that the request took too long, and close."""

    def cut(self) -> None:
        """Close it now, whatever lies unread."""

    def forget(self) -> None:
        """Know no caller any more."""


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How many connections may be open, and how long a request may take to arrive and an answer may lie unread (s)."""

    connections: int = 8_192
    request_s: float = 20
    write_s: float = 30


class Connections:
    """Those that are open now."""

    def __init__(self, patience: Patience, loop: asyncio.AbstractEventLoop) -> None:
        self._patience = patience
        self._loop = loop
        self._open: set[Connection] = set()
        self._round: Iterator[Connection] | None = None
        self._full_until = 0.0

    def all(self) -> Collection[Connection]:
        """Every one."""
        return tuple(self._open)

    def enter(self, each: Connection) -> bool:
        """Take one in; False when there is no room, and none to be made."""
        if len(self._open) >= self._patience.connections and not self._make_room():
            CONNECTIONS_CUT.labels("refused").inc()
            return False
        self._open.add(each)
        CONNECTIONS.inc()
        if self._round is None:
            self._begin()
        return True

    def leave(self, each: Connection) -> None:
        """Let one go."""
        if each in self._open:
            self._open.remove(each)
            CONNECTIONS.dec()

    def _begin(self) -> None:
        self._round = iter(self.all())
        self._loop.call_later(ROUND_S, self._look)

    def _look(self) -> None:
        """Look at the next slice; after the last one the round begins anew, while there is anybody."""
        now = self._loop.time()
        for _ in range(AT_ONCE):
            each = next(self._round, None) if self._round is not None else None
            if each is None:
                self._round = None
                if self._open:
                    self._begin()
                return
            if each in self._open and self._parted(each, now):
                self._loop.call_later(PARTING_S, self._look)
                return
        self._loop.call_later(SLICE_S, self._look)

    def _parted(self, each: Connection, now: float) -> bool:
        """Part with one that has waited too long for its caller."""
        stage, since = each.stage()
        if stage is Stage.HOLDING and now - since > self._patience.request_s:
            CONNECTIONS_CUT.labels("late").inc()
            each.late()
            return True
        if stage is Stage.UNREAD and now - since > self._patience.write_s:
            CONNECTIONS_CUT.labels("unread").inc()
            each.cut()
            return True
        return False

    def _make_room(self) -> bool:
        """Part with some; whether there are fewer now than may be."""
        now = self._loop.time()
        if now < self._full_until:
            return False
        found = [(each, *each.stage(), each.peer()) for each in self._open]
        spare = [one for one in found if one[1] <= Stage.IDLE]
        crowds = Counter((stage, peer) for _, stage, _, peer in spare)
        spare.sort(key=lambda one: (one[1], -crowds[one[1], one[3]], one[2]))
        for each, *_ in spare[: max(1, self._patience.connections // SHARE)]:
            CONNECTIONS_CUT.labels("room").inc()
            each.cut()
            self.leave(each)
        if not spare:
            self._full_until = now + REST_S
        return bool(spare)
