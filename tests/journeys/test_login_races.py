"""Many members who log in many times at the same instant, on two workers: at rest nobody has more than his limit."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from itertools import cycle
from typing import Any

import pytest

from tests.fuzz import at_night
from tests.service import CHROME, Answer, Service, Tenant, running

MEMBERS = at_night(60, usual=20)
FEW = at_night(20, usual=10)
TIMES = 24
LIMIT = 2

OPEN = """
    SELECT member_id, count(*) AS open FROM session WHERE tenant = $1 AND ended_at IS NULL GROUP BY member_id
"""


@pytest.fixture(scope="module")
async def second(service: Service, database_url: str, redis_url: str) -> AsyncIterator[Service]:
    """Another worker on the same stores."""
    async with running(database_url, redis_url) as worker:
        yield worker


async def crowd(tenant: Tenant, second: Service, members: int = MEMBERS) -> list[tuple[Tenant, Answer]]:
    """Every member logs in from as many browsers at once, in turns on both workers."""
    workers = cycle((tenant, Tenant(second, tenant.name)))
    tries = [(next(workers), f"m{i % members}", CHROME.format(100 + i // members)) for i in range(members * TIMES)]
    logins = await asyncio.gather(*(worker.login(member, user_agent=agent) for worker, member, agent in tries))
    return [(worker, login) for (worker, _, _), login in zip(tries, logins, strict=True)]


async def at_rest(tenant: Tenant) -> dict[str, int]:
    """How many open sessions each member has."""
    rows = await tenant.service.context.sessions._db.fetch(OPEN, tenant.name)
    return {row["member_id"]: row["open"] for row in rows}


@pytest.mark.hypothesis
@pytest.mark.parametrize("action", ["evict_oldest", "evict_idle", "evict_others", "deny_new"])
async def test_a_crowd_never_exceeds_the_limit_on_sessions(tenant, second, action):
    """Twenty members (at night sixty), twenty-four logins each; none fails, and what was allowed and not ended since is what is open."""
    await tenant.rule("session_limit", action, max=LIMIT)

    logins = [login for _, login in await crowd(tenant, second)]

    assert Counter(login.status for login in logins) == {200: MEMBERS * TIMES}
    decisions = Counter(login["decision"] for login in logins)
    denied = MEMBERS * (TIMES - LIMIT) if action == "deny_new" else 0
    assert decisions == Counter(allow=MEMBERS * TIMES - denied, deny=denied)
    ended = [each["id"] for login in logins for each in login["ended_sessions"]]
    assert len(ended) == len(set(ended))
    assert set((await at_rest(tenant)).values()) == {LIMIT}


@pytest.mark.hypothesis
async def test_a_crowd_that_frees_places_for_itself_never_exceeds_the_limit(tenant, second):
    """Whoever is challenged closes the first choice; only as often as the budget allows, and one place for one login."""
    await tenant.rule("session_limit", "challenge", max=LIMIT, swaps={"max": 5, "window_days": 30})
    logins = await crowd(tenant, second, FEW)
    waiting = [(worker, login) for worker, login in logins if login["decision"] == "challenge"]

    settled = await asyncio.gather(*(free(worker, login) for worker, login in waiting))

    assert Counter(login["decision"] for _, login in logins) == {
        "allow": FEW * LIMIT,
        "challenge": FEW * (TIMES - LIMIT),
    }
    assert {answer.status for answer in settled} == {200, 409}
    assert {answer["decision"] for answer in settled if answer.status == 200} == {"allow"}
    assert set((await at_rest(tenant)).values()) == {LIMIT}
    swaps = Counter(answer["session"] is not None for answer in settled if answer.status == 200)
    assert swaps[True] <= FEW * 5


async def free(tenant: Tenant, login: Answer) -> Answer:
    """Close the first of the choices and go on."""
    reason: dict[str, Any] = login["reason"]
    body = {"outcome": "passed", "end_session_id": reason["choices"][0]["id"]}
    return await tenant.call("POST", f"/v1/challenges/{reason['challenge_id']}", body)


async def test_a_crowd_with_wrong_passwords_is_counted_exactly(tenant, second):
    """Of each member's failures at once, exactly as many as the rule allows are counted; the others are refused."""
    await tenant.rule("login_failures", "deny", max=3, window_s=300, lock_s=600)
    workers = cycle((tenant, Tenant(second, tenant.name)))
    members = [f"m{i % 10}" for i in range(10 * TIMES)]
    wrong = {"outcome": "failure", "failure_reason": "wrong_password"}

    tries = await asyncio.gather(*(next(workers).login(member, **wrong) for member in members))

    assert {answer.status for answer in tries} == {200}
    counted = Counter(m for m, answer in zip(members, tries, strict=True) if answer["decision"] == "allow")
    assert counted == Counter({f"m{i}": 3 for i in range(10)})


async def test_a_login_that_waits_too_long_for_others_is_told_to_come_back(tenant, monkeypatch):
    """It is not decided as in an outage: PostgreSQL is there, and knows what the others left."""
    monkeypatch.setattr("accessguard.guard.turns.PATIENCE_S", 0.01)
    context = tenant.service.context

    async with context.logins._turns.turn((tenant.name, "ana")):
        refused = await tenant.login()
    later = await tenant.login()

    assert (refused.status, "Retry-After" in refused.headers) == (503, True)
    assert (later.status, later["degraded"]) == (200, False)
