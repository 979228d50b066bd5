"""The client of the platforms: what a check costs the process that asks, and when a block reaches one that holds an answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TypeAlias

import aiohttp
import msgspec
import uvloop

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
ALLOWS = b'{"allow": true}'

Once: TypeAlias = Callable[[dict[str, str]], Awaitable[None]]
Windows: TypeAlias = list[tuple[float, float]]
"""Of each round, microseconds of CPU an exchange and exchanges a second."""


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Checks without the hold and with it, beside an ordinary HTTP client that asks a no-op; then blocks."""
    service, path = await _listening(bench)
    people = await bench.log_in("client", AT_ONCE)
    token = bench.secrets.token("platform")
    noop = await bench.noop()
    asking = Settings(address=f"unix:{path}", token=token, hold=False, follow=False, deadline_ms=5_000)
    rounds = min(3, bench.settings.rounds)
    seconds = min(SECONDS, bench.settings.window_s)
    keeping = msgspec.structs.replace(asking, hold=True)
    questions = [check(person) for person in people]

    async def windows() -> Windows:
        async with AccessGuard(asking) as guard:
            return [await _window(_check(guard), questions, seconds) for _ in range(rounds)]

    async def alone() -> Windows:
        async with AccessGuard(asking) as guard:
            return [await _window(_check(guard), questions[:1], seconds) for _ in range(rounds)]

    async def kept() -> Windows:
        async with AccessGuard(keeping) as guard:
            return [await _held(guard, questions[0], seconds) for _ in range(rounds)]

    async def requests() -> Windows:
        async with aiohttp.ClientSession(f"http://{noop.load.address}") as client:
            return [await _window(_get(client), questions, seconds) for _ in range(rounds)]

    asked = await asyncio.to_thread(_as_servers_do, windows)
    single = await asyncio.to_thread(_as_servers_do, alone)
    held = await asyncio.to_thread(_as_servers_do, kept)
    bare = await asyncio.to_thread(_as_servers_do, requests)
    figures = (
        *_figures("a check over a Unix socket, 32 in a turn", asked, floor=10),
        *_figures("the same, one at a time", single, floor=None),
        *_figures("a check whose answer is held", held, floor=1),
        *_figures("an aiohttp request to the no-op", bare, floor=None),
    )
    return (*figures, *await _blocks(bench, service, path))


async def _listening(bench: Bench) -> tuple[Service, str]:
    """A worker of its own that listens on a Unix socket, too."""
    await bench.service()
    path = str(bench.folder / "ag.sock")
    config = bench.folder / "client.toml"
    config.write_text(f'[server]\ncheck_deadline_ms = 5000\nunix_socket = "{path}"\n', encoding="utf-8")
    told = {**await bench.environment(), "ACCESSGUARD_CONFIG": str(config)}
    return await start_service(bench.processes, "client", told, core=bench.cores.server), path


def _as_servers_do(windows: Callable[[], Coroutine[None, None, Windows]]) -> Windows:
    """Run in a thread of its own on uvloop, as the servers of platforms do."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(windows())


def _check(guard: AccessGuard) -> Once:
    async def once(question: dict[str, str]) -> None:
        found = await guard.check(**question)
        if not found.allowed or found.unknown:
            raise BenchError(f"a check was not answered as it should be: {found}")

    return once


async def _held(guard: AccessGuard, question: dict[str, str], seconds: float) -> tuple[float, float]:
    """The same for an answer that is held, with nothing around the call; asked for anew when its time is over."""
    began, cpu, count = time.monotonic(), time.thread_time(), 0
    while time.monotonic() < began + seconds:
        for _ in range(1_000):
            found = await guard.check(**question)
        count += 1_000
        if not found.allowed or found.unknown:
            raise BenchError(f"a check was not answered as it should be: {found}")
    if guard.tally.unknown or guard.tally.held < count - 1_000:
        raise BenchError("answers were not held")
    return (time.thread_time() - cpu) * 1e6 / count, count / (time.monotonic() - began)


def _get(client: aiohttp.ClientSession) -> Once:
    async def once(_: dict[str, str]) -> None:
        async with client.get("/") as answer:
            if answer.status != 200 or await answer.read() != ALLOWS:
                raise BenchError(f"the no-op was answered {answer.status}")

    return once


async def _window(once: Once, questions: Sequence[dict[str, str]], seconds: float) -> tuple[float, float]:
    """CPU of this thread in microseconds an exchange, and exchanges a second, with one under way for each question."""
    for each in questions:
        await once(each)
    until = time.monotonic() + seconds
    began, cpu = time.monotonic(), time.thread_time()
    counts = await asyncio.gather(*(_again(once, each, until) for each in questions))
    done = sum(counts)
    return (time.thread_time() - cpu) * 1e6 / done, done / (time.monotonic() - began)


async def _again(once: Once, question: dict[str, str], until: float) -> int:
    count = 0
    while time.monotonic() < until:
        for _ in range(20):
            await once(question)
        count += 20
    return count


def _figures(what: str, windows: Windows, *, floor: float | None) -> tuple[Figure, ...]:
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
