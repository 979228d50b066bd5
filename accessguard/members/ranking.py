"""The first of a ranking that takes long, held for whoever looks at it again soon."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar

import msgspec

Item = TypeVar("Item")

HELD: Final = 500
"""So many of a ranking are held: ten pages."""
GOOD_FOR_S: Final = 60.0
SHOWN_FOR_S: Final = 600.0
"""How long they are shown at most, while they are ranked anew."""
MOST_HELD: Final = 100


class Begun(msgspec.Struct, Generic[Item], frozen=True, kw_only=True):
    """The first of a ranking, as they were at `at` (loop time)."""

    items: Sequence[Item]
    at: float


class Rankings(Generic[Item]):
    """By what was asked for; `place` tells where an item stands, so that a page may begin after any."""

    def __init__(self, place: Callable[[Hashable, Item], Any]) -> None:
        self._place = place
        self._held: dict[Hashable, Begun[Item]] = {}
        self._ranking: dict[Hashable, asyncio.Task[None]] = {}

    def page(
        self, asked: Hashable, after: object, limit: int, again: Callable[[int], Awaitable[Sequence[Item]]]
    ) -> Sequence[Item] | None:
        """A full page of what is held, after a place in it (None: from its begin); None where it has to be asked for.

        After GOOD_FOR_S it is ranked anew by `again(most)`, on the side.
        """
        held = self._held.get(asked)
        age_s = SHOWN_FOR_S if held is None else asyncio.get_running_loop().time() - held.at
        if held is None or age_s >= SHOWN_FOR_S:
            return None
        if age_s >= GOOD_FOR_S:
            self.hold(asked, again)
        begin = 0
        if after is not None:
            places = [self._place(asked, each) for each in held.items]
            begin = places.index(after) + 1 if after in places else HELD
        found = held.items[begin : begin + limit]
        return found if len(found) == limit else None

    def hold(self, asked: Hashable, again: Callable[[int], Awaitable[Sequence[Item]]]) -> None:
        """Have the first ranked and held, on the side, unless somebody does so already."""
        if asked not in self._ranking:
            task = self._ranking[asked] = asyncio.create_task(self._renew(asked, again))
            task.add_done_callback(partial(self._renewed, asked))

    async def _renew(self, asked: Hashable, again: Callable[[int], Awaitable[Sequence[Item]]]) -> None:
        loop = asyncio.get_running_loop()
        begun = Begun(at=loop.time(), items=await again(HELD))
        self._held.pop(asked, None)
        if len(self._held) >= MOST_HELD:
            self._held.pop(next(iter(self._held)))
        self._held[asked] = begun
        loop.call_later(SHOWN_FOR_S, self._expire, asked, begun)

    def _renewed(self, asked: Hashable, task: asyncio.Task[None]) -> None:
        self._ranking.pop(asked, None)
        if not task.cancelled():
            task.exception()  # whoever asks next is answered by PostgreSQL itself, or told

    def _expire(self, asked: Hashable, begun: Begun[Item]) -> None:
        """Members are named in it: it does not outlive them for long."""
        if self._held.get(asked) is begun:
            del self._held[asked]
