"""A rule tried on history says what it would have done: the same history, lived under the rule, is refused the same."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from accessguard.api.context import Context
from accessguard.config import Geo as GeoConfig
from accessguard.devices.browser import kin
from accessguard.guard.facts import from_ms
from accessguard.guard.simulation import ask
from accessguard.policies.model import RuleBody, normalised
from accessguard.rules.model import Action
from accessguard.rules.replay import Replay
from accessguard.rules.session import EVICTING
from accessguard.sessions.live import Change
from accessguard.sessions.replay import ReplayStore
from tests.build import number
from tests.journeys.histories import World, history, play
from tests.mmdb import city, mmdb
from tests.service import Service, config, opened

BEGIN_MS = 1_780_000_000_000
"""May 2026: months whose partitions nobody makes any more."""
DAY = timedelta(days=1)
PLACES = {
    "203.0.113.0/24": city("IT", "Turin", 45.07, 7.69) | {"autonomous_system_number": 64500},
    "198.51.100.0/24": city("PT", "Lisbon", 38.72, -9.14) | {"autonomous_system_number": 64501},
    "192.0.2.0/24": city("US", "New York", 40.71, -74.01) | {"autonomous_system_number": 64502},
    "2001:db8:1::/48": city("IT", "Milan", 45.46, 9.19) | {"autonomous_system_number": 64500},
}
MEMBERS, TICKS, SEEDS = 16, 24, (1,)


class Tried:
    """The clock of both workers: a history says what time it is."""

    now_ms = BEGIN_MS

    def __call__(self) -> int:
        """The time in ms since the epoch."""
        return self.now_ms


def rule(kind: str, action: str, **params: Any) -> Any:
    """A rule as an operator writes it, enforced, under a name for the test's report."""
    body = msgspec.convert({"kind": kind, "mode": "enforce", "action": action, "params": params}, RuleBody)
    name = "-".join(str(each) for each in (kind, action, *params.values()))
    return pytest.param(body, id=name)


RULES = [
    rule("session_limit", "deny_new", max=1, window_s=1800),
    rule("session_limit", "deny_new", max=2, window_s=7200),
    rule("session_limit", "evict_oldest", max=1, window_s=86_400),
    rule("session_limit", "evict_oldest", max=2, window_s=86_400),
    rule("session_limit", "evict_idle", max=2, window_s=86_400),
    rule("session_limit", "evict_others", max=2, window_s=7200),
    rule("session_limit", "log", max=1, window_s=7200),
    rule("session_limit", "deny_new", max=1, window_s=86_400, per="device_class"),
    rule("session_limit", "deny_new", max=1, window_s=86_400, per="app"),
    rule("device_limit", "deny_new", max=1, window_days=1),
    rule("device_limit", "deny_new", max=2, window_days=None),
    rule("device_limit", "deny_new", max=1, window_days=2, per="device_class"),
    rule("session_limit", "challenge", max=1, window_s=7200),
    rule("session_limit", "deny_new", max=1, window_s=86_400, activities=["video_watch", "lesson_open"]),
    rule("session_limit", "log", max=1, window_s=86_400, escalation={"days": 3, "challenge_after": 1, "deny_after": 3}),
    rule("device_limit", "challenge", max=1, window_days=30),
    rule("device_churn", "deny_new", max_new=1, window_days=1),
    rule("device_churn", "deny_new", max_new=2, window_days=30),
    rule("network_limit", "deny_new", max=1, window_s=7200),
    rule("network_limit", "deny_new", max=2, window_s=86_400, unit="prefix"),
    rule("network_limit", "deny_new", max=1, window_s=86_400, unit="asn"),
    rule("network_limit", "deny_new", max=1, window_s=86_400, unit="city"),
    rule("impossible_travel", "deny_new", max_speed_kmh=900, min_distance_km=200),
    rule("copied_session", "end_session", signal="network"),
    rule("login_failures", "deny", max=2, window_s=7200, lock_s=3600),
    rule("login_failures", "deny", max=1, window_s=1800, lock_s=1800, per="device"),
    rule("login_failures", "deny", max=3, window_s=1800, lock_s=900, per="ip"),
    rule("enrolment", "deny"),
    rule("country_deny", "deny", countries=["PT"]),
    rule("country_allow_only", "deny", countries=["IT", "US"]),
    rule("asn_deny", "challenge", asns=[64501]),
    rule("ip_deny", "deny", networks=["203.0.113.0/24"]),
    rule("ip_allow_only", "deny", networks=["198.51.100.0/24", "2001:db8::/32"]),
]


