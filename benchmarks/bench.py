"""What a run has at hand: its folder, the generator, the stores, the service, the members; each made when first asked for."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import asyncpg
import msgspec
from redis.asyncio import Redis

from accessguard.embedded import Embedded
from benchmarks.control import Operator, probe_checks
from benchmarks.generator import Generator, make_generator
from benchmarks.machine import Cores
from benchmarks.model import BenchError, Load, Measure, Target
from benchmarks.people import Person, caller, check_record, log_in
from benchmarks.processes import Processes, free_port, python
from benchmarks.service import Secrets, Service, migrate, start_service
from benchmarks.wire import Record, request, save

BEAT_S = 30
SETTLING_S = 3.0
"""What asking about everybody once may take."""
PATIENT = "[server]\ncheck_deadline_ms = 5000\n"
"""What is measured is how long an answer takes, and no answer may be one for want of time: that would look fast."""
UNBOUNDED = f"{PATIENT}\n[limits]\noperator_calls_per_s = 100000\nattempts_per_member_per_h = 1000000\n"
"""Nor does who asks wait for a turn."""

TROUBLE = (BenchError, aiohttp.ClientError, asyncpg.PostgresError, msgspec.ValidationError, OSError)
"""What a scenario may end with when a server answers otherwise than it should, or not at all."""


def explain(error: BaseException) -> str:
    """Return what a failed scenario is reported with."""
    return str(error) if isinstance(error, BenchError) else f"{type(error).__name__}: {error}"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How much a run does. Times in seconds.

    `sessions` are in rotation in most scenarios; the `crowd` is who is asked
    once each; `spread_s` is the time over which beats are spread, where they
    are not all to fall due together; `rows` is how large a deployment the
    growth scenario fills in. `populations` are the numbers of
    members that operators ask about; the largest of them may lie in a folder of
    embedded stores already, `population`. `asked` is how often each call is made.
    """

    rounds: int = 3
    window_s: float = 2.0
    warmup_s: float = 0.5
    latency_s: float = 2.5
    sessions: int = 10_000
    crowd: int = 18_000
    spread_s: float = 28.0
    logins: int = 2_000
    blocks: int = 300
    mixed_s: float = 7.0
    rows: int = 120_000
    trips: int = 50
    populations: tuple[int, ...] = (10_000, 100_000)
    asked: int = 30
    population: Path | None = None


FULL = Settings()
QUICK = Settings(
    rounds=1,
    window_s=0.2,
    warmup_s=0.1,
    latency_s=0.3,
    sessions=200,
    crowd=300,
    spread_s=0,
    logins=50,
    blocks=10,
    mixed_s=0.4,
    rows=2_000,
    trips=10,
    populations=(100,),
    asked=2,
)


class Crowd(msgspec.Struct, frozen=True, kw_only=True):
    """Members of whom each is asked once in a while; `store_bytes` is what Valkey used before they came."""

    people: tuple[Person, ...]
    store_bytes: int


