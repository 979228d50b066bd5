"""Scenarios that are a throughput: each prepares a target, and all of them are measured in the same rounds."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from statistics import median

import msgspec

from benchmarks.bench import TROUBLE, Bench, explain
from benchmarks.model import BenchError, Figure, Load, Outcome, Skipped, Target, ratios
from benchmarks.people import ALLOWED, Person, batch_record, check_record
from benchmarks.proxies import haproxy_map, nginx_asking, nginx_return
from benchmarks.rounds import Series, interleave, processor, throughput
from benchmarks.wire import MARK, TRACE, Record, request

NGINX = "nginx-return"
SESSION_COOKIE = "__Host-ag_session"
SATURATED = 0.92
POST_BODY = 273
"""Bytes of the no-op's JSON body: what a check weighed in the first measurements."""


class Race(msgspec.Struct, frozen=True, kw_only=True):
    """A throughput scenario and its goals, as multiples of the no-op: decisions a second, and CPU per decision.

    `prepare` may raise Skipped. `of_nginx` is the moonshot as a share of nginx's `return 200`.
    """

    name: str
    about: str
    prepare: Callable[[Bench], Awaitable[Target]]
    floor: float | None = None
    moonshot: float | None = None
    cpu_floor: float | None = None
    cpu_moonshot: float | None = None
    of_nginx: float | None = None


async def noop_post(bench: Bench) -> Target:
    """A no-op that reads a JSON body of 273 bytes."""
    load = (await bench.noop()).load
    body = msgspec.json.encode({"session_id": "x" * (POST_BODY - len('{"session_id":""}'))})
    requests = bench.requests("noop-post", [Record(data=request("POST", "/", headers=bench.caller(), body=body))])
    return Target(name="noop-post", load=msgspec.structs.replace(load, requests=requests))


async def nginx(bench: Bench) -> Target:
    """Nothing but the answer."""
    proxy = await nginx_return(bench.processes, bench.folder, bench.cores.server)
    requests = bench.requests(NGINX, [Record(data=request("GET", "/", headers={}))])
    return Target(
        name=NGINX,
        load=Load(address=proxy.address, requests=requests, expects=('200:"allow":true',), watch=(proxy.process.pid,)),
    )


async def haproxy(bench: Bench) -> Target:
    """A session cookie looked up in a map that never changes."""
    count = bench.settings.sessions
    proxy = await haproxy_map(bench.processes, bench.folder, bench.cores.server, count)
    requests = bench.requests(
        "haproxy-map",
        (Record(data=request("GET", "/", headers={"Cookie": f"session=s{number}"})) for number in range(count)),
    )
    return Target(
        name="haproxy-map",
        load=Load(address=proxy.address, requests=requests, expects=('200:"allow":true',), watch=(proxy.process.pid,)),
    )


async def varying(bench: Bench) -> Target:
    """A trace header that no other request has."""
    headers = {**bench.caller(), **TRACE}
    return await _guarded(
        bench, "held-varying-headers", (check_record(person, headers) for person in await bench.people())
    )


async def constant(bench: Bench) -> Target:
    """The same header block in every request, but for Content-Length."""
    headers = bench.caller()
    return await _guarded(
        bench, "held-constant-headers", (check_record(person, headers) for person in await bench.people())
    )


async def ordinary(bench: Bench) -> Target:
    """A way to write the content type that the fast lane leaves to aiohttp."""
    headers = {**bench.caller(), "X-Request-Id": MARK, "Content-Type": 'application/json; charset="utf-8"'}
    return await _guarded(bench, "ordinary-route", (check_record(person, headers) for person in await bench.people()))


async def batch_32(bench: Bench) -> Target:
    """32 decisions a request."""
    return await _batches(bench, 32)


async def batch_100(bench: Bench) -> Target:
    """100 decisions a request."""
    return await _batches(bench, 100)


async def _batches(bench: Bench, size: int) -> Target:
    people, headers = await bench.people(), {**bench.caller(), **TRACE}
    records = (batch_record(people[first : first + size], headers) for first in range(0, len(people) - size + 1, size))
    return await _guarded(bench, f"batch-{size}", records, expect=f"200*{size}:{ALLOWED}", decisions=size)


async def forward_auth(bench: Bench) -> Target:
    """What nginx asks with `auth_request`, sent directly, with the token of a platform: else nobody believes its addresses."""
    await _probe_forward_auth(bench)
    asks = bench.caller()
    records = (_proxied(person, asks) for person in await bench.people())
    return await _guarded(bench, "forward-auth", records, expect="204:")


async def forward_auth_nginx(bench: Bench) -> Target:
    """A small file behind an nginx that asks first; proxy and service share the core."""
    await _probe_forward_auth(bench)
    service = await bench.service()
    token = bench.secrets.token("platform")
    proxy = await nginx_asking(bench.processes, bench.folder, bench.cores.server, service.port, token)
    requests = bench.requests(
        "forward-auth-nginx", (_proxied(person, {}, "/index.html") for person in await bench.people())
    )
    watch = (proxy.process.pid, service.process.pid)
    return Target(
        name="forward-auth-nginx",
        load=Load(address=proxy.address, requests=requests, expects=('200:"allow":true',), watch=watch),
        settle=True,
    )


