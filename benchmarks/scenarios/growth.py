"""What a check costs in a deployment with a million open sessions, against one with ten thousand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from hashlib import md5
from uuid import UUID

import asyncpg
import msgspec

from accessguard.devices.cookie import DeviceTokens
from benchmarks.bench import Bench
from benchmarks.machine import resident_bytes
from benchmarks.model import BenchError, Figure, Load, Measure, Target, ratios, spread
from benchmarks.people import ALLOWED, USER_AGENTS, address
from benchmarks.rounds import Series, interleave
from benchmarks.service import TENANT, Service
from benchmarks.wire import TRACE, Record, request

NAME = "growth"
SMALL = 10_000
BATCH = 100
FILL_AT_ONCE = 4
ROUNDS = 3
LATELY = 30_000
"""Not more, so that they can all be settled and asked again before the first verdict is half a minute old."""
RESTING = 100_000
"""Twice as many as are not at rest, so that each rests again before its next turn."""
MILLION = 1_000_000
MB = 1_000_000

UNCHECKED = "SET session_replication_role = replica"
"""Members come before their sessions here; checking a million foreign keys would only take time."""

FILL_MEMBERS = """
    INSERT INTO member (tenant, id, name, created_at)
    SELECT $1, 'grown-' || lpad(n::text, 9, '0'), 'Member ' || lpad(n::text, 9, '0'), now()
      FROM generate_series(0, $2::int - 1) AS n
"""
FILL_SESSIONS = """
    INSERT INTO session (tenant, id, member_id, device_id, device_class, app, host, method, ip, user_agent, started_at, expires_at)
    SELECT $1, 'grown-session-' || lpad(n::text, 9, '0'), 'grown-' || lpad(n::text, 9, '0'), md5('grown-device-' || n)::uuid, 'desktop', 'courses', 'learn.example.com', 'password',
           '10.0.0.0'::inet + n, $3, now(), now() + interval '12 hours'
      FROM generate_series(0, $2::int - 1) AS n
"""
FILL_DEVICES = """
    INSERT INTO device (tenant, id, member_id, browser_id, secret_hash, rotated_at, label, browser, os, device_class, first_seen_at,
                        last_seen_at, admitted_at)
    SELECT $1, md5('grown-device-' || n)::uuid, 'grown-' || lpad(n::text, 9, '0'), md5('grown-device-' || n)::uuid,
           sha256(decode(repeat(md5('grown-device-' || n), 2), 'hex')), now(),
           'Chrome on Windows', 'Chrome', 'Windows', 'desktop', now(), now(), now()
      FROM generate_series(0, $2::int - 1) AS n
"""
ANALYZE = "ANALYZE member, session, device"


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Fill PostgreSQL, have a fresh worker meet everybody, and compare a rotation of few with two out of all.

    The few are asked of a worker that has met no one else. Everybody has a
    device, and sends its token.
    """
    rows = bench.settings.rows
    await bench.service()
    await _fill(bench, rows)
    small, large = await bench.worker("small"), await bench.worker("large")
    try:
        await _meet(bench, small, min(SMALL, rows))
        before = resident_bytes(large.process.pid)
        met = await _meet(bench, large, rows)
        grown = resident_bytes(large.process.pid) - before
        return (*await _compare(bench, small, large), *_filled(met, grown, rows))
    finally:
        await bench.processes.stop(small.process)
        await bench.processes.stop(large.process)


async def _fill(bench: Bench, rows: int) -> None:
    """Write members and sessions straight into PostgreSQL; through logins it would take longer than the whole run."""
    connection = await asyncpg.connect((await bench.stores()).database_url)
    try:
        await connection.execute(UNCHECKED)
        await connection.execute(FILL_MEMBERS, TENANT, rows, timeout=300)
        await connection.execute(FILL_SESSIONS, TENANT, rows, USER_AGENTS[0], timeout=300)
        await connection.execute(FILL_DEVICES, TENANT, rows, timeout=300)
        await connection.execute(ANALYZE, timeout=300)
    finally:
        await connection.close()


