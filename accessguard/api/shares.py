"""A turn of the loop is shared by callers: whoever fills it alone leaves room for the others.

Nothing is counted while checks are answered. When a turn had many answers, it is
looked at whose they were. Those connections of a caller that are beyond its share
are not read for a while: what they ask waits in their sockets, and comes some at a
time in the next turns. So turns are short, whoever asks: one connection is
accepted in a turn, and answers of the stores wait for its end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Hashable, Sequence
from typing import Final, Protocol

from accessguard.api.keys import Caller

CROWD: Final = 40
"""Answers in one turn from which on it is looked at whose they are: more than a generator with 32 connections makes."""
CROWDED: Final = 7
"""The same while somebody rests for that: then whoever has answers in a turn rests, until it is their turn again."""
SHARE: Final = 8
"""Answers of one caller in one such turn: some 0.1 ms of work; more come to it from turn to turn, until it is crowded again."""


class Asking(Protocol):
    """A connection, as far as it has a share."""

    caller: Caller | None

    def rest(self) -> bool:
        """Read nothing until `wake`; False when it does so already."""

    def wake(self) -> None:
        """Read again."""


class Shares:
    """One for each worker."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._resting: dict[Hashable, deque[tuple[Asking, int]]] = {}
        self.crowd = CROWD
        """Answers in one turn from which on `crowded` is to be told of it."""

    def crowded(self, asked: Sequence[Asking]) -> None:
        """Look at a turn that answered these, one entry for each answer."""
        by = dict[Hashable, dict[Asking, int]]()
        for each in asked:
            if (caller := each.caller) is not None:
                counts = by.setdefault((caller.tenant, caller.subject), {})
                counts[each] = counts.get(each, 0) + 1
        for key, counts in by.items():
            self._part(key, counts)

    def _part(self, key: Hashable, counts: dict[Asking, int]) -> None:
        """Let those of one caller rest that are beyond its share; all of them, when others of it rest already and come first."""
        taken, behind = 0, key in self._resting
        for each, answers in counts.items():
            taken += answers
            if (behind or taken > SHARE) and each.rest():
                if not self._resting:
                    self.crowd = CROWDED
                    self._loop.call_soon(self._wake)
                self._resting.setdefault(key, deque()).append((each, answers))

    def _wake(self) -> None:
        """Wake as many of each caller's as have its share, in the order in which they began to rest."""
        for key, line in tuple(self._resting.items()):
            taken = 0
            while line and taken < SHARE:
                each, answers = line.popleft()
                taken += answers
                each.wake()
            if not line:
                del self._resting[key]
        if self._resting:
            self._loop.call_soon(self._wake)
        else:
            self.crowd = CROWD
