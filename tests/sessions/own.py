"""A Valkey of a test's own, to be stopped, frozen and misconfigured."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

from redis.asyncio import Redis

from accessguard.embedded.process import Child, server_user
from accessguard.embedded.valkey import redis_url, socket, start_valkey
from accessguard.sessions.pipe import Place


@dataclass
class Own:
    """A running Valkey; `admin` is a client for the test itself."""

    child: Child
    folder: Path
    runtime: Path
    admin: Redis

    @property
    def url(self) -> str:
        """Its address; the same after a restart."""
        return redis_url(self.runtime)

    @property
    def place(self) -> Place:
        """Its address as a pipe and a channel take it."""
        return Place(path=str(socket(self.runtime)))

    def freeze(self) -> None:
        """Let it answer nothing, without closing a connection."""
        os.kill(self.child.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.child.pid, signal.SIGCONT)

    async def restart(self) -> None:
        """Start it again after a kill, with what was on its disk."""
        self.child = await start_valkey(self.folder / "valkey", self.runtime)


@contextlib.asynccontextmanager
async def own_valkey(folder: Path) -> AsyncIterator[Own]:
    """Start one on `folder`, and stop it in whatever state the test has left it."""
    runtime = Path(tempfile.mkdtemp(prefix="ag-"))
    server_user(folder / "valkey").owns(runtime)
    found = Own(
        await start_valkey(folder / "valkey", runtime), folder, runtime, Redis(unix_socket_path=str(socket(runtime)))
    )
    try:
        yield found
    finally:
        await found.admin.aclose()
        if found.child.running:
            found.thaw()
        await found.child.stop()
        shutil.rmtree(runtime)


async def until(condition: Callable[[], bool], *, within_s: float = 5.0) -> float:
    """Wait until `condition()` is true; the seconds it took. Fails when it is not in time."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, "it did not come to be in time"
        await asyncio.sleep(0.002)
    return time.monotonic() - began