class Bench:
    """The resources of one run; everything it starts ends with `stack`.

    `asides` are sentences that belong to a scenario's figures.
    """

    def __init__(
        self,
        *,
        folder: Path,
        settings: Settings,
        cores: Cores,
        deadline: float,
        processes: Processes,
        stack: AsyncExitStack,
    ) -> None:
        self.folder = folder
        self.settings = settings
        self.cores = cores
        self.processes = processes
        self.secrets = Secrets()
        self._deadline = deadline
        self.stack = stack
        self.asides: dict[str, str] = {}
        self._generator: Generator | None = None
        self._stores: Embedded | None = None
        self._noop: Target | None = None
        self._service: Service | None = None
        self._broken: str | None = None
        self._people: tuple[Person, ...] | None = None
        self._beaten: dict[int, tuple[float, float]] = {}  # when settling last moved beats, from and to, by server
        self._crowd: Crowd | None = None
        self._numbered = 0

    @property
    def left_s(self) -> float:
        """Seconds until the run must have ended."""
        return self._deadline - time.monotonic()

    def requests(self, name: str, records: Iterable[Record]) -> Path:
        """Write a file of requests into the run's folder."""
        return save(self.folder / f"{name}.requests", records)

    async def generator(self) -> Generator:
        """Return the load generator, compiled on the first call."""
        if self._generator is None:
            self._generator = await make_generator(self.folder, self.processes, self.cores.generator)
        return self._generator

    async def measure(self, target: Target, *, seconds: float | None = None, warmup: float | None = None) -> Measure:
        """Put the target's load on it once; raises BenchError when an answer is not what it should be."""
        generator = await self.generator()
        measure = await generator.run(
            target.load,
            seconds=self.settings.window_s if seconds is None else seconds,
            warmup=self.settings.warmup_s if warmup is None else warmup,
        )
        return measure.check(target.name)

    async def settle(self, target: Target) -> None:
        """Send each of the target's requests once, so that every verdict is held when the window opens, and stays so.

        Where a beat would fall due within the window, all of them are waited
        for first: a window of held verdicts is to have none in it.
        """
        server = target.load.watch[-1]  # a proxy's beats are those of the service behind it
        began, ended = self._beaten.get(server, (-math.inf, -math.inf))
        window_s = self.settings.warmup_s + self.settings.window_s + SETTLING_S
        if time.monotonic() + window_s > began + BEAT_S:
            await asyncio.sleep(max(0.0, ended + BEAT_S - time.monotonic()))
            began = time.monotonic()
        once = msgspec.structs.replace(target.load, once=True)
        await self.measure(msgspec.structs.replace(target, load=once), seconds=BEAT_S, warmup=0)
        if began > ended:
            self._beaten[server] = began, time.monotonic()

    async def stores(self) -> Embedded:
        """Return a real PostgreSQL and a real Valkey, with data of this run only."""
        if self._stores is None:
            self._stores = await Embedded.start(self.folder / "data")
            self.stack.push_async_callback(self._stores.stop)
            await migrate(self.processes, await self.environment())
        return self._stores

    async def environment(self) -> dict[str, str]:
        """Return what a worker needs to know of the stores and secrets of this run."""
        stores, config = await self.stores(), self.folder / "accessguard.toml"
        config.write_text(UNBOUNDED, encoding="utf-8")
        return {
            **self.secrets.environment(),
            "ACCESSGUARD_CONFIG": str(config),
            "ACCESSGUARD_DATABASE_URL": stores.database_url,
            "ACCESSGUARD_REDIS_URL": stores.redis_url,
        }

    async def store_bytes(self) -> int:
        """Return the memory that Valkey uses for its data, in bytes (`used_memory`)."""
        stores = await self.stores()
        async with Redis.from_url(stores.redis_url) as client:
            return int((await client.info("memory"))["used_memory"])

    async def store_commands(self) -> int:
        """Return how many commands Valkey has processed, those within scripts and this one included."""
        stores = await self.stores()
        async with Redis.from_url(stores.redis_url) as client:
            return int((await client.info("stats"))["total_commands_processed"])

    async def noop(self) -> Target:
        """Return the bare aiohttp handler (GET) that most figures are a multiple of."""
        if self._noop is None:
            port = free_port()
            process = await self.processes.start("noop", *python("benchmarks.noop", str(port)), core=self.cores.server)
            await self.processes.listening(process, "noop", port)
            requests = self.requests("noop", [Record(data=request("GET", "/", headers={}))])
            load = Load(
                address=f"127.0.0.1:{port}", requests=requests, expects=('200:"allow": true',), watch=(process.pid,)
            )
            self._noop = Target(name="no-op", load=load)
        return self._noop

    async def worker(self, name: str) -> Service:
        """Start another worker on the same stores."""
        return await start_service(self.processes, name, await self.environment(), core=self.cores.server)

    async def service(self) -> Service:
        """Return the worker that most scenarios ask, with the rules an ordinary tenant has.

        It is started once: raises BenchError, too, when an earlier start failed.
        """
        if self._broken is not None:
            raise BenchError(self._broken)
        if self._service is None:
            try:
                self._service = await self._first_worker()
            except TROUBLE as error:
                self._broken = explain(error)
                raise
        return self._service

    async def _first_worker(self) -> Service:
        service = await self.worker("service")
        async with self.operator(service, "administrator") as operator:
            await operator.make_rules()
        return service

    def operator(self, service: Service, role: str) -> Operator:
        """Return a client of `service` with the token of `role`."""
        return Operator(service.url, self.secrets.token(role))

    def caller(self) -> dict[str, str]:
        """Return the platform's request headers."""
        return caller(self.secrets.token("platform"))

    async def log_in(self, prefix: str, count: int) -> tuple[Person, ...]:
        """Log `count` new members in on the main worker."""
        service = await self.service()
        first = self._numbered
        self._numbered += count
        return tuple(await log_in(service.url, self.secrets.token("platform"), prefix, count, first=first))

    async def people(self) -> tuple[Person, ...]:
        """Return the members in rotation, each checked once.

        Raises BenchError, now and ever after, when a login or a check was not answered as it should be.
        """
        service = await self.service()
        if self._people is None:
            try:
                self._people = await self._first_people(service)
            except TROUBLE as error:
                self._broken = explain(error)
                raise
        return self._people

    async def _first_people(self, service: Service) -> tuple[Person, ...]:
        people = await self.log_in("member", self.settings.sessions)
        await probe_checks(service.url, self.caller(), people[:20])
        began = time.monotonic()
        await self.pass_over("first", service, people)
        self._beaten[service.process.pid] = began, time.monotonic()
        return people

    async def crowd(self) -> Crowd:
        """Return the crowd, logged in, and not asked about yet."""
        if self._crowd is None:
            await self.people()
            before = await self.store_bytes()
            self._crowd = Crowd(people=await self.log_in("crowd", self.settings.crowd), store_bytes=before)
        return self._crowd

    async def pass_over(
        self, name: str, service: Service, people: Iterable[Person], *, activity: bool = True, rate: float = 0
    ) -> Measure:
        """Ask about each of them once, with new trace headers; every answer must be an allow."""
        requests = self.requests(name, (check_record(person, self.caller(), activity=activity) for person in people))
        load = Load(
            address=service.address,
            requests=requests,
            expects=('200:"decision":"allow"',),
            watch=(service.process.pid,),
            rate=rate,
            once=True,
        )
        return await self.measure(Target(name=name, load=load), seconds=2 * BEAT_S, warmup=0)
