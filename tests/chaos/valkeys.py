"""The Valkey of a stage: one server behind the relays of its hosts, or a cluster of three primaries with a replica each."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any, Final, Protocol

import psutil
from redis.asyncio import Redis
from redis.exceptions import RedisError

from accessguard.embedded import Child
from accessguard.embedded.valkey import start_valkey
from accessguard.sessions.spool import STREAM
from tests.sessions.topology import Cluster, Server, own_cluster

FLUSH: Final = """
    if redis.call('XLEN', KEYS[1]) > 0 then return 0 end
    redis.call('FLUSHALL')
    return 1
"""


class Valkeys(Protocol):
    """What faults and reckoning want of it."""

    def url(self, folder: Path) -> str:
        """Its address for the host whose folder this is."""

    def servers(self) -> list[psutil.Process]:
        """The processes that answer."""

    async def start(self) -> None:
        """Start what does not run, at first and after a kill."""

    async def halt(self) -> None:
        """Stop it in order; `start` goes on with what is on its disk."""

    async def stop(self) -> None:
        """End it for good."""

    async def ill(self) -> str:
        """What of it is not as it was at first; nothing when all is well."""

    async def waiting(self) -> int:
        """How many logins wait."""

    async def flush(self) -> None:
        """Forget everything."""

    async def flush_unless_waiting(self) -> bool:
        """The same, only when no login waits, in one step; whether that was so."""

    async def limit(self, memory: int) -> None:
        """Let each server have so many bytes; 0 for as many as there are."""

    async def clients(self) -> int:
        """How many connections there are, but for this harness' own."""


class Alone:
    """One server on a socket in `runtime`."""

    def __init__(self, folder: Path, runtime: Path) -> None:
        self._folder, self._runtime = folder, runtime
        self._child: Child | None = None
        self._admin = Redis(unix_socket_path=str(runtime / "valkey.sock"))

    def url(self, folder: Path) -> str:
        """The host's relay."""
        return f"unix://{folder / 'valkey.sock'}"

    def servers(self) -> list[psutil.Process]:
        """The one, if it runs."""
        return _running([self._child])

    async def start(self) -> None:
        """Start it, if it does not run."""
        if self._child is None or not self._child.running:
            self._child = await start_valkey(self._folder / "valkey", self._runtime)

    async def halt(self) -> None:
        """Stop it in order."""
        assert self._child is not None
        await self._child.stop()

    async def stop(self) -> None:
        """End it for good."""
        await self._admin.aclose()
        if self._child is not None:
            await self._child.stop(within_s=10)

    async def ill(self) -> str:
        """One that answers is well."""
        return ""

    async def waiting(self) -> int:
        """How many logins wait."""
        return int(await self._admin.xlen(STREAM))

    async def flush(self) -> None:
        """Forget everything."""
        await self._admin.flushall()

    async def flush_unless_waiting(self) -> bool:
        """Forget everything, unless a login waits."""
        return bool(await _says(self._admin, "EVAL", FLUSH, 1, STREAM))

    async def limit(self, memory: int) -> None:
        """Let it have so many bytes."""
        await _says(self._admin, "CONFIG", "SET", "maxmemory", memory)

    async def clients(self) -> int:
        """Connections of the hosts."""
        return await _clients(self._admin)


class Nodes:
    """A cluster, built by `clustered`. Hosts reach its nodes by their own addresses, past any relay."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    @property
    def everyone(self) -> Sequence[Server]:
        """All nodes, whatever they are just now."""
        return (*self._cluster.primaries, *self._cluster.replicas)

    def url(self, folder: Path) -> str:
        """Three of its nodes."""
        del folder
        return self._cluster.url

    def servers(self) -> list[psutil.Process]:
        """Those that run."""
        return _running([each.child for each in self.everyone])

    async def start(self) -> None:
        """Start those that do not run."""
        await asyncio.gather(*(each.start() for each in self.everyone if each.child and not each.child.running))

    async def halt(self) -> None:
        """Stop all of them in order."""
        await asyncio.gather(*(each.child.stop() for each in self.everyone if each.child))

    async def stop(self) -> None:
        """Whoever built it ends it."""

    async def primaries(self) -> dict[Server, Server | None]:
        """Who is a primary now, as all say of themselves, with a replica that has its data."""
        roles = {each: await each.admin.info("replication") for each in self.everyone}
        of = {
            told["master_port"]: each
            for each, told in roles.items()
            if told["role"] == "slave" and told["master_link_status"] == "up"
        }
        return {each: of.get(each.port) for each, told in roles.items() if told["role"] == "master"}

    async def owner(self) -> Server:
        """The node that keeps the logins that wait."""
        return await self._cluster.owner(STREAM)

    async def ill(self) -> str:
        """Whether a node is missing, or a primary without its replica."""
        try:
            there = await self.primaries()
            states = [await each.admin.cluster("INFO") for each in self.everyone]
        except RedisError as error:
            return repr(error)
        bare = [each.port for each, replica in there.items() if replica is None]
        unwell = [told for told in states if told["cluster_state"] != "ok"]
        return "" if len(there) == len(self._cluster.primaries) and not bare and not unwell else f"{bare} {len(unwell)}"

    async def waiting(self) -> int:
        """How many logins wait."""
        return int(await (await self.owner()).admin.xlen(STREAM))

    async def flush(self) -> None:
        """Forget everything, on every node."""
        for each in await self.primaries():
            await each.admin.flushall()

    async def flush_unless_waiting(self) -> bool:
        """Forget everything, first where logins would wait, unless one does."""
        if not await _says((await self.owner()).admin, "EVAL", FLUSH, 1, STREAM):
            return False
        for each in set(await self.primaries()) - {await self.owner()}:
            await each.admin.flushall()
        return True

    async def limit(self, memory: int) -> None:
        """Let each node have so many bytes."""
        for each in self.everyone:
            await _says(each.admin, "CONFIG", "SET", "maxmemory", memory)

    async def clients(self) -> int:
        """Connections of the hosts to all nodes."""
        return sum([await _clients(each.admin) for each in self.everyone])


@contextlib.asynccontextmanager
async def clustered(folder: Path) -> AsyncIterator[Nodes]:
    """A cluster in a folder of its own, while it is needed."""
    folder.mkdir()
    async with own_cluster(folder, replicas=3) as cluster:
        yield Nodes(cluster)


def _running(children: Sequence[Child | None]) -> list[psutil.Process]:
    found = [each.pid for each in children if each is not None and each.running]
    return [psutil.Process(pid) for pid in found if psutil.pid_exists(pid)]


async def _says(admin: Redis, *words: str | int) -> Any:
    return await admin.execute_command(*words)


async def _clients(admin: Redis) -> int:
    """Connections but for those of replicas and of redis-py, which the service itself does not use."""
    told = [each for kind in ("normal", "pubsub") for each in await admin.client_list(_type=kind)]
    return sum(each.get("lib-name") != "redis-py" for each in told)
