"""Beats gathered by a worker and flushed in bulk about once a second; nothing lost on a clean stop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from accessguard.errors import GuardError
from accessguard.metrics import ACTIVITY_DROPPED, ACTIVITY_FLUSHED, ACTIVITY_PENDING, FLUSH_FAILURES, FLUSH_SECONDS
from accessguard.sessions.model import BEAT_MS, Beat
from accessguard.sessions.store import SessionStore

INTERVAL: Final = timedelta(milliseconds=BEAT_MS)
MOST_PENDING: Final = 200_000
MOST_AT_ONCE: Final = 500
"""A millisecond to write down as JSON, during which no check is answered, and some 40 ms of locked rows."""


class ActivityLog:
    """Pending beats of this worker, oldest first; at `MOST_PENDING` the oldest are dropped and counted."""

    def __init__(self, store: SessionStore, *, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._pending: list[Beat] = []
        self._turn = asyncio.Lock()

    def add(self, beat: Beat) -> None:
        """Take a beat over; it is in PostgreSQL about a second later."""
        self._pending.append(beat)
        if len(self._pending) > MOST_PENDING:
            self._bound()

    async def flush(self) -> None:
        """Write everything pending; what cannot be written stays pending.

        Returns after what was pending at the call is written. Raises
        GuardError(UNAVAILABLE) when Postgres is out of reach.
        """
        ACTIVITY_PENDING.set(len(self._pending))
        if not self._pending and not self._turn.locked():
            return
        async with self._turn:
            while self._pending:
                batch = self._pending[:MOST_AT_ONCE]
                del self._pending[:MOST_AT_ONCE]
                await self._write(batch)

    async def run(self, every_s: float, *, held_back: Callable[[], bool] = bool) -> None:
        """Flush every `every_s` seconds until cancelled; a failure is counted and tried again.

        Not while `held_back`: beats of sessions that are not there yet would be passed over.
        """
        while True:
            await asyncio.sleep(every_s)
            if held_back():
                continue
            try:
                await self.flush()
            except GuardError:
                FLUSH_FAILURES.inc()

    async def _write(self, batch: list[Beat]) -> None:
        began = self._clock()
        try:
            await self._store.flush(batch, INTERVAL)
        except BaseException:
            self._pending[:0] = batch
            self._bound()
            raise
        FLUSH_SECONDS.observe(self._clock() - began)
        ACTIVITY_FLUSHED.inc(len(batch))
        ACTIVITY_PENDING.set(len(self._pending))

    def _bound(self) -> None:
        surplus = len(self._pending) - MOST_PENDING
        if surplus > 0:
            del self._pending[:surplus]
            ACTIVITY_DROPPED.inc(surplus)
        ACTIVITY_PENDING.set(len(self._pending))
