"""Listens to `/v1/stream`, and comes back to where it was when it breaks off."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from accessguard.client.events import Events
from accessguard.client.holding import Holding
from accessguard.client.wire import END, Address, Chunks, Heads, WireError, head

SILENCE_S: Final = 45
"""A stream on which not even a comment came for so long is taken for broken; the service sends one more often."""
FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 10.0
CONNECT_S: Final = 5
BROKEN: Final = (OSError, WireError, ValueError, TimeoutError, EOFError, asyncio.LimitOverrunError)


class Following:
    """The stream of one client; `last` is the id of the last event that was heard."""

    def __init__(self, at: Address, heads: Heads, holding: Holding) -> None:
        self._at = at
        self._heads = heads
        self._holding = holding
        self._task: asyncio.Task[None] | None = None
        self._pause_s = FIRST_PAUSE_S
        self.last: str | None = None
        self.following = False

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Listen until `stop`."""
        self._task = loop.create_task(self._for_ever())

    async def stop(self) -> None:
        """Listen no longer."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _for_ever(self) -> None:
        while True:
            events = Events()
            with contextlib.suppress(*BROKEN):
                await self._once(events)
            self.following = False
            await asyncio.sleep(self._pause_s if events.retry_ms is None else events.retry_ms / 1000)
            self._pause_s = min(LONGEST_PAUSE_S, 2 * self._pause_s)

    async def _once(self, events: Events) -> None:
        """Listen until the stream breaks off. Raises what an attempt to connect or to read may."""
        async with asyncio.timeout(CONNECT_S):
            reader, writer = await self._connect()
        try:
            writer.write(self._heads.stream(self.last))
            async with asyncio.timeout(CONNECT_S):
                found = head((await reader.readuntil(END)).removesuffix(END))
            if found.status != 200 or found.length is not None:
                raise WireError("no stream")
            if self.last is None:  # what happened until now was not told
                self._holding.drop_all()
            self.following, self._pause_s = True, FIRST_PAUSE_S
            await self._listen(reader, events)
        finally:
            writer.close()

    async def _listen(self, reader: asyncio.StreamReader, events: Events) -> None:
        chunks = Chunks()
        while not chunks.ended:
            async with asyncio.timeout(SILENCE_S):
                data = await reader.read(65_536)
            if not data:
                raise EOFError
            for event in events.feed(chunks.feed(data)):
                self._holding.heard(event)
            self.last = events.last or self.last

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._at.path is not None:
            return await asyncio.open_unix_connection(self._at.path)
        return await asyncio.open_connection(self._at.host, self._at.port)
