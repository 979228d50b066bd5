"""Events on their way to whoever follows a tenant: read once for all of a worker's readers, kept for none of them.

A reader takes what is in the ring at its own pace, and from PostgreSQL when
it has fallen behind that; nothing is put aside for it. A worker with readers
looks at the outbox when a pushed change says so, and every second besides, so
that without Valkey nothing is lost but time.
"""

from __future__ import annotations

import asyncio
import contextlib
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterator, Sequence
from itertools import groupby
from typing import Final

from accessguard.errors import ErrorCode, GuardError
from accessguard.events.model import Event, Position
from accessguard.events.outbox import PAGE, OutboxStore

RING: Final = 1_000
"""Events of a tenant that a worker holds for its readers: some 300 kB."""
MOST_READERS: Final = 1_000
MOST_OF_TENANT: Final = 100
POLL_S: Final = 1.0
FIRST_S: Final = 0.005
"""How soon to look again when a change was announced, and an older transaction that still runs hides it; doubled each time."""


class Feed:
    """One tenant's newest events, while somebody of this worker follows it. `since` is the place before the oldest of them."""

    def __init__(self, since: Position) -> None:
        self.readers = 0
        self.since = since
        self.ring: list[Event] = []
        self.news = asyncio.Event()

    @property
    def last(self) -> Position:
        """Up to where it has been read."""
        return self.ring[-1].position if self.ring else self.since

    def put(self, events: Sequence[Event]) -> None:
        """Hold these, which come next, and wake who waits."""
        self.ring += events
        surplus = len(self.ring) - RING
        if surplus > 0:
            self.since = self.ring[surplus - 1].position
            del self.ring[:surplus]
        if events:
            self.wake()

    def wake(self) -> None:
        """Let everybody look who waits."""
        self.news.set()
        self.news = asyncio.Event()

    def after(self, place: Position) -> Sequence[Event] | None:
        """What is held after a place; None when something between is not held any more."""
        if place < self.since:
            return None
        return self.ring[bisect_right(self.ring, place, key=lambda each: each.position) :][:PAGE]


class Feeds:
    """The feeds of a worker. `stopping` is set when its readers should go elsewhere."""

    def __init__(self, store: OutboxStore) -> None:
        self._store = store
        self._feeds: dict[str, Feed] = {}
        self._readers = 0
        self._woken = asyncio.Event()
        self.stopping = False

    def wake(self, tenant: str) -> None:
        """Hear that something was changed."""
        if tenant in self._feeds:
            self._woken.set()

    def stop(self) -> None:
        """Send all readers away, and those who come."""
        self.stopping = True
        for feed in self._feeds.values():
            feed.wake()

    @contextlib.contextmanager
    def _place(self, tenant: str) -> Iterator[None]:
        feed = self._feeds.get(tenant)
        if self.stopping or self._readers >= MOST_READERS or (feed is not None and feed.readers >= MOST_OF_TENANT):
            raise GuardError(ErrorCode.UNAVAILABLE, "Too many follow these events here; try again shortly.")
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1

    @contextlib.asynccontextmanager
    async def follow(self, tenant: str) -> AsyncIterator[Reader]:
        """Follow a tenant's events. Raises GuardError(UNAVAILABLE): too many do, or PostgreSQL is out of reach."""
        with self._place(tenant):
            now = await self._store.now()
            feed = self._feeds.setdefault(tenant, Feed(now))
            feed.readers += 1
            self._woken.set()
            try:
                yield Reader(self, feed, self._store, tenant, now)
            finally:
                feed.readers -= 1
                if not feed.readers:
                    del self._feeds[tenant]

    async def run(self) -> None:
        """Read what is new for whoever follows, until cancelled."""
        wait_s = POLL_S
        while True:
            if not self._feeds:
                await self._woken.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
                    wait_s = FIRST_S / 2
            self._woken.clear()
            with contextlib.suppress(GuardError):
                await self._read()
            wait_s = min(POLL_S, wait_s * 2)

    async def _read(self) -> None:
        """Read until no tenant has more than a page left."""
        more = True
        while more:
            more = False
            for tenant, group in groupby(await self._store.after(self._places()), key=lambda each: each.tenant):
                events, feed = tuple(group), self._feeds.get(tenant)
                if feed is not None:
                    # whoever followed first may have left, and another come, while this was read
                    feed.put([each for each in events if each.position > feed.last])
                    more = more or len(events) == PAGE

    def _places(self) -> dict[str, Position]:
        return {tenant: feed.last for tenant, feed in self._feeds.items()}


class Reader:
    """Somebody's place in a feed."""

    def __init__(self, feeds: Feeds, feed: Feed, store: OutboxStore, tenant: str, now: Position) -> None:
        self._feeds = feeds
        self._feed = feed
        self._store = store
        self._tenant = tenant
        self.place = now

    @property
    def over(self) -> bool:
        """Whether this worker sends its readers away."""
        return self._feeds.stopping

    async def resume(self, after: Position) -> bool:
        """Go on after a place where it was before; False, and nothing is changed, when what came then is gone.

        Raises GuardError(UNAVAILABLE).
        """
        if not await self._store.resumes(self._tenant, after):
            return False
        self.place = after
        return True

    async def next(self, within_s: float) -> Sequence[Event]:
        """What comes next, in order; nothing when that takes longer, or the worker sends its readers away."""
        news = self._feed.news
        events = await self._at_hand()
        if not events and not self.over:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await news.wait()
            events = await self._at_hand()
        if events:
            self.place = events[-1].position
        return events

    async def _at_hand(self) -> Sequence[Event]:
        held = self._feed.after(self.place)
        return held if held is not None else await self._store.after({self._tenant: self.place})
