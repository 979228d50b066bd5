"""A relay in front of PostgreSQL that counts round trips."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, quote, urlsplit, urlunsplit

from benchmarks.model import BenchError

SOCKET = ".s.PGSQL.5432"


class Relay:
    """Passes bytes between a Unix socket of its own and the real one.

    A round trip is counted whenever a client speaks again after the server has
    answered on that connection; `url` is where to reach it.
    """

    def __init__(self, database_url: str, folder: Path) -> None:
        self.round_trips = 0
        self._upstream = Path(_host(database_url)) / SOCKET
        self._own = tempfile.TemporaryDirectory(prefix="relay")
        self.url = _with_host(database_url, self._own.name)
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_unix_server(self._accept, str(Path(self._own.name) / SOCKET))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._own.cleanup()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        to_read, to_write = await asyncio.open_unix_connection(str(self._upstream))
        turn = Turn(self)
        for task in (
            asyncio.create_task(_pass_on(reader, to_write, turn.asked)),
            asyncio.create_task(_pass_on(to_read, writer, turn.answered)),
        ):
            self._tasks.add(task)


class Turn:
    """Whose turn it is on one connection."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self._quiet = True

    def asked(self) -> None:
        """Count, unless the client already waits for an answer."""
        self._relay.round_trips += self._quiet
        self._quiet = False

    def answered(self) -> None:
        """Let the next thing the client says count again."""
        self._quiet = True


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, told: Callable[[], None]) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            told()
            writer.write(data)
            await writer.drain()
    writer.close()


def _host(url: str) -> str:
    """Return the folder of the Unix socket that a `postgresql://` URL names with its `host` parameter."""
    hosts = parse_qs(urlsplit(url).query).get("host", [])
    if not hosts or not hosts[0].startswith("/"):
        raise BenchError("the relay needs a PostgreSQL that is reached over a Unix socket")
    return hosts[0]


def _with_host(url: str, folder: str) -> str:
    parts = urlsplit(url)
    query = "&".join(
        f"{name}={quote(folder if name == 'host' else value[0])}" for name, value in parse_qs(parts.query).items()
    )
    return urlunsplit(parts._replace(query=query))
