"""What the play is about: a PostgreSQL, a Valkey, two hosts with two workers each, and a relay between each and each."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import asyncpg
import psutil

from accessguard.embedded import Child
from accessguard.embedded.postgres import database_url, start_postgres
from accessguard.embedded.process import LAUNCH, server_user
from tests.chaos.relay import Line, Relay
from tests.chaos.valkeys import Alone, Nodes, Valkeys, clustered
from tests.data import lay_out
from tests.service import SECRET

WORKERS = 2
POOL = 10
DISK = "400m"
SETTINGS = ("max_wal_size = '64MB'", "min_wal_size = '32MB'", "checkpoint_timeout = '30s'")
KEYS = {
    "TOKEN_SECRETS": SECRET,
    "DEVICE_KEYS": f"d1:{SECRET}-d",
    "SESSION_KEYS": f"s1:{SECRET}-s",
    "IDENTIFIER_KEY": f"{SECRET}-i",
}
CONFIG = f"""
[server]
drain_s = 2
[database]
pool_size = {POOL}
[tenants]
preset = "none"
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def family(pid: int) -> list[psutil.Process]:
    """A process and all it has started; empty when it is gone."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def tell(processes: list[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to those that are still there."""
    for each in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            each.send_signal(number)


async def gone(processes: list[psutil.Process], within_s: float = 20) -> list[psutil.Process]:
    """Wait for their end; those that have not ended."""
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, timeout=within_s)
    return list(alive)


class Host:
    """A supervisor with its workers, on ports that stay the same, behind relays of its own."""

    def __init__(self, folder: Path, stores: Stores) -> None:
        self.folder = folder
        self.port, self.admin_port = free_port(), free_port()
        folder.mkdir()
        self.stores = stores
        self.postgres = Relay(folder / ".s.PGSQL.5432", stores.runtime / ".s.PGSQL.5432")
        self.valkey = Relay(folder / "valkey.sock", stores.runtime / "valkey.sock")
        self._process: subprocess.Popen[bytes] | None = None
        self.log = folder / "log"

    @property
    def url(self) -> str:
        """Where callers reach it."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def admin(self) -> str:
        """Where monitoring reaches it."""
        return f"http://127.0.0.1:{self.admin_port}"

    @property
    def pid(self) -> int:
        """The supervisor's; 0 when it was never started."""
        return self._process.pid if self._process else 0

    def workers(self) -> list[psutil.Process]:
        """The processes that answer, the oldest first; what they have started for themselves is not among them."""
        try:
            workers = psutil.Process(self.pid).children()
            return sorted(workers, key=lambda each: each.create_time())
        except psutil.NoSuchProcess:
            return []

    def launch(self) -> None:
        """Start the supervisor, which the kernel ends with this process; on the main thread."""
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ACCESSGUARD_")}
        values = KEYS | {
            "CONFIG": str(self.folder / "accessguard.toml"),
            "DATABASE_URL": database_url(self.folder),
            "REDIS_URL": self.stores.valkey.url(self.folder),
            "PORT": str(self.port),
            "ADMIN_PORT": str(self.admin_port),
        }
        environ |= {f"ACCESSGUARD_{name}": value for name, value in values.items()}
        environ |= {"PYTHONPATH": str(Path(__file__).parents[2])}
        (self.folder / "accessguard.toml").write_text(CONFIG)
        serve = (sys.executable, "-m", "accessguard", "serve", "--workers", str(WORKERS))
        ending = (sys.executable, "-I", "-S", str(LAUNCH), str(os.getpid()), str(int(signal.SIGTERM)), "-")
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                (*ending, str(self.folder), *serve), env=environ, stdout=log, stderr=log, start_new_session=True
            )

    async def answers(self, within_s: float = 60) -> None:
        """Wait until its port answers."""
        async with asyncio.timeout(within_s), aiohttp.ClientSession() as http:
            while True:
                with contextlib.suppress(aiohttp.ClientError, TimeoutError):
                    async with http.get(f"{self.url}/healthz", timeout=aiohttp.ClientTimeout(total=2)) as said:
                        if said.status == 200:
                            return
                if self._process is not None and self._process.poll() is not None:
                    raise AssertionError(self.log.read_text()[-2000:])
                await asyncio.sleep(0.05)

    async def restart(self) -> None:
        """Start it again when its supervisor has ended; its workers end before, by themselves."""
        if self._process is not None and self._process.poll() is None:
            return
        for _ in range(400):
            try:
                self.launch()
                await self.answers()
            except AssertionError as failed:  # a worker of the one before still holds the port
                if "Cannot listen" not in str(failed):
                    raise
                await asyncio.sleep(0.1)
            else:
                return

    async def stop(self) -> None:
        """Stop it in order; what does not go is killed."""
        everyone = family(self.pid)
        tell(everyone, signal.SIGCONT)
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        tell(await gone(everyone, 30), signal.SIGKILL)
        if self._process is not None:
            await asyncio.to_thread(self._process.wait)


