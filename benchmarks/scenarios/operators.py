"""What operators open, at ten thousand members, a hundred thousand and, when asked for, a million: each list, search, card and report."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import median
from typing import Final

import aiohttp
import asyncpg
import msgspec

from accessguard.api.keys import Role
from accessguard.embedded import Embedded
from benchmarks.bench import Bench
from benchmarks.ledger import Population
from benchmarks.model import BenchError, Figure, spread
from benchmarks.operations import Ask, asks
from benchmarks.service import TENANT, Service, migrate, start_service
from benchmarks.settling import now_ms, settle
from benchmarks.streaming import Streamed, of_files, stream
from benchmarks.subjects import draw

NAME = "operators"
SEED: Final = 1
WARM: Final = 2
LONGEST_S: Final = 3.0
"""How long one call is repeated at most; one that takes a second is known after three."""
NEAR_FLAT: Final = 2.0
"""What ten times as many members may make of a median; a whole list read would be ten."""
NOTICEABLE_MS: Final = 5.0
"""A median below says nothing on its growth."""

Timings = Mapping[str, Sequence[float]]


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Make each population in a database of its own, ask a fresh worker, and compare."""
    seen: dict[int, Timings] = {}
    files: dict[int, Streamed] = {}
    for members in bench.settings.populations:
        seen[members], files[members] = await _measured(bench, members)
    return (*_figures(seen), *of_files(NAME, files))


async def _measured(bench: Bench, members: int) -> tuple[Timings, Streamed]:
    environment = await _populated(bench, members)
    service = await start_service(bench.processes, f"operators-{members}", environment, core=bench.cores.server)
    try:
        subjects = await draw(environment["ACCESSGUARD_DATABASE_URL"], TENANT, bench.settings.asked)
        timings = await _timed(bench, service, subjects)
        async with aiohttp.ClientSession(service.url) as client:
            return timings, await stream(client, service.process.pid, bench.secrets.token(Role.SUPERVISOR))
    finally:
        await bench.processes.stop(service.process)


async def _populated(bench: Bench, members: int) -> Mapping[str, str]:
    """The environment of a worker whose database holds so many members: made now, or there already in a folder."""
    environment, folder = await bench.environment(), bench.settings.population
    if folder is not None and members == max(bench.settings.populations):
        stores = await Embedded.start(folder)
        bench.stack.push_async_callback(stores.stop)
        environment = {
            **environment,
            "ACCESSGUARD_DATABASE_URL": stores.database_url,
            "ACCESSGUARD_REDIS_URL": stores.redis_url,
        }
        await migrate(bench.processes, environment)
        return environment
    name = f"population_{members}"
    connection = await asyncpg.connect(environment["ACCESSGUARD_DATABASE_URL"])
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    url = environment["ACCESSGUARD_DATABASE_URL"].replace("/accessguard?", f"/{name}?")
    environment = {**environment, "ACCESSGUARD_DATABASE_URL": url}
    await migrate(bench.processes, environment)
    wanted = Population(tenant=TENANT, members=members, seed=SEED, until_ms=now_ms())
    await settle(url, wanted, workers=0 if members < 5_000 else 2)
    return environment


async def _timed(bench: Bench, service: Service, subjects: Sequence[Mapping[str, str]]) -> Timings:
    calls: dict[str, list[Ask]] = defaultdict(list)
    for subject in subjects:
        for ask in asks(subject):
            calls[ask.name].append(ask)
    async with aiohttp.ClientSession(service.url) as client:
        return {name: await _repeated(bench, client, same) for name, same in calls.items()}


async def _repeated(bench: Bench, client: aiohttp.ClientSession, same: Sequence[Ask]) -> Sequence[float]:
    """Milliseconds of each call, those that warm up left out; of a list, its second page too."""
    until = time.monotonic() + LONGEST_S
    taken: list[float] = []
    for number in range(bench.settings.asked + WARM):
        ask = same[number % len(same)]
        first, cursor = await _asked(bench, client, ask, None)
        if number >= WARM or time.monotonic() > until:
            taken.append(first)
        if cursor and number >= WARM:
            taken.append((await _asked(bench, client, ask, cursor))[0])
        if time.monotonic() > until:
            break
    return taken


async def _asked(bench: Bench, client: aiohttp.ClientSession, ask: Ask, cursor: str | None) -> tuple[float, str | None]:
    """Milliseconds until the whole answer was there, and where a list goes on."""
    path = ask.path if cursor is None else f"{ask.path}{'&' if '?' in ask.path else '?'}cursor={cursor}"
    headers = {"Authorization": f"Bearer {bench.secrets.token(ask.role)}"}
    began = time.perf_counter()
    async with client.get(path, headers=headers) as reply:
        body = await reply.read()
    ms = (time.perf_counter() - began) * 1000
    if reply.status != 200:
        raise BenchError(f"{ask.name} was answered {reply.status}: {body[:300]!r}")
    found = msgspec.json.decode(body) if ask.listing else {}
    return ms, found.get("next_cursor")


def _figures(seen: Mapping[int, Timings]) -> Sequence[Figure]:
    figures: list[Figure] = []
    for name in next(iter(seen.values())):
        for members, timings in seen.items():
            figures += _percentiles(f"{name}, {members:,} members", timings.get(name, ()))
        figures += _growth(name, [(members, timings[name]) for members, timings in seen.items() if timings.get(name)])
    return figures


def _percentiles(what: str, taken: Sequence[float]) -> Sequence[Figure]:
    if not taken:
        return ()
    last = sorted(taken)[math.ceil(len(taken) * 0.99) - 1]
    return (
        Figure(scenario=NAME, what=f"{what}, median", unit="ms", value=spread(taken), lower_is_better=True),
        Figure(scenario=NAME, what=f"{what}, 99th percentile", unit="ms", value=spread([last]), lower_is_better=True),
    )


def _growth(name: str, sizes: Sequence[tuple[int, Sequence[float]]]) -> Sequence[Figure]:
    """From each size to the next, where the larger one is slow enough to tell."""
    figures = []
    for (few, before), (many, after) in pairwise(sizes):
        value = max(NOTICEABLE_MS, median(after)) / max(NOTICEABLE_MS, median(before))
        figures.append(
            Figure(
                scenario=NAME,
                what=f"{name}, {many:,} members / {few:,}",
                unit="x",
                value=spread([value]),
                floor=NEAR_FLAT,
                moonshot=1.2,
                lower_is_better=True,
            )
        )
    return figures