async def _probe_forward_auth(bench: Bench) -> None:
    service, people = await bench.service(), await bench.people()
    async with bench.operator(service, "platform") as operator:
        status = await operator.status("/auth/nginx", {**bench.caller(), **browser(people[0])})
    if status == 404:
        raise Skipped("the service has no GET /auth/nginx")
    if status != 204:
        raise BenchError(f"GET /auth/nginx was answered {status}")


def _proxied(person: Person, proxy: Mapping[str, str], path: str = "/auth/nginx") -> Record:
    return Record(data=request("GET", path, headers={**proxy, **browser(person)}))


def browser(person: Person) -> Mapping[str, str]:
    """The headers of a student's request, and how a proxy tells of it."""
    cookies = f"{SESSION_COOKIE}={person.session.token}; __Host-ag_device={person.device.token}"
    return {
        "User-Agent": person.user_agent,
        "Cookie": cookies,
        "X-Forwarded-For": person.ip,
        "X-Original-URI": "/courses/42",
    }


async def _guarded(
    bench: Bench, name: str, records: Iterable[Record], *, expect: str = f"200:{ALLOWED}", decisions: int = 1
) -> Target:
    service = await bench.service()
    load = Load(
        address=service.address, requests=bench.requests(name, records), expects=(expect,), watch=(service.process.pid,)
    )
    return Target(name=name, load=load, decisions=decisions, settle=True)


RACES = (
    Race(name="noop-post", about="reference: the no-op with a JSON body", prepare=noop_post),
    Race(name=NGINX, about="reference: nginx return 200", prepare=nginx),
    Race(name="haproxy-map", about="reference: HAProxy with a static map", prepare=haproxy),
    Race(
        name="held-varying-headers",
        about="verdict held, a new trace header in each request",
        prepare=varying,
        floor=4.5,
        moonshot=6,
        cpu_floor=0.24,
        cpu_moonshot=0.15,
    ),
    Race(
        name="held-constant-headers",
        about="verdict held, callers with constant headers",
        prepare=constant,
        floor=8,
        moonshot=9.5,
        cpu_floor=0.14,
        cpu_moonshot=0.1,
        of_nginx=0.8,
    ),
    Race(
        name="ordinary-route",
        about="the same check through aiohttp's ordinary route",
        prepare=ordinary,
        floor=0.85,
        moonshot=0.9,
    ),
    Race(name="batch-32", about="POST /v1/checks with 32", prepare=batch_32, floor=15, moonshot=40),
    Race(name="batch-100", about="POST /v1/checks with 100", prepare=batch_100, floor=25, moonshot=60),
    Race(name="forward-auth", about="GET /auth/nginx, held", prepare=forward_auth, floor=4.5, moonshot=9),
    Race(
        name="forward-auth-nginx",
        about="a page behind nginx with auth_request",
        prepare=forward_auth_nginx,
        floor=1,
        moonshot=2,
    ),
)


async def run_races(bench: Bench, races: Sequence[Race]) -> list[Outcome]:
    """Prepare the targets, measure them together with the no-op, and report each."""
    noop = await bench.noop()
    targets: list[Target] = []
    refused: dict[str, Outcome] = {}
    for race in races:
        try:
            targets.append(await race.prepare(bench))
        except Skipped as reason:
            refused[race.name] = Outcome(scenario=race.name, skipped=str(reason))
        except TROUBLE as error:
            refused[race.name] = Outcome(scenario=race.name, failed=explain(error))
    series = await interleave(bench, [noop, *targets])
    reference = series[noop.name]
    if reference.failed is not None:
        raise BenchError(reference.failed)
    return [_reference(reference), *(refused.get(race.name) or _outcome(race, series, reference) for race in races)]


def _reference(noop: Series) -> Outcome:
    figures = (*throughput("no-op", noop, noop), *processor("no-op", noop, noop))
    return Outcome(scenario="no-op", figures=tuple(figure for figure in figures if figure.unit != "x"))


def _outcome(race: Race, series: Mapping[str, Series], noop: Series) -> Outcome:
    own = series[race.name]
    if own.failed is not None:
        return Outcome(scenario=race.name, failed=own.failed)
    figures = (
        *throughput(race.name, own, noop, floor=race.floor, moonshot=race.moonshot),
        *processor(race.name, own, noop, floor=race.cpu_floor, moonshot=race.cpu_moonshot),
        *_share_of_nginx(race, own, series.get(NGINX)),
    )
    return Outcome(scenario=race.name, figures=figures, note=_bounded(own))


def _bounded(series: Series) -> str | None:
    if median(measure.generator_share for measure in series.measures) < SATURATED:
        return None
    return "the generator's core was full, so the server could have done more"


def _share_of_nginx(race: Race, own: Series, nginx: Series | None) -> tuple[Figure, ...]:
    if race.of_nginx is None or nginx is None or nginx.failed is not None:
        return ()
    value = ratios(own.per_second, nginx.per_second)
    return (
        Figure(
            scenario=race.name,
            what="decisions a second / nginx return 200",
            unit="x",
            value=value,
            moonshot=race.of_nginx,
        ),
    )