@pytest.fixture(scope="module")
async def clock() -> Tried:
    """One clock for all."""
    return Tried()


@pytest.fixture(scope="module")
async def workers(
    service: Service, database_url: str, redis_url: str, clock: Tried, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Context, Context]]:
    """Two workers on the stores of the run, in a time of their own."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "places.mmdb").write_bytes(mmdb(PLACES))
    settings = msgspec.structs.replace(
        config(database_url, redis_url), geo=GeoConfig(files=(str(folder / "places.mmdb"),))
    )
    async with AsyncExitStack() as stack:
        made = []
        for _ in range(2):
            parts = await opened(settings, clock)
            made.append(await stack.enter_async_context(parts.running()))
        while not all(ctx.changes._memory.trusted for ctx in made):
            await asyncio.sleep(0.01)
        yield made[0], made[1]


async def tenant_with(ctx: Context, name: str, body: RuleBody | None) -> str:
    """A tenant with at most one rule, which is saved past the checks of windows and contradictions."""
    store, at = ctx.policies, from_ms(BEGIN_MS)
    await store.ensure_tenant(name, name, at=at)
    if body is not None:
        await store.create(name, number(1), normalised(body), at=at, actor="tests", reason=None)
    await ctx.changes.announce(Change(tenant=name, kind="policy_changed"))
    assert await ctx.book.policy(name) is not None
    return name


@pytest.fixture(scope="module")
async def lived(workers: tuple[Context, Context], clock: Tried) -> dict[str, Any]:
    """The same histories, lived without any rule and under each of them at once."""
    bodies = {param.id: param.values[0] for param in RULES}
    worlds = {}
    free = World(await tenant_with(workers[0], f"free-{BEGIN_MS}", None), workers)
    for name, body in bodies.items():
        in_turn = body.params.get("per") == "ip"
        worlds[name] = World(await tenant_with(workers[0], f"ruled-{name}"[:100], body), workers, in_turn)
    end_ms = await play(free, list(worlds.values()), history(1, members=MEMBERS, ticks=TICKS), BEGIN_MS, clock)
    return {"": free, "worlds": worlds, "end": from_ms(end_ms)}


async def replayed(ctx: Context, tenant: str, body: RuleBody, lived: dict[str, Any]) -> list[tuple[str, Any, str]]:
    """Who is refused when, and why, when the recorded history is played."""
    asked = await ask(ctx.policies, tenant, body, since=from_ms(BEGIN_MS), until=lived["end"], language="en")
    refused = []
    async for person, events in ReplayStore(ctx.policies._db, ctx.geo.lookup, kin).people(tenant, asked.period):
        replay = Replay(person.past, asked.terms)
        async for event in events:
            decision = replay.feed(event)
            if decision is not None and decision.code is not None:
                refused.append((person.id, event.at, decision.code.value))
    return refused


@pytest.mark.slow
@pytest.mark.parametrize("body", RULES)
async def test_a_rule_refuses_in_the_replay_whom_it_refuses_in_life(body, lived, workers, request):
    """Member by member, to the instant: on two workers under the rule, and from the record of a tenant without it."""
    name = request.node.callspec.id
    ruled, free = lived["worlds"][name], lived[""]
    mine = {"session_ended", "unknown_session", "session_expired"}

    refused = await replayed(workers[0], free.tenant, body, lived)

    assert sorted(refused) == sorted(each for each in ruled.refused if each[2] not in mine)
    assert refused or body.action in {Action.LOG, *EVICTING}
    assert free.answers.keys() <= {"allow", "session_ended"}