async def _meet(bench: Bench, service: Service, count: int) -> Measure:
    """Ask about everybody once, in batches, so that their verdicts are held."""
    requests = bench.requests("meet", _batches(bench, count))
    size = min(BATCH, count)
    expects = (f"200*{size}:{ALLOWED}",)
    load = Load(
        address=service.address,
        requests=requests,
        expects=expects,
        watch=(service.process.pid,),
        connections=FILL_AT_ONCE,
        once=True,
    )
    return await bench.measure(Target(name="growth, filling in", load=load, decisions=size))


def _batches(bench: Bench, count: int) -> Iterator[Record]:
    size, tokens = min(BATCH, count), bench.secrets.device_tokens()
    for first in range(0, count - size + 1, size):
        body = msgspec.json.encode({"checks": [_check(tokens, number) for number in range(first, first + size)]})
        yield Record(data=request("POST", "/v1/checks", headers=bench.caller(), body=body))


def _session(number: int) -> str:
    return f"grown-session-{number:09}"


def _check(tokens: DeviceTokens, number: int) -> dict[str, str]:
    device = md5(f"grown-device-{number}".encode()).digest()
    return {
        "session_id": _session(number),
        "ip": address(number),
        "user_agent": USER_AGENTS[0],
        "device_token": tokens.issue(UUID(bytes=device), device * 2),
        "resource": f"course:{number % 100}/lesson:{number % 37}",
        "product_id": f"course-{number % 100}",
    }


async def _compare(bench: Bench, small: Service, large: Service) -> tuple[Figure, ...]:
    rows = bench.settings.rows
    targets = [
        _target(bench, small, "growth, few", range(min(SMALL, rows))),
        _target(bench, large, "growth, lately", _shuffled(rows, LATELY)),
        _target(bench, large, "growth, resting", _shuffled(rows, RESTING), settle=False),
    ]
    series = await interleave(bench, targets, rounds=min(ROUNDS, bench.settings.rounds))
    few, lately, resting = (series[target.name] for target in targets)
    failed = few.failed or lately.failed or resting.failed
    if failed:
        raise BenchError(failed)
    return (
        *_cost("those asked about lately", rows, lately, few),
        *_cost("those that rested", rows, resting, few),
    )


def _cost(which: str, rows: int, many: Series, few: Series) -> tuple[Figure, ...]:
    what, value = f"CPU per check, {rows:,} sessions, {which}", ratios(many.cpu_us, few.cpu_us)
    return (
        Figure(
            scenario=NAME,
            what=f"{what} / {min(SMALL, rows):,}",
            unit="x",
            value=value,
            floor=1.3,
            moonshot=1.1,
            lower_is_better=True,
        ),
        Figure(scenario=NAME, what=what, unit="us", value=spread(many.cpu_us), lower_is_better=True),
    )


def _target(bench: Bench, service: Service, name: str, numbers: Sequence[int], *, settle: bool = True) -> Target:
    requests = bench.requests(name, _checks(bench, numbers))
    load = Load(address=service.address, requests=requests, expects=(f"200:{ALLOWED}",), watch=(service.process.pid,))
    return Target(name=name, load=load, settle=settle)


def _checks(bench: Bench, numbers: Sequence[int]) -> Iterator[Record]:
    headers, tokens = {**bench.caller(), **TRACE}, bench.secrets.device_tokens()
    for number in numbers:
        body = msgspec.json.encode(_check(tokens, number))
        yield Record(
            data=request("POST", "/v1/check", headers=headers, body=body), own=f'"session_id":"{_session(number)}"'
        )


def _shuffled(count: int, most: int) -> Sequence[int]:
    """Return so many of all numbers, far apart from one to the next: more than any cache of the processor holds."""
    step = 7_919  # a prime, so that it divides no round number of sessions
    return [number * step % count for number in range(min(count, most))]


def _filled(met: Measure, grown: int, rows: int) -> tuple[Figure, ...]:
    size = min(BATCH, rows)
    return (
        Figure(scenario=NAME, what="sessions first met, a second", unit="/s", value=spread([met.rps * size])),
        Figure(
            scenario=NAME,
            what="memory of the worker per million",
            unit="MB",
            value=spread([grown / rows * MILLION / MB]),
            floor=320,
            moonshot=100,
            lower_is_better=True,
        ),
    )
