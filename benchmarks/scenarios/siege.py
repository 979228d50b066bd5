"""A thousand slow clients and a flood from one caller, while another caller's checks go on.

There are three floods, each by itself beside the slow clients: checks with a
platform's token, calls of an operator, and calls with a token that is none. All
of them come from a process of low priority on the generator's core
(benchmarks/flood.py), which asks as fast as it is answered; the worker runs with the
bounds that it has when nothing is said.

A stall of the machine below is in a 99th percentile whole, and a ratio of two of them
says nothing then: a window in which others had this machine's processors is measured
again, and the calmest one counts. How much was taken in those is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec

from benchmarks.bench import PATIENT, Bench
from benchmarks.flood import THERE
from benchmarks.machine import stolen
from benchmarks.model import BenchError, Figure, Load, Measure, Target, ratios, spread
from benchmarks.people import ALLOWED, Person, caller, check_record
from benchmarks.processes import python
from benchmarks.service import Service, start_service
from benchmarks.wire import TRACE, Record, request

NAME = "siege"
RATE = 1_000.0
ROUNDS = 3
SLOW = 1_000
CALM = 0.01
"""The share of the processors that others may have in a window that counts: 50 ms of 5 s, a percent of what is asked."""
AGAIN = 3
"""Windows of one kind and round, of which the calmest counts."""
QUIET_S = 0.5
"""How long a flood goes on before it counts."""
COME_S = 40
SESSIONS = 600
SPREAD_S = 28.0
"""The time over which their beats are spread at first; those that fall due between windows are sent before the next."""
FORGED = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJub2JvZHkifQ.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"


class Flood(msgspec.Struct, frozen=True, kw_only=True):
    """One flood: what it is called, its requests, on how many connections with how many on their way."""

    name: str
    requests: Path
    connections: int
    depth: int = 1


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Percentiles at 1,000 checks a second, quiet and under each flood in turn."""
    people = await bench.log_in(NAME, min(SESSIONS, bench.settings.sessions))
    service = await _bounded(bench)
    try:
        return await _rounds(bench, service, people)
    finally:
        await bench.processes.stop(service.process)


async def _bounded(bench: Bench) -> Service:
    """A worker with no bounds but those that it has by itself."""
    environment = await bench.environment()
    config = bench.folder / "siege.toml"
    config.write_text(PATIENT, encoding="utf-8")
    environment["ACCESSGUARD_CONFIG"] = str(config)
    return await start_service(bench.processes, NAME, environment, core=bench.cores.server)


def _floods(bench: Bench, people: Sequence[Person]) -> tuple[Flood, ...]:
    token = bench.secrets.token
    checks = [check_record(each, caller(token("platform", name="flood"))) for each in people]
    lists = [_asked(path, token("supervisor", name="flood")) for path in ("/v1/members?limit=200", "/v1/violations")]
    forged = [_asked("/v1/members", FORGED), check_record(people[0], caller(FORGED))]
    return (
        Flood(name="checks", requests=bench.requests("flood-checks", checks), connections=128, depth=8),
        Flood(name="operator calls", requests=bench.requests("flood-lists", lists), connections=512),
        Flood(name="forged tokens", requests=bench.requests("flood-forged", forged), connections=256),
    )


def _asked(path: str, token: str) -> Record:
    return Record(data=request("GET", path, headers=caller(token)))


