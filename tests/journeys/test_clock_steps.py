"""The system's clock is set forwards and back under logins and checks: nothing goes back, nothing ends early, limits hold."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from accessguard.metrics import CLOCK_STEPS
from tests.proxies.test_auth import ask, cookies
from tests.service import FIREFOX, Answer, Service, Tenant, running

HOUR_MS = 3_600_000
MINUTE_MS = 60_000
BEAT_MS = 30_000


@pytest.fixture
async def own(service: Service, database_url: str, redis_url: str) -> AsyncIterator[Tenant]:
    """A tenant at a worker of its own, whose clock may be set."""
    async with running(database_url, redis_url) as worker:
        yield worker.tenant()


@pytest.fixture
async def other(own: Tenant, database_url: str, redis_url: str) -> AsyncIterator[Tenant]:
    """The same tenant at another worker, whose clock is right."""
    async with running(database_url, redis_url) as worker:
        yield Tenant(worker, own.name)


async def active(tenant: Tenant, login: Answer) -> Answer:
    """A counted interaction."""
    return await tenant.check(login, activity="lesson_open")


async def last_activity(tenant: Tenant, login: Answer) -> datetime:
    """As PostgreSQL has it once everything is flushed."""
    await tenant.service.context.activity.flush()
    answer = await tenant.see(f"/v1/sessions/{login['session']['id']}")
    return datetime.fromisoformat(answer["last_activity_at"])


@pytest.mark.parametrize("step_ms", [-HOUR_MS, HOUR_MS], ids=["back", "forwards"])
async def test_last_activity_never_goes_back_and_is_moved_again_in_time(own, step_ms):
    """Whatever the clock does, a session in use goes on, and its last activity only grows."""
    login = await own.login()
    seen, decisions = [], []
    for ms in (0, step_ms, BEAT_MS + 1, -step_ms, BEAT_MS + 1, HOUR_MS, BEAT_MS + 1):
        own.service.clock.forward(ms)
        decisions += [(await active(own, login))["decision"] for _ in range(3)]
        seen.append(await last_activity(own, login))

    assert set(decisions) == {"allow"}
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


async def test_no_verdict_is_held_for_longer_because_the_clock_went_back(own):
    """What was held until a time that was near is made anew, and ends within the usual 30 s again."""
    login = await own.login()
    await active(own, login)
    before = CLOCK_STEPS._value.get()

    own.service.clock.forward(-HOUR_MS)
    await active(own, login)
    held = own.service.context.checks.memory.last(own.name, login["session"]["id"])

    assert CLOCK_STEPS._value.get() == before + 1
    assert held is not None
    assert held.until - own.service.clock() <= BEAT_MS


async def test_a_cached_pass_does_not_outlive_a_block_because_the_clock_went_back(own):
    """A proxy that asks with the same bytes as ever is answered by what stands now."""
    login = await own.login()
    for _ in range(4):
        assert (await ask(own, Cookie=cookies(login))).status == 204
    assert own.service.context.checks.memory.hot == 1

    own.service.clock.forward(-HOUR_MS)
    await own.device("ana", login["device"]["id"], access="blocked")
    answer = await ask(own, Cookie=cookies(login))

    assert (answer.status, answer.headers["AccessGuard-Reason"]) == (403, "device_blocked")


async def test_a_beat_of_a_worker_whose_clock_is_ahead_keeps_no_verdict_of_another_worker(own, other):
    """The one that is right asks again after 30 s, each time, for an hour."""
    login = await own.login()
    own.service.clock.forward(HOUR_MS)
    await active(own, login)
    own.service.clock.forward(-HOUR_MS)

    untils = []
    for _ in range(4):
        for _ in range(3):
            assert (await active(other, login))["decision"] == "allow"
        held = other.service.context.checks.memory.last(other.name, login["session"]["id"])
        assert held is not None
        untils.append(held.until - other.service.clock())
        other.service.clock.forward(BEAT_MS + 1)

    assert max(untils) <= BEAT_MS


async def test_the_newest_login_keeps_its_place_though_the_clock_went_back(own):
    """Evicting ends the session that was opened before, by the order of logins, not by what clocks said."""
    await own.rule("session_limit", "evict_oldest", max=2)
    logins = [await own.login()]
    own.service.clock.forward(-HOUR_MS)

    logins += [await own.login(user_agent=agent) for agent in (FIREFOX, FIREFOX.replace("144", "145"))]
    answers = [await own.check(each) for each in logins]
    own.service.clock.forward(HOUR_MS)
    later = [await own.check(each) for each in logins]

    for said in (answers, later):
        assert [each["decision"] for each in said] == ["deny", "allow", "allow"]
        assert said[0]["reason"]["end_reason"] == "session_limit"


async def test_a_limit_lets_nobody_in_because_the_clock_went_back(own):
    """The one who was there keeps the place; the newcomer is refused, before and after the step is undone."""
    await own.rule("session_limit", "deny_new", max=1)
    first = await own.login()
    own.service.clock.forward(-HOUR_MS)

    refused = await own.login(user_agent=FIREFOX)
    kept = await own.check(first)
    own.service.clock.forward(HOUR_MS)

    assert refused["decision"] == "deny"
    assert kept["decision"] == "allow"
    assert (await own.check(first))["decision"] == "allow"


async def test_a_step_forwards_ends_a_session_by_no_more_than_the_step(own):
    """Idle for a minute less than allowed by the wrong clock: it goes on; when the clock is right again, it still does."""
    settings = (await own.call("GET", "/v1/settings", role="administrator")).body
    settings["session"]["idle_ttl_s"], idle_ms = 3600, HOUR_MS
    assert (await own.call("PUT", "/v1/settings", settings, role="administrator")).status == 200
    login = await own.login()
    await active(own, login)

    own.service.clock.forward(idle_ms - MINUTE_MS)
    early = await own.check(login)
    own.service.clock.forward(2 * MINUTE_MS)
    over = await own.check(login)
    own.service.clock.forward(-idle_ms - MINUTE_MS)
    again = await active(own, login)

    assert early["decision"] == "allow"
    assert over["reason"]["code"] == "session_expired"
    assert again["decision"] == "allow"
