"""A thousand slow clients and a flood from one caller, while another caller's checks go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

from benchmarks.bench import PATIENT, Bench
from benchmarks.model import BenchError, Figure, Load, Measure, Target, ratios, spread
from benchmarks.people import ALLOWED, Person, check_record
from benchmarks.service import Service, start_service
from benchmarks.wire import TRACE, request

NAME = "siege"
RATE = 1_000.0
ROUNDS = 3
SLOW = 1_000
DRIP_S = 2.0
"""How often each slow client sends one byte more of its head."""
FLOOD = 64
"""Connections on which one operator asks as fast as it is answered."""
QUIET_S = 2.0
SESSIONS = 600
SPREAD_S = 28.0
"""The time over which their beats are spread, so that each window has its share of them."""


OPERATOR = 20
"""Calls a second: what an operator needs who works; a fifth of what the service allows when nothing is said."""


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Percentiles at 1,000 checks a second, quiet and under siege in turn, by a worker that allows an operator OPERATOR calls a second."""
    people = await bench.log_in(NAME, min(SESSIONS, bench.settings.sessions))
    service = await _bounded(bench)
    try:
        return await _rounds(bench, service, people)
    finally:
        await bench.processes.stop(service.process)


async def _bounded(bench: Bench) -> Service:
    environment = await bench.environment()
    config = bench.folder / "siege.toml"
    config.write_text(f"{PATIENT}\n[limits]\noperator_calls_per_s = {OPERATOR}\n", encoding="utf-8")
    environment["ACCESSGUARD_CONFIG"] = str(config)
    return await start_service(bench.processes, NAME, environment, core=bench.cores.server)


async def _rounds(bench: Bench, service: Service, people: Sequence[Person]) -> tuple[Figure, ...]:
    spread_s = min(SPREAD_S, bench.settings.spread_s)
    await bench.pass_over("siege-first", service, people, rate=len(people) / spread_s if spread_s else 0)
    headers = {**bench.caller(), **TRACE}
    requests = bench.requests(NAME, (check_record(person, headers) for person in people))
    watch = (service.process.pid,)
    load = Load(address=service.address, requests=requests, expects=(f"200:{ALLOWED}",), watch=watch, rate=RATE)
    target = Target(name=NAME, load=load)
    quiet, besieged = list[Measure](), list[Measure]()
    for _ in range(min(ROUNDS, bench.settings.rounds)):
        quiet.append(await _measured(bench, target))
        async with besieging(service, bench.secrets.token("supervisor")):
            besieged.append(await _measured(bench, target))
    return _figures(quiet, besieged)


async def _measured(bench: Bench, target: Target) -> Measure:
    return await bench.measure(target, seconds=bench.settings.latency_s)


@contextlib.asynccontextmanager
async def besieging(service: Service, token: str) -> AsyncIterator[None]:
    """The slow clients and the flood, until the end. Raises BenchError when the flood was not held back."""
    slow = [await asyncio.open_connection("127.0.0.1", service.port) for _ in range(SLOW)]
    statuses: dict[int, int] = {}
    tasks = [asyncio.create_task(_drip(writer)) for _, writer in slow]
    tasks += [asyncio.create_task(_flood(service, token, statuses)) for _ in range(FLOOD)]
    await asyncio.sleep(QUIET_S)  # what it may ask at once is asked
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for _, writer in slow:
            writer.close()
    if not statuses.get(429):
        raise BenchError(f"siege: the flood was never held back: {statuses}")


async def _drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"POST /v1/check HTTP/1.1\r\nX: ")
    while not writer.is_closing():
        with contextlib.suppress(ConnectionError):
            writer.write(b"x")
        await asyncio.sleep(DRIP_S)


async def _flood(service: Service, token: str, statuses: dict[int, int]) -> None:
    asked = request("GET", "/v1/members", headers={"Authorization": f"Bearer {token}"})
    reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
    try:
        while True:
            writer.write(asked)
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
            await reader.readexactly(int(length.partition(b":")[2]))
            status = int(head.split(b" ")[1])
            statuses[status] = statuses.get(status, 0) + 1
    finally:
        writer.close()


def _figures(quiet: list[Measure], besieged: list[Measure]) -> tuple[Figure, ...]:
    calm, under = ([measure.p99_us for measure in each] for each in (quiet, besieged))
    return (
        Figure(
            scenario=NAME,
            what="99th percentile under siege / quiet",
            unit="x",
            value=ratios(under, calm),
            floor=2,
            moonshot=1.2,
            lower_is_better=True,
        ),
        Figure(scenario=NAME, what="99th percentile, quiet", unit="us", value=spread(calm), lower_is_better=True),
        Figure(
            scenario=NAME, what="99th percentile, under siege", unit="us", value=spread(under), lower_is_better=True
        ),
    )