class Stores:
    """PostgreSQL on its socket in `runtime`, on a small disk of its own where that may be made; and Valkey, there or in `nodes`."""

    def __init__(self, folder: Path, nodes: Nodes | None) -> None:
        self.folder = folder
        self.runtime = folder / "run"
        self.disk = folder / "disk"
        self.disk.mkdir()
        self.small = _mounted(self.disk)
        self.runtime.mkdir()
        for each in (self.runtime, self.disk):
            server_user(self.disk / "postgres").owns(each)
        self.postgres: Child | None = None
        self.nodes = nodes
        self.valkey: Valkeys = nodes or Alone(folder, self.runtime)

    @property
    def database_url(self) -> str:
        """PostgreSQL itself, past every relay."""
        return database_url(self.runtime)

    async def start(self) -> None:
        """Start both, the schema up to date."""
        await self.valkey.start()
        model = await lay_out(self.folder / "model")
        subprocess.run(("cp", "-a", model / "postgres", self.disk), check=True)
        await self.start_postgres()
        async with self.connected() as db:
            for each in SETTINGS:
                await db.execute(f"ALTER SYSTEM SET {each}")
            await db.execute("SELECT pg_reload_conf()")

    async def start_postgres(self) -> None:
        """Start it, at first and after a kill."""
        if self.postgres is None or not self.postgres.running:
            self.postgres = await start_postgres(self.disk / "postgres", self.runtime)

    def servers(self, store: str) -> list[psutil.Process]:
        """The first process of each server."""
        return self.processes(store)[:1] if store == "postgres" else self.valkey.servers()

    def processes(self, store: str) -> list[psutil.Process]:
        """Each server and each of its processes."""
        if store == "postgres":
            return family(self.postgres.pid) if self.postgres is not None else []
        return [process for each in self.valkey.servers() for process in family(each.pid)]

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[asyncpg.Connection[Any]]:
        """A connection of the harness, which writes also while others may only read."""
        db = await asyncpg.connect(self.database_url, timeout=20)
        try:
            await db.execute("SET default_transaction_read_only = off")
            yield db
        finally:
            await db.close(timeout=5)

    async def stop(self) -> None:
        """End both, whatever state they are in."""
        for store, child in (("postgres", self.postgres), ("valkey", self.valkey)):
            everyone = self.processes(store)
            tell(everyone, signal.SIGCONT)
            if child is not None:
                await child.stop()
            tell(await gone(everyone, 10), signal.SIGKILL)
        if self.small:
            subprocess.run(("umount", "-l", str(self.disk)), check=False)


def _mounted(place: Path) -> bool:
    """Whether a small disk could be put there: that is up to the system."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return False
    words = ("mount", "-t", "tmpfs", "-o", f"size={DISK},mode=755", "accessguard-chaos", str(place))
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


class Stage:
    """Everything together; built by `staged`."""

    def __init__(self, folder: Path, nodes: Nodes | None) -> None:
        self.folder = folder
        self.stores = Stores(folder, nodes)
        self.hosts = (Host(folder / "h0", self.stores), Host(folder / "h1", self.stores))

    async def start(self) -> None:
        """Start the stores, the relays and both hosts."""
        await self.stores.start()
        for each in self.hosts:
            await each.postgres.start()
            await each.valkey.start()
            each.launch()
        for each in self.hosts:
            await each.answers()

    async def cut(self, store: str, line: Line, hosts: tuple[Host, ...] | None = None) -> None:
        """Treat connections between a store and hosts like this; None for all hosts."""
        for each in hosts or self.hosts:
            await (each.postgres if store == "postgres" else each.valkey).set(line)

    async def ready(self) -> dict[str, Any]:
        """What is not well, by host; empty when everything is, and nothing waits."""
        ill: dict[str, Any] = {}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as http:
            for each in self.hosts:
                try:
                    async with http.get(f"{each.admin}/readyz") as said:
                        told = await said.json()
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    ill[each.folder.name] = repr(error)
                    continue
                parts = told["parts"]
                down = sorted(name for name, state in parts.items() if state != "up")
                missing = [f"worker_{i + 1}" for i in range(WORKERS) if f"worker_{i + 1}" not in parts]
                if down or missing or len(each.workers()) != WORKERS:
                    ill[each.folder.name] = [*down, *missing, len(each.workers())]
        if not ill and (told := await self.stores.valkey.ill()):
            ill["valkey"] = told
        waiting = await self.stores.valkey.waiting() if not ill else 0
        return ill | ({"waiting": waiting} if waiting else {})

    async def metrics(self) -> dict[str, float]:
        """Every series of both hosts without labels, added up."""
        found: dict[str, float] = {}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
            for each in self.hosts:
                async with http.get(f"{each.admin}/metrics") as said:
                    for name, value in re.findall(r"^(accessguard_\S+) (\S+)$", await said.text(), re.MULTILINE):
                        found[name] = found.get(name, 0.0) + float(value)
        return found

    async def stop(self) -> None:
        """End everything that was started."""
        try:
            for each in self.hosts:
                await each.stop()
        finally:
            for each in self.hosts:
                await each.postgres.stop()
                await each.valkey.stop()
            await self.stores.stop()


@contextlib.asynccontextmanager
async def staged(*, cluster: bool = False) -> AsyncIterator[Stage]:
    """A stage in a folder of its own; nothing of it is left, whatever happens."""
    async with contextlib.AsyncExitStack() as stack:
        folder = stack.enter_context(_folder())
        nodes = await stack.enter_async_context(clustered(folder / "nodes")) if cluster else None
        stage = Stage(folder, nodes)
        try:
            await stage.start()
            yield stage
        finally:
            await asyncio.shield(stage.stop())


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="agc-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


def seconds() -> float:
    """The clock by which the play is timed."""
    return time.monotonic()
