"""The client of the platforms: what a check costs the process that asks, and when a block reaches one that holds an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import aiohttp

from accessguard.client import AccessGuard, Settings
from benchmarks.bench import TROUBLE, Bench
from benchmarks.control import device_path
from benchmarks.model import BenchError, Figure, Spread, spread
from benchmarks.people import Person, check
from benchmarks.service import Service, start_service

NAME = "client"
AT_ONCE = 32
"""Requests that a platform's process has under way."""
SECONDS = 1.0
BLOCKS = 50
GIVE_UP_S = 2.0

Once = Callable[[Person], Awaitable[None]]


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Checks without the hold and with it, beside an ordinary HTTP client that asks a no-op; then blocks."""
    service, path = await _listening(bench)
    people = await bench.log_in("client", AT_ONCE)
    token = bench.secrets.token("platform")
    asking = Settings(address=f"unix:{path}", token=token, hold=False, follow=False, deadline_ms=5_000)
    rounds = min(3, bench.settings.rounds)
    seconds = min(SECONDS, bench.settings.window_s)
    async with AccessGuard(asking) as guard:
        asked = [await _window(_check(guard), people, seconds) for _ in range(rounds)]
    async with AccessGuard(Settings(address=f"unix:{path}", token=token, follow=False)) as guard:
        held = [await _window(_check(guard), people, seconds) for _ in range(rounds)]
    noop = await bench.noop()
    async with aiohttp.ClientSession(f"http://{noop.load.address}") as client:
        bare = [await _window(_get(client), people, seconds) for _ in range(rounds)]
    figures = (
        *_figures("a check over a Unix socket", asked, floor=10),
        *_figures("a check whose answer is held", held, floor=1),
        *_figures("an aiohttp request to the no-op", bare, floor=None),
    )
    return (*figures, *await _blocks(bench, service, path))


async def _listening(bench: Bench) -> tuple[Service, str]:
    """A worker of its own that listens on a Unix socket, too."""
    await bench.service()
    path = str(bench.folder / "ag.sock")
    told = {**await bench.environment(), "ACCESSGUARD_UNIX_SOCKET": path}
    return await start_service(bench.processes, "client", told, core=bench.cores.server), path


def _check(guard: AccessGuard) -> Once:
    async def once(person: Person) -> None:
        found = await guard.check(**check(person))
        if not found.allowed or found.unknown:
            raise BenchError(f"a check was not answered as it should be: {found}")

    return once


def _get(client: aiohttp.ClientSession) -> Once:
    async def once(_: Person) -> None:
        async with client.get("/") as answer:
            await answer.read()

    return once


async def _window(once: Once, people: tuple[Person, ...], seconds: float) -> tuple[float, float]:
    """CPU of this process in microseconds an exchange, and exchanges a second, with one under way for each of `people`."""
    for person in people:
        await once(person)
    until = time.monotonic() + seconds
    began, cpu = time.monotonic(), time.process_time()
    counts = await asyncio.gather(*(_again(once, person, until) for person in people))
    done = sum(counts)
    return (time.process_time() - cpu) * 1e6 / done, done / (time.monotonic() - began)


async def _again(once: Once, person: Person, until: float) -> int:
    count = 0
    while time.monotonic() < until:
        for _ in range(20):
            await once(person)
        count += 20
        await asyncio.sleep(0)
    return count


def _figures(what: str, windows: list[tuple[float, float]], *, floor: float | None) -> tuple[Figure, ...]:
    cpu = spread([each[0] for each in windows])
    rate = spread([each[1] for each in windows])
    return (
        Figure(scenario=NAME, what=f"{what}, CPU", unit="us", value=cpu, floor=floor, lower_is_better=True),
        Figure(scenario=NAME, what=f"{what}, a second", unit="1/s", value=rate),
    )


async def _blocks(bench: Bench, service: Service, path: str) -> tuple[Figure, ...]:
    """Milliseconds from a block's answer to the first refusal of a client that holds an allow; none without the stream."""
    people = await bench.log_in("held", min(BLOCKS, bench.settings.blocks))
    settings = Settings(address=f"unix:{path}", token=bench.secrets.token("platform"), deadline_ms=5_000)
    headers = {**bench.caller(), "Authorization": f"Bearer {bench.secrets.token('supervisor')}"}
    async with AccessGuard(settings) as guard, aiohttp.ClientSession(service.url, headers=headers) as operator:
        await guard.check(**check(people[0]))
        if not await _streams(bench, service):
            return ()
        taken = sorted([await _block(guard, operator, person) for person in people])
    last = taken[min(len(taken) - 1, int(len(taken) * 0.99))]
    value = Spread(median=last, low=taken[0], high=taken[-1])
    what = "a block reaches a client that holds an answer, 99th percentile"
    return (Figure(scenario=NAME, what=what, unit="ms", value=value, floor=100, lower_is_better=True),)


async def _streams(bench: Bench, service: Service) -> bool:
    """Whether this version has `/v1/stream`."""
    try:
        async with (
            aiohttp.ClientSession(service.url, headers=bench.caller()) as client,
            client.get("/v1/stream") as answer,
        ):
            return answer.status == 200
    except TROUBLE:
        return False


async def _block(guard: AccessGuard, operator: aiohttp.ClientSession, person: Person) -> float:
    await guard.check(**check(person))
    async with operator.patch(device_path(person), json={"access": "blocked", "reason": "benchmark"}) as answer:
        if answer.status != 200:
            raise BenchError(f"a block was answered {answer.status}")
    began = time.monotonic()
    while (await guard.check(**check(person))).allowed:
        if time.monotonic() > began + GIVE_UP_S:
            raise BenchError("a blocked device is still allowed by a client that holds an answer")
        await asyncio.sleep(0)
    return (time.monotonic() - began) * 1e3
