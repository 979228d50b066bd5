"""What the question costs a request that passes a proxy: each proxy by the file that users copy, with it and without, in turn."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from benchmarks.bench import TROUBLE, Bench
from benchmarks.fronts import FRONTS, front, start
from benchmarks.model import BenchError, Figure, Load, Measure, Skipped, Spread, Target, spread
from benchmarks.people import Person
from benchmarks.proxies import nginx_return
from benchmarks.scenarios.races import browser
from benchmarks.wire import Record, request

NAME = "proxies"
RATE = 500.0
"""Requests a second: a busy school, and far from what any of the proxies can do."""
STUDENTS = 500
ROUNDS = 2
WINDOW_S = 1.0


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Every proxy that is there; which ones are not is said beside the figures."""
    people = await bench.log_in("proxied", min(STUDENTS, bench.settings.sessions // 20))
    platform = await _platform(bench)
    figures: list[Figure] = []
    missing: list[str] = []
    for name in FRONTS:
        try:
            figures += await _figures(bench, name, people, platform)
        except Skipped as reason:
            missing.append(str(reason))
    if missing:
        bench.asides[NAME] = "; ".join(missing)
    return tuple(figures)


async def _platform(bench: Bench) -> int:
    """The port of what stands behind the proxies: nginx, where it is installed, else the no-op."""
    room = bench.folder / "platform"
    room.mkdir()
    try:
        return (await nginx_return(bench.processes, room, bench.cores.server)).port
    except Skipped:
        return int((await bench.noop()).load.address.rpartition(":")[2])


async def _figures(bench: Bench, name: str, people: Sequence[Person], platform: int) -> tuple[Figure, ...]:
    alone, asking = [await _target(bench, name, people, platform, asks=asks) for asks in (False, True)]
    rounds = [
        (await _measured(bench, alone), await _measured(bench, asking))
        for _ in range(min(ROUNDS, bench.settings.rounds))
    ]
    return (
        _figure(f"{name} alone, median", [one.p50_us for one, _ in rounds]),
        _figure(f"{name} alone, 99th percentile", [one.p99_us for one, _ in rounds]),
        _figure(f"{name}, added at the median", [other.p50_us - one.p50_us for one, other in rounds]),
        _figure(f"{name}, added at the 99th percentile", [other.p99_us - one.p99_us for one, other in rounds]),
    )


async def _target(bench: Bench, name: str, people: Sequence[Person], platform: int, *, asks: bool) -> Target:
    """A proxy that runs, and whose every verdict is held."""
    guard = await bench.service()
    room = front(
        bench.folder, name, guard=guard.port, platform=platform, token=bench.secrets.token("platform"), asks=asks
    )
    proxy = await start(bench.processes, name, room, bench.cores.server, asks=asks)
    records = (Record(data=request("GET", "/", headers=browser(person))) for person in people)
    load = Load(address=proxy.address, requests=bench.requests(room.folder.name, records), expects=('200:"allow"',))
    target = Target(name=room.folder.name, load=load)
    await _answering(bench, target)
    return target


async def _answering(bench: Bench, target: Target) -> None:
    """Ask once about everybody; again for a while, as Traefik listens before it knows its routes."""
    for _ in range(20):
        try:
            await bench.settle(target)
        except TROUBLE:
            await asyncio.sleep(0.1)
        else:
            return
    raise BenchError(f"{target.name} does not answer as it should")


async def _measured(bench: Bench, target: Target) -> Measure:
    await bench.settle(target)
    paced = msgspec.structs.replace(target, load=msgspec.structs.replace(target.load, rate=RATE))
    return await bench.measure(paced, seconds=min(WINDOW_S, bench.settings.window_s))


def _figure(what: str, values: list[float]) -> Figure:
    value: Spread = spread(values)
    return Figure(scenario=NAME, what=what, unit="us", value=value, lower_is_better=True)
