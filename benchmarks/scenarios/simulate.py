"""A rule tried on recorded history: how fast it is played, and that memory does not grow with the period."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import asyncpg
import msgspec

from benchmarks.bench import Bench
from benchmarks.model import BenchError, Figure, spread
from benchmarks.processes import python
from benchmarks.simulation import Played

NAME = "simulate"
TENANT = "history"
PER_MEMBER = 250
"""Events of one member: 25 logins from two browsers, nine interactions after each."""
DAYS = 30
END = datetime(2026, 9, 1, tzinfo=UTC)
SHORT = timedelta(days=3)
MB = 1_000_000

# Everything follows from the member's number and the login's, so that every run has the same history.
UNCHECKED = "SET session_replication_role = replica"
ANALYZE = "ANALYZE member, device, session, login_attempt, activity"
FILL = (
    "INSERT INTO tenant (id, name, created_at) SELECT $1::text, $1, $3::timestamptz WHERE $2::int > 0 ON CONFLICT DO NOTHING",
    """
    INSERT INTO member (tenant, id, name, created_at)
    SELECT $1::text, 'm' || lpad(m::text, 7, '0'), '', $3::timestamptz FROM generate_series(0, $2::int - 1) AS m
    """,
    """
    INSERT INTO device (tenant, id, member_id, browser_id, secret_hash, rotated_at, label, browser, os, device_class, first_seen_at,
                        last_seen_at, admitted_at, first_admitted_at)
    SELECT $1::text, md5('d' || m || '-' || b)::uuid, 'm' || lpad(m::text, 7, '0'), md5('d' || m || '-' || b)::uuid, ''::bytea, $3, 'Chrome on Windows',
           'Chrome', 'Windows', 'desktop', $3, $3::timestamptz + interval '30 days', $3, $3
      FROM generate_series(0, $2::int - 1) AS m, generate_series(0, 1) AS b
    """,
    """
    INSERT INTO login_attempt (tenant, id, at, member_id, outcome, method, ip, browser, os, device_class, device_id, device_token,
                               session_id, decision)
    SELECT $1::text, md5('l' || m || '-' || l)::uuid, $3::timestamptz + make_interval(mins => l * 1728 + m * 7 % 1700), 'm' || lpad(m::text, 7, '0'), 'success',
           'password', '10.0.0.0'::inet + m * 2 + l % 2, 'Chrome', 'Windows', 'desktop', md5('d' || m || '-' || l % 2)::uuid, 'current',
           's' || m || '-' || l, 'allow'
      FROM generate_series(0, $2::int - 1) AS m, generate_series(0, 24) AS l
    """,
    """
    INSERT INTO activity (tenant, member_id, session_id, at, kind, ip)
    SELECT $1::text, 'm' || lpad(m::text, 7, '0'), 's' || m || '-' || l, $3::timestamptz + make_interval(mins => l * 1728 + m * 7 % 1700 + u * 4),
           'lesson_open', '10.0.0.0'::inet + m * 2 + l % 2
      FROM generate_series(0, $2::int - 1) AS m, generate_series(0, 24) AS l, generate_series(1, 9) AS u
    """,
    """
    INSERT INTO session (tenant, id, member_id, device_id, device_class, method, started_at, expires_at, last_activity_at, ended_at, end_reason)
    SELECT $1::text, 's' || m || '-' || l, 'm' || lpad(m::text, 7, '0'), md5('d' || m || '-' || l % 2)::uuid, 'desktop', 'password',
           $3::timestamptz + make_interval(mins => l * 1728 + m * 7 % 1700), $3::timestamptz + interval '90 days',
           $3::timestamptz + make_interval(mins => l * 1728 + m * 7 % 1700 + 36),
           CASE WHEN l < 23 THEN $3::timestamptz + make_interval(mins => (l + 2) * 1728 + m * 7 % 1700) END, CASE WHEN l < 23 THEN 'replaced' END
      FROM generate_series(0, $2::int - 1) AS m, generate_series(0, 24) AS l
    """,
)
RULES = {
    "session_limit": {"kind": "session_limit", "params": {"max": 1, "window_s": 172_800}},
    "network_limit": {"kind": "network_limit", "params": {"max": 1, "window_s": 172_800}},
}


async def run(bench: Bench) -> tuple[Figure, ...]:
    """Fill in a month of history, and play all of it and its last days, in a process of its own."""
    members = max(8, bench.settings.rows // PER_MEMBER)
    await _fill(bench, members)
    whole = await _play(bench, "session_limit", timedelta(days=DAYS))
    short = {name: await _play(bench, name, SHORT) for name in RULES}
    if (whole.events, whole.members) != (members * PER_MEMBER, members) or not whole.denials:
        raise BenchError(f"{whole} is not what {members} members did")
    return (
        _figure(f"events a second, session_limit, {whole.events:,} of them", "/s", whole.events / whole.seconds),
        _figure("events a second, network_limit", "/s", short["network_limit"].events / short["network_limit"].seconds),
        _figure("peak memory, 30 days", "MB", whole.peak_bytes / MB, lower=True),
        Figure(
            scenario=NAME,
            what="peak memory, 30 days / 3 days",
            unit="x",
            value=spread([whole.peak_bytes / short["session_limit"].peak_bytes]),
            floor=1.2,
            moonshot=1.05,
            lower_is_better=True,
        ),
    )


def _figure(what: str, unit: str, value: float, *, lower: bool = False) -> Figure:
    return Figure(scenario=NAME, what=what, unit=unit, value=spread([value]), lower_is_better=lower)


async def _fill(bench: Bench, members: int) -> None:
    connection = await asyncpg.connect((await bench.stores()).database_url)
    try:
        await connection.execute(UNCHECKED)
        for statement in FILL:
            await connection.execute(statement, TENANT, members, END - timedelta(days=DAYS + 1), timeout=300)
        await connection.execute(ANALYZE, timeout=300)
    finally:
        await connection.close()


async def _play(bench: Bench, rule: str, period: timedelta) -> Played:
    body = msgspec.json.encode({"action": "deny_new", **RULES[rule]}).decode()
    command = python(
        "benchmarks.simulation", TENANT, body, (END - period - timedelta(days=1)).isoformat(), END.isoformat()
    )
    answer = await bench.processes.read(*command, core=bench.cores.server, env=await bench.environment())
    return msgspec.json.decode(answer, type=Played)
