"""Browsers recognised: at once from the string, and better from then on, told once for all workers and tenants.

An answer is never waited for longer than it takes PostgreSQL to say whether there is one. What is told later is
used at the next login. Nothing is lost when the slow half is full, slow or dead: the first answer stands.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

import msgspec

from accessguard.devices.browser import REMEMBERED, Browser, recognise
from accessguard.devices.hints import read_hints
from accessguard.devices.inquiry import Inquiry, InquiryError
from accessguard.devices.recognitions import RecognitionStore
from accessguard.devices.refinement import Asked, Refined, asked_of, improved, refined
from accessguard.errors import GuardError
from accessguard.metrics import RECOGNITIONS, REFINEMENTS, REFINEMENTS_PENDING

WAITING: Final = 1000
"""Strings that may wait to be told, at 15 ms each; a new one beyond them is asked for again at its next login."""
FRESH_MS: Final = 24 * 3600 * 1000
"""After this long PostgreSQL is asked again, so that it knows what is in use."""
AGAIN_MS: Final = 3 * 60 * 1000
"""After this long a string that nobody has told is asked for again."""
OUT_MS: Final = 5 * 1000
"""After this long PostgreSQL is asked again when it did not answer."""
IDLE_S: Final = 60.0
"""After this long without a question the process ends, and its memory is free."""
SWEEP_MS: Final = 6 * 3600 * 1000


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """What this worker remembers of a string, and until when it asks nobody; `told` None while nobody has told."""

    told: Refined | None
    until_ms: int


class Recogniser:
    """One for each worker."""

    def __init__(
        self,
        *,
        store: RecognitionStore,
        inquiry: Inquiry,
        now_ms: Callable[[], int],
        at: Callable[[int], datetime],
        remembered: int = REMEMBERED,
        waiting: int = WAITING,
    ) -> None:
        self._store, self._inquiry, self._now_ms, self._at = store, inquiry, now_ms, at
        self._remembered, self._most = remembered, waiting
        self._held: OrderedDict[Asked, Held] = OrderedDict()
        self._reading: dict[Asked, asyncio.Task[None]] = {}
        self._waiting: asyncio.Queue[Asked] = asyncio.Queue(waiting)
        self._swept_ms: int | None = None

    def at_once(self, user_agent: str | None, hints: Mapping[str, str] | None = None) -> Browser:
        """The browser as far as this worker knows it. Asks nobody."""
        first, held = recognise(user_agent, hints), self._held.get(asked_of(user_agent, hints))
        return first if held is None or held.told is None else improved(first, held.told)

    async def recognise(self, user_agent: str | None, hints: Mapping[str, str] | None = None) -> Browser:
        """The browser as far as anybody knows it, told better from the next time on. Never raises."""
        asked = asked_of(user_agent, hints)
        if not asked.user_agent:
            return recognise(user_agent, hints)
        held = self._held.get(asked)
        if held is not None and self._now_ms() < held.until_ms:
            self._held.move_to_end(asked)
            RECOGNITIONS.labels("provisional" if held.told is None else "memory").inc()
        else:
            await asyncio.shield(self._reading.get(asked) or self._begin(asked))
        return self.at_once(user_agent, hints)

    async def run(self) -> None:
        """Have the strings told that nobody has told yet, one after the other, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(IDLE_S):
                    asked = await self._waiting.get()
            except TimeoutError:
                await self._inquiry.stop()
            else:
                REFINEMENTS_PENDING.set(self._waiting.qsize())
                REFINEMENTS.labels(await self._refine(asked)).inc()
            await self._sweep()

    async def settle(self) -> None:
        """Have told what waits now, and return: for tests and measurements, without `run`."""
        while not self._waiting.empty():
            REFINEMENTS.labels(await self._refine(self._waiting.get_nowait())).inc()

    async def stop(self) -> None:
        """End what is under way; what waits is asked for again at its next login."""
        for task in self._reading.values():
            task.cancel()
        await self._inquiry.stop()

    def _begin(self, asked: Asked) -> asyncio.Task[None]:
        """Look it up once, however many ask at the same time."""
        task = self._reading[asked] = asyncio.create_task(self._read(asked))
        task.add_done_callback(lambda _: self._reading.pop(asked, None))
        return task

    async def _read(self, asked: Asked) -> None:
        now_ms = self._now_ms()
        try:
            told = await self._store.read(asked.key, now=self._at(now_ms))
        except GuardError:
            held = self._held.get(asked)
            RECOGNITIONS.labels("provisional" if held is None or held.told is None else "memory").inc()
            self._hold(asked, None if held is None else held.told, until_ms=now_ms + OUT_MS)
            return
        RECOGNITIONS.labels("provisional" if told is None else "database").inc()
        if told is not None:
            self._hold(asked, told, until_ms=now_ms + FRESH_MS)
        elif self._wait(asked):
            self._hold(asked, None, until_ms=now_ms + AGAIN_MS)

    def _wait(self, asked: Asked) -> bool:
        try:
            self._waiting.put_nowait(asked)
        except asyncio.QueueFull:
            REFINEMENTS.labels("dropped").inc()
            return False
        REFINEMENTS_PENDING.set(self._waiting.qsize())
        return True

    async def _refine(self, asked: Asked) -> str:
        """One string told and kept: how that ended, as the metric calls it."""
        try:
            if not await self._store.claim(asked.key, now=self._at(self._now_ms())):
                return "elsewhere"
            seen = await self._inquiry.ask(asked)
            hints = dict(asked.hints)
            first = recognise(asked.user_agent, hints)
            told = Refined() if seen is None else refined(first, seen, mobile=read_hints(hints).mobile)
            await self._store.keep(asked.key, told, now=self._at(self._now_ms()))
        except (GuardError, InquiryError):
            return "failed"
        self._hold(asked, told, until_ms=self._now_ms() + FRESH_MS)
        return "stumbled" if seen is None else "told"

    def _hold(self, asked: Asked, told: Refined | None, *, until_ms: int) -> None:
        self._held[asked] = Held(told=told, until_ms=until_ms)
        self._held.move_to_end(asked)
        while len(self._held) > self._remembered:
            self._held.popitem(last=False)

    async def _sweep(self) -> None:
        """Drop what nobody uses, every six hours; whoever else does it at the same time drops other rows."""
        now_ms = self._now_ms()
        if self._swept_ms is None:
            self._swept_ms = now_ms
        if now_ms - self._swept_ms < SWEEP_MS:
            return
        self._swept_ms = now_ms
        try:
            await self._store.sweep(now=self._at(now_ms))
        except GuardError:
            REFINEMENTS.labels("failed").inc()
