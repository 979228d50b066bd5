"""Several Valkeys of a test's own on loopback: a cluster, or a primary with its replica and Sentinels."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from accessguard.embedded.process import Child, server_user
from accessguard.embedded.valkey import program

NODE_TIMEOUT_MS = 1_000
"""After which the others hold a node for lost; a replica takes over within about as long again."""
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")
"""Not once a second, for which whoever wants to know of the disk would have to wait."""
LIVELY = ("publish-period", "200", "info-period", "200", "ask-period", "200")
"""How often Sentinels tell and ask each other, in ms: every two and ten seconds by themselves."""


@dataclass(eq=False)
class Server:
    """One process; `admin` is a client for the test itself."""

    folder: Path
    port: int
    options: tuple[str, ...]
    sentinel: bool = False
    child: Child | None = None
    admin: Redis = field(init=False)

    def __post_init__(self) -> None:
        self.admin = Redis(host="127.0.0.1", port=self.port)

    @property
    def address(self) -> str:
        """As it stands in a URL."""
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, after a kill as at first."""
        self.folder.mkdir(mode=0o700, exist_ok=True)
        user = server_user(self.folder.parent / "none")
        user.owns(self.folder)
        saving = () if self.sentinel else ("--save", "")
        said = ("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder), *saving)
        log = self.folder.with_name(f"{self.folder.name}.log")
        self.child = Child.start(
            [program(), *self.options, *said], user=user, folder=self.folder, log=log, goodbye=signal.SIGTERM
        )
        await eventually(self._answers)

    async def _answers(self) -> bool:
        try:
            return bool(await self.admin.ping())
        except RedisError:
            return False

    async def kill(self) -> None:
        """End it at once."""
        assert self.child is not None
        await self.child.kill()

    def freeze(self) -> None:
        """Let it answer nothing, without closing a connection."""
        assert self.child is not None
        os.kill(self.child.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        assert self.child is not None
        os.kill(self.child.pid, signal.SIGCONT)

    async def stop(self) -> None:
        """Stop it in whatever state the test has left it."""
        await self.admin.aclose()
        if self.child is not None and self.child.running:
            self.thaw()
            await self.child.stop(within_s=3)


@dataclass
class Cluster:
    """Three primaries, each with a third of the slots, and replicas of the first ones."""

    primaries: list[Server]
    replicas: list[Server]

    @property
    def url(self) -> str:
        """Its address for the service."""
        return "redis+cluster://" + ",".join(each.address for each in self.primaries)

    async def owner(self, key: str) -> Server:
        """The node that has a key now."""
        for each in (*self.primaries, *self.replicas):
            with contextlib.suppress(RedisError):
                slot = await each.admin.execute_command("CLUSTER", "KEYSLOT", key)
                for first, last, primary, *_ in await slots(each):
                    if first <= slot <= last:
                        return next(x for x in (*self.primaries, *self.replicas) if x.port == primary[1])
        raise AssertionError("nobody has it")

    async def flush(self) -> None:
        """Forget every key."""
        for each in self.primaries:
            await each.admin.flushall()


async def slots(server: Server) -> Any:
    """CLUSTER SLOTS as it comes, which redis-py would turn into a mapping."""
    said = await server.admin.execute_command("CLUSTER", "SLOTS")
    if isinstance(said, dict):
        return [(first, last, known["primary"]) for (first, last), known in said.items()]
    return said


@contextlib.asynccontextmanager
async def own_cluster(folder: Path, *, replicas: int = 0) -> AsyncIterator[Cluster]:
    """Start one on `folder`."""
    folder.chmod(0o711)
    numbers = ports(2 * (3 + replicas))
    servers = [
        Server(folder / f"node{at}", numbers[2 * at], _cluster_options(numbers[2 * at + 1]))
        for at in range(3 + replicas)
    ]
    try:
        await asyncio.gather(*(each.start() for each in servers))
        await _join(servers)
        yield Cluster(servers[:3], servers[3:])
    finally:
        await asyncio.gather(*(each.stop() for each in servers))


def _cluster_options(bus: int) -> tuple[str, ...]:
    return (
        *("--cluster-enabled", "yes", "--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-port", str(bus)),
        *("--cluster-require-full-coverage", "no", *DURABLE),
        *("--cluster-replica-validity-factor", "0", "--repl-diskless-sync-delay", "0"),
    )


async def _join(servers: list[Server]) -> None:
    first = servers[0]
    bounds = [0, 5461, 10923, 16384]
    for at, each in enumerate(servers):
        await each.admin.execute_command("CLUSTER", "SET-CONFIG-EPOCH", at + 1)
    for at, each in enumerate(servers[:3]):
        await each.admin.execute_command("CLUSTER", "ADDSLOTSRANGE", bounds[at], bounds[at + 1] - 1)
    for each in servers[1:]:
        bus = int(each.options[each.options.index("--cluster-port") + 1])
        await first.admin.execute_command("CLUSTER", "MEET", "127.0.0.1", each.port, bus)
    await eventually(lambda: _agreed(servers))
    for at, each in enumerate(servers[3:]):
        wanted = await servers[at].admin.execute_command("CLUSTER", "MYID")
        await each.admin.execute_command("CLUSTER", "REPLICATE", wanted)
    for each in servers[3:]:
        await eventually(lambda each=each: linked(each))  # type: ignore[misc] # mypy does not infer defaults


async def _agreed(servers: list[Server]) -> bool:
    told = [await each.admin.execute_command("CLUSTER", "INFO") for each in servers]
    wanted = (b"cluster_state:ok", b"cluster_known_nodes:%d" % len(servers), b"cluster_slots_ok:16384")
    raw = [info if isinstance(info, bytes) else _flat(info) for info in told]
    return all(part in info for info in raw for part in wanted)


def _flat(info: Any) -> bytes:
    return "\r\n".join(f"{name}:{value}" for name, value in info.items()).encode()


async def linked(server: Server) -> bool:
    """Whether a replica has its primary's data."""
    info = await server.admin.info("replication")
    return info.get("master_link_status") == "up"


@dataclass
class Watched:
    """A primary, its replica, and three Sentinels that watch over them."""

    primary: Server
    replica: Server
    sentinels: list[Server]

    @property
    def url(self) -> str:
        """Its address for the service."""
        return "redis+sentinel://" + ",".join(each.address for each in self.sentinels) + "/live"


@contextlib.asynccontextmanager
async def own_sentinels(folder: Path) -> AsyncIterator[Watched]:
    """Start them on `folder`."""
    folder.chmod(0o711)
    numbers = ports(5)
    durable = (*DURABLE, "--repl-diskless-sync-delay", "0")
    primary = Server(folder / "one", numbers[0], durable)
    replica = Server(folder / "two", numbers[1], (*durable, "--replicaof", f"127.0.0.1 {primary.port}"))
    sentinels = [_sentinel(folder / f"sentinel{port}", port, primary.port) for port in numbers[2:]]
    try:
        await primary.start()
        await replica.start()
        await eventually(lambda: linked(replica))
        await asyncio.gather(*(each.start() for each in sentinels))
        await asyncio.gather(*(each.admin.execute_command("SENTINEL", "DEBUG", *LIVELY) for each in sentinels))
        await asyncio.gather(*(eventually(lambda each=each: _watches(each)) for each in sentinels))  # type: ignore[misc] # mypy does not infer defaults
        yield Watched(primary, replica, sentinels)
    finally:
        await asyncio.gather(*(each.stop() for each in (primary, replica, *sentinels)))


def _sentinel(folder: Path, port: int, watched: int) -> Server:
    folder.mkdir(mode=0o700)
    user = server_user(folder.parent / "none")
    user.owns(folder)
    file = folder / "sentinel.conf"
    rules = {"down-after-milliseconds": 1_000, "failover-timeout": 5_000, "parallel-syncs": 1}
    said = "".join(f"sentinel {name} live {value}\n" for name, value in rules.items())
    file.write_text(f"sentinel monitor live 127.0.0.1 {watched} 2\n{said}")
    user.owns(file)
    return Server(folder, port, (str(file), "--sentinel"), sentinel=True)


async def _watches(sentinel: Server) -> bool:
    """Whether a Sentinel knows the replica and the two others."""
    said = await sentinel.admin.execute_command("SENTINEL", "MASTER", "live")
    known = said if isinstance(said, dict) else dict(zip(said[::2], said[1::2], strict=True))
    counts = [known.get(name) or known.get(name.encode()) for name in ("num-slaves", "num-other-sentinels")]
    return [int(count or 0) for count in counts] == [1, 2]


def ports(count: int) -> list[int]:
    """So many ports that nobody listens on."""
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in held]


async def eventually(holds: Callable[[], Awaitable[bool]], *, within_s: float = 20.0) -> float:
    """Wait until `holds()` answers yes; the seconds it took. Fails when it is not in time."""
    began = time.monotonic()
    while not await holds():
        assert time.monotonic() - began < within_s, "it did not come to be in time"
        await asyncio.sleep(0.02)
    return time.monotonic() - began
