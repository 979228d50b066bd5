"""A Unix socket in front of a store's own, which a test may cut: connections are refused and dropped, or hang."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import cast


class Line(StrEnum):
    """How the relay treats what comes."""

    OPEN = "open"
    DEAD = "dead"
    SILENT = "silent"


class _End(asyncio.Protocol):
    """One end of a relayed connection; what it hears goes to the other."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.transport: asyncio.Transport | None = None
        self.other: _End | None = None
        self._heard: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.relay.ends.add(self)

    def data_received(self, data: bytes) -> None:
        self._heard.append(data)
        self.hand_on()

    def hand_on(self) -> None:
        """Give the other end what was heard, if the line is open."""
        if self.relay.line is Line.OPEN and self.other is not None and self._heard:
            heard, self._heard = b"".join(self._heard), []
            if self.other.transport is not None:
                self.other.transport.write(heard)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.relay.ends.discard(self)
        self.transport = None
        if self.other is not None and self.other.transport is not None:
            self.other.transport.close()


class _Caller(_End):
    """The end of whoever connects to the relay."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.relay.join(self)


class Relay:
    """Stands at `path` for what listens at `target`."""

    def __init__(self, path: Path, target: Path) -> None:
        self._path, self._target = path, target
        self._joining: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._open = asyncio.Event()
        self.ends: set[_End] = set()
        self.line = Line.OPEN

    async def start(self) -> None:
        """Listen."""
        await self.set(Line.OPEN)

    async def set(self, line: Line) -> None:
        """Treat connections like this from now on, those that there are and new ones."""
        self.line = line
        if line is Line.DEAD:
            await self._close()
            return
        if self._server is None:
            self._path.unlink(missing_ok=True)
            self._server = await asyncio.get_running_loop().create_unix_server(
                lambda: _Caller(self), str(self._path), backlog=512
            )
        if line is Line.OPEN:
            self._open.set()
        else:
            self._open.clear()
        for each in tuple(self.ends):
            each.hand_on()

    async def stop(self) -> None:
        """Let go of everything."""
        await self._close()

    def join(self, caller: _Caller) -> None:
        """Lead a new connection to the target, once the line is open."""
        task = asyncio.get_running_loop().create_task(self._join(caller))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    async def _join(self, caller: _Caller) -> None:
        await self._open.wait()
        try:
            _, end = await asyncio.get_running_loop().create_unix_connection(lambda: _End(self), str(self._target))
        except OSError:
            if caller.transport is not None:
                caller.transport.abort()
            return
        end.other, caller.other = caller, end
        if caller.transport is None and end.transport is not None:
            end.transport.abort()
        for each in (caller, end):
            each.hand_on()

    async def _close(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
            self._path.unlink(missing_ok=True)
        for task in tuple(self._joining):
            task.cancel()
        for each in tuple(self.ends):
            if each.transport is not None:
                each.transport.abort()
