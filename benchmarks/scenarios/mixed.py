"""A mixed day: all with activity, beats falling due, 1 % denials, 0.1 % logins, blocks now and then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from benchmarks.bench import Bench
from benchmarks.control import device_path
from benchmarks.model import BenchError, Figure, Load, Target
from benchmarks.people import ALLOWED, DENIED, Person, check_record, login_body
from benchmarks.rounds import interleave, processor, throughput
from benchmarks.wire import TRACE, Record, request

NAME = "mixed-day"
ALLOW, DENY, LOGIN, BLOCK, EITHER = range(5)
EXPECTS = (f"200:{ALLOWED}", f"200:{DENIED}", f"200:{ALLOWED}", "200:", '200:"decision":"')
PASSES = 5
ROUNDS = 3


class Cast(msgspec.Struct, frozen=True, kw_only=True):
    """Who plays which part: `students` are always allowed, `blocked` never, `returning` log in, `toggled` are blocked and released."""

    students: Sequence[Person]
    blocked: Sequence[Person]
    returning: Sequence[Person]
    toggled: Sequence[Person]


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Measure the day against the no-op, in longer windows than a race's, so that beats come at their own pace."""
    noop = await bench.noop()
    day = await _target(bench, await _cast(bench))
    series = await interleave(
        bench, [noop, day], rounds=min(ROUNDS, bench.settings.rounds), seconds=bench.settings.mixed_s
    )
    for one in series.values():
        if one.failed is not None:
            raise BenchError(one.failed)
    own, reference = series[NAME], series[noop.name]
    return (*throughput(NAME, own, reference, floor=3.5, moonshot=6), *processor(NAME, own, reference))


async def _cast(bench: Bench) -> Cast:
    students = await bench.people()
    size = PASSES * len(students)
    blocked = await bench.log_in("blocked", max(len(students) // 100, 2))
    toggled = await bench.log_in("toggled", max(size // 10_000, 1))
    returning = await bench.log_in("returning", max(size // 1_000, 2))
    async with bench.operator(await bench.service(), "supervisor") as operator:
        for person in blocked:
            await operator.set_access(person, "blocked")
    return Cast(students=students, blocked=blocked, returning=returning, toggled=toggled)


async def _target(bench: Bench, cast: Cast) -> Target:
    service = await bench.service()
    requests = bench.requests(NAME, _day(bench, cast))
    return Target(
        name=NAME, load=Load(address=service.address, requests=requests, expects=EXPECTS, watch=(service.process.pid,))
    )


def _day(bench: Bench, cast: Cast) -> Iterator[Record]:
    """Five times round all students; every hundredth request, thousandth and ten-thousandth is another one besides."""
    headers = {**bench.caller(), **TRACE}
    operator = {**headers, "Authorization": f"Bearer {bench.secrets.token('supervisor')}"}
    for number in range(PASSES * len(cast.students)):
        yield check_record(cast.students[number % len(cast.students)], headers)
        if number % 100 == 50:
            yield check_record(_nth(cast.blocked, number // 100), headers, kind=DENY)
        if number % 1_000 == 500:
            yield _login(_nth(cast.returning, number // 1_000), headers)
        if number % 5_000 == 1:
            person = _nth(cast.toggled, number // 10_000)
            yield _access(person, operator, "blocked" if number % 10_000 == 1 else "default")
            yield check_record(person, headers, kind=EITHER)


def _nth(people: Sequence[Person], number: int) -> Person:
    return people[number % len(people)]


def _login(person: Person, headers: dict[str, str]) -> Record:
    body = login_body(person.member_id, person.number, person.device.token)
    return Record(data=request("POST", "/v1/logins", headers=headers, body=body), kind=LOGIN)


def _access(person: Person, headers: dict[str, str], access: str) -> Record:
    body = msgspec.json.encode({"access": access, "reason": "benchmark"})
    return Record(data=request("PATCH", device_path(person), headers=headers, body=body), kind=BLOCK)
