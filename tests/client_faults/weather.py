"""A Unix socket in front of the service that treats answers as bad networks and sick servers do."""

from __future__ import annotations

import asyncio
import contextlib
import random
from enum import StrEnum
from pathlib import Path
from typing import Final

PIECE: Final = 65_536
LONGEST_WAIT_S: Final = 1.5
"""How long a slow answer takes at most: three deadlines of a check."""


class Weather(StrEnum):
    """What happens to connections; the last two only to streams."""

    FAIR = "fair"
    REFUSED = "refused"
    SILENT = "silent"
    SLOW = "slow"
    GARBAGE = "garbage"
    HALF = "half an answer"
    HALF_CLOSED = "half-closed"
    CUT = "cut"
    TWICE = "twice"
    STREAM_CUT = "stream cut"
    STREAM_SILENT = "stream silent"


class Sky:
    """Stands at `path` for the service at `port` of the loopback interface."""

    def __init__(self, path: Path, port: int, dice: random.Random) -> None:
        self.path, self._port, self._dice = path, port, dice
        self.weather = Weather.FAIR
        self._fair = asyncio.Event()
        self._fair.set()
        self._server: asyncio.Server | None = None
        self.writers: set[asyncio.StreamWriter] = set()
        self._streams: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def streams(self) -> int:
        """How many streams are open."""
        return len(self._streams)

    async def turn(self, weather: Weather) -> None:
        """Treat connections like this from now on."""
        self.weather = weather
        (self._fair.clear if weather in {Weather.SILENT, Weather.STREAM_SILENT} else self._fair.set)()
        if weather is Weather.REFUSED:
            await self.stop()
        elif self._server is None:
            self.path.unlink(missing_ok=True)
            self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        if weather is Weather.STREAM_CUT:
            for each in tuple(self._streams):
                each.transport.abort()
        if weather is Weather.CUT:
            self._abort()

    async def stop(self) -> None:
        """Listen no longer, and let go of everything."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._abort()
        for each in tuple(self._tasks):
            each.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _abort(self) -> None:
        for each in tuple(self.writers):
            each.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.writers.add(writer)
        try:
            await self._joined(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            self.writers.discard(writer)
            self._streams.discard(writer)
            writer.transport.abort()

    async def _joined(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(PIECE)
        if not first:
            return
        stream = first.startswith(b"GET")
        if stream:
            self._streams.add(writer)
        back, there = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            there.write(first)
            ways = [
                asyncio.create_task(self._asked(reader, there, stream=stream)),
                asyncio.create_task(self._answered(back, writer, stream=stream)),
            ]
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for each in ways:
                    each.cancel()
                await asyncio.gather(*ways, return_exceptions=True)
        finally:
            there.transport.abort()

    async def _asked(self, reader: asyncio.StreamReader, there: asyncio.StreamWriter, *, stream: bool) -> None:
        while data := await reader.read(PIECE):
            await self._held(stream=stream)
            there.write(data)

    async def _answered(self, back: asyncio.StreamReader, writer: asyncio.StreamWriter, *, stream: bool) -> None:
        while data := await back.read(PIECE):
            await self._held(stream=stream)
            await self._treated(data, writer, stream=stream)

    async def _held(self, *, stream: bool) -> None:
        if stream or self.weather is not Weather.STREAM_SILENT:
            await self._fair.wait()

    async def _treated(self, data: bytes, writer: asyncio.StreamWriter, *, stream: bool) -> None:
        weather, dice = self.weather, self._dice
        if weather is Weather.STREAM_CUT and stream:
            raise ConnectionError
        if weather in {Weather.FAIR, Weather.STREAM_CUT, Weather.STREAM_SILENT} or dice.random() < 0.5:
            writer.write(data)
            return
        at = dice.randrange(len(data))
        if weather is Weather.SLOW:
            await asyncio.sleep(dice.uniform(0, LONGEST_WAIT_S))
            writer.write(data)
        elif weather is Weather.GARBAGE:
            writer.write(data[:at] + dice.randbytes(dice.randrange(1, 400)) + data[at:])
        elif weather is Weather.TWICE:
            writer.write(data + data)
        else:
            writer.write(data[:at])
            await self._broken(weather, writer)

    async def _broken(self, weather: Weather, writer: asyncio.StreamWriter) -> None:
        """The rest of an answer never comes; nothing says so, or half of the connection does, or all of it."""
        if weather is Weather.HALF_CLOSED:
            with contextlib.suppress(OSError):
                writer.write_eof()
        if weather is not Weather.CUT:
            await asyncio.sleep(LONGEST_WAIT_S)
        raise ConnectionError