async def _rounds(bench: Bench, service: Service, people: Sequence[Person]) -> tuple[Figure, ...]:
    spread_s = min(SPREAD_S, bench.settings.spread_s)
    await bench.pass_over("siege-first", service, people, rate=len(people) / spread_s if spread_s else 0)
    headers = {**bench.caller(), **TRACE}
    requests = bench.requests(NAME, (check_record(person, headers) for person in people))
    watch = (service.process.pid,)
    load = Load(address=service.address, requests=requests, expects=(f"200:{ALLOWED}",), watch=watch, rate=RATE)
    target = Target(name=NAME, load=load)
    floods = _floods(bench, people)
    quiet, taken = list[Measure](), list[float]()
    besieged: dict[str, list[Measure]] = {each.name: [] for each in floods}
    asked: dict[str, list[float]] = {each.name: [] for each in floods}
    for _ in range(min(ROUNDS, bench.settings.rounds)):
        quiet.append(await _calm(bench, target, taken))
        for each in floods:
            async with besieging(bench, service, each) as statuses:
                besieged[each.name].append(await _calm(bench, target, taken))
            asked[each.name].append(sum(statuses.values()))
    what = "processor time that others had meanwhile"
    away = Figure(scenario=NAME, what=what, unit="%", value=spread(taken), lower_is_better=True)
    return (*_figures(quiet, besieged), *_answers(asked), away)


async def _calm(bench: Bench, target: Target, taken: list[float]) -> Measure:
    """A window in which nearly nobody else had the processors, or the calmest of a few; what they had of them (%) is noted."""
    found: list[tuple[float, Measure]] = []
    while len(found) < AGAIN and not any(share <= CALM for share, _ in found):
        before, began = stolen(), time.monotonic()
        measure = await _measured(bench, target)
        passed = (time.monotonic() - began) * (os.cpu_count() or 1)
        found.append(((stolen() - before) / passed, measure))
    share, measure = min(found, key=lambda each: each[0])
    taken.append(100 * share)
    return measure


async def _measured(bench: Bench, target: Target) -> Measure:
    """One window, before which all have been asked once: no beats are in it that fell due while nobody asked."""
    seconds = 2 * bench.settings.latency_s
    return await bench.measure(target, seconds=seconds, warmup=seconds / 4)


@contextlib.asynccontextmanager
async def besieging(bench: Bench, service: Service, flood: Flood) -> AsyncIterator[dict[str, float]]:
    """The slow clients and the flood, until the end; then how many answers of each status it had a second."""
    ways = ("--connections", str(flood.connections), "--depth", str(flood.depth), "--slow", str(SLOW))
    name, statuses = flood.requests.stem, dict[str, float]()
    command = python("benchmarks.flood", str(service.port), str(flood.requests), *ways)
    log = bench.folder / f"{name}.log"
    log.unlink(missing_ok=True)
    process = await bench.processes.start(name, *command, core=bench.cores.generator)
    try:
        await _there(log, flood)
        yield statuses
    finally:
        await bench.processes.stop(process)
    statuses.update(msgspec.json.decode(log.read_bytes().splitlines()[-1], type=dict[str, float]))


async def _there(log: Path, flood: Flood) -> None:
    """Wait until everybody has come, and a little longer. Raises BenchError when they do not."""
    for _ in range(int(COME_S / QUIET_S)):
        await asyncio.sleep(QUIET_S)
        if THERE.encode() in log.read_bytes():  # noqa: ASYNC240 - a few bytes
            await asyncio.sleep(QUIET_S)
            return
    raise BenchError(f"siege: the flood of {flood.name} did not come within {COME_S} s")


def _figures(quiet: list[Measure], besieged: Mapping[str, list[Measure]]) -> tuple[Figure, ...]:
    calm = [measure.p99_us for measure in quiet]
    found = [_p99("99th percentile, quiet", calm)]
    for name, measures in besieged.items():
        under = [measure.p99_us for measure in measures]
        found.append(
            Figure(
                scenario=NAME,
                what=f"99th percentile beside {name} / quiet",
                unit="x",
                value=ratios(under, calm),
                floor=2,
                moonshot=1.2,
                lower_is_better=True,
            )
        )
        found.append(_p99(f"99th percentile beside {name}", under))
    return tuple(found)


def _p99(what: str, values: Sequence[float]) -> Figure:
    return Figure(scenario=NAME, what=what, unit="us", value=spread(values), lower_is_better=True)


def _answers(asked: Mapping[str, Sequence[float]]) -> Sequence[Figure]:
    return [
        Figure(
            scenario=NAME, what=f"answers to the flood of {name}", unit="/s", value=spread(values), lower_is_better=True
        )
        for name, values in asked.items()
    ]
