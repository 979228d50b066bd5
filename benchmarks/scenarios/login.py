"""Logins of members whose device is known: how many a second, and how many round trips to PostgreSQL each takes."""

from __future__ import annotations

from collections.abc import Sequence

import aiohttp

from benchmarks.bench import Bench
from benchmarks.model import BenchError, Figure, Load, Measure, Target, ratios, spread
from benchmarks.people import ALLOWED, Person, caller, login_body
from benchmarks.relay import Relay
from benchmarks.scenarios.stores import AT_ONCE, tally
from benchmarks.service import start_service
from benchmarks.wire import TRACE, Record, request

NAME = "login"
ROUNDS = 3


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Alternate logins, 32 at once, with single committed inserts, 32 at once; then count round trips one by one."""
    measures: list[Measure] = []
    inserts: list[float] = []
    for number in range(min(ROUNDS, bench.settings.rounds)):
        measures.append(await _log_in_again(bench, await bench.log_in(f"known-{number}", bench.settings.logins)))
        inserts.append((await tally(bench, "pg_insert", AT_ONCE)).per_second)
    rates = [measure.rps for measure in measures]
    return (
        Figure(
            scenario=NAME,
            what="logins a second / committed inserts, 32 at once",
            unit="x",
            value=ratios(rates, inserts),
            floor=0.3,
            moonshot=0.6,
        ),
        Figure(scenario=NAME, what="logins a second", unit="/s", value=spread(rates)),
        Figure(
            scenario=NAME,
            what="CPU per login",
            unit="us",
            value=spread([measure.cpu_us for measure in measures]),
            lower_is_better=True,
        ),
        Figure(
            scenario=NAME,
            what="99th percentile, 32 at once",
            unit="us",
            value=spread([measure.p99_us for measure in measures]),
            lower_is_better=True,
        ),
        await _round_trips(bench),
    )


async def _log_in_again(bench: Bench, people: Sequence[Person]) -> Measure:
    """Each logs in once more from the device they have; the answer must name it, and call it known."""
    service = await bench.service()
    headers = {**bench.caller(), **TRACE}
    requests = bench.requests(NAME, (_record(person, headers) for person in people))
    load = Load(
        address=service.address, requests=requests, expects=(f"200:{ALLOWED}",), watch=(service.process.pid,), once=True
    )
    return await bench.measure(Target(name=NAME, load=load))


def _record(person: Person, headers: dict[str, str]) -> Record:
    body = login_body(person.member_id, person.number, person.device.token)
    return Record(
        data=request("POST", "/v1/logins", headers=headers, body=body), own=f'"id":"{person.device.id}","new":false'
    )


async def _round_trips(bench: Bench) -> Figure:
    """Put a relay between a worker and PostgreSQL, and count how often a login waits for it."""
    people = await bench.log_in("counted", bench.settings.trips)
    environment = await bench.environment()
    async with Relay(environment["ACCESSGUARD_DATABASE_URL"], bench.folder) as relay:
        behind = {**environment, "ACCESSGUARD_DATABASE_URL": relay.url}
        service = await start_service(bench.processes, "relayed", behind, core=bench.cores.server)
        try:
            trips = await _count(relay, service.url, bench.secrets.token("platform"), people)
        finally:
            await bench.processes.stop(service.process)
    return Figure(
        scenario=NAME, what="round trips to PostgreSQL", unit="", value=spread(trips), floor=3, lower_is_better=True
    )


async def _count(relay: Relay, url: str, token: str, people: Sequence[Person]) -> list[float]:
    """Return the round trips of each login; the first fifth, which fills caches and prepares statements, is left out."""
    trips: list[float] = []
    async with aiohttp.ClientSession(url, headers=caller(token)) as client:
        for person in people:
            before = relay.round_trips
            async with client.post(
                "/v1/logins", data=login_body(person.member_id, person.number, person.device.token)
            ) as reply:
                if reply.status != 200:
                    raise BenchError(f"a login was answered {reply.status}: {await reply.text()}")
            trips.append(float(relay.round_trips - before))
    if not all(trips):
        raise BenchError("a login was answered without asking PostgreSQL")
    return trips[len(trips) // 5 :]
