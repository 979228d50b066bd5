"""No verdict that the fast lane knows by heart outlives its time, its stores, or what it depends on."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from tests.api.asking import ELSEWHERE, PUSHED_S, Asker, asking, block, end
from tests.fuzz import examples
from tests.service import FIREFOX, LAPTOP, Answer, Service, Tenant, running
from tests.sessions.own import own_valkey, until

# Time.


@pytest.fixture
async def still(database_url: str, redis_url: str, service: Service) -> AsyncIterator[list[Asker]]:
    """Two askers of one tenant on two workers, for which no time passes but what the test says."""
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stack.enter_async_context(running(database_url, redis_url)) for _ in range(2)]
        for worker in workers:
            worker.clock.stop()
        workers[1].clock.forward(workers[0].clock() - workers[1].clock())
        tenant = workers[0].tenant()
        await tenant.login("zoe")
        yield [await stack.enter_async_context(asking(Tenant(worker, tenant.name))) for worker in workers]


def forward(askers: list[Asker], ms: int) -> None:
    """Let time pass for all of them."""
    for asker in askers:
        asker.tenant.service.clock.forward(ms)


def moved(askers: list[Asker]) -> int:
    """How many interactions have been counted."""
    return sum(asker.both.context.checks.tally.moved for asker in askers)


async def test_the_beat_is_thirty_seconds_to_the_millisecond(still):
    """On two workers, with bytes known by heart: once in 30 s, and never later than that."""
    login = await still[0].tenant.login()
    counted = []
    for step in (0, 1, 29_998, 1, 29_999, 1, 40_000, 29_999, 1):
        forward(still, step)
        for asker in (*still, *still, *reversed(still)):
            assert await asker.code(login, activity="lesson_open") is None
        counted.append(moved(still))

    assert counted == [1, 1, 1, 2, 2, 3, 4, 4, 5]


async def test_a_check_without_activity_is_not_asked_anew_at_the_beat_and_never_counts(still):
    """Where there is room for all there is, nothing that time brings alters the verdict."""
    asker = still[0]
    login = await asker.tenant.login()
    tally = asker.both.context.checks.tally
    evaluated = []
    for step in (0, 1, 29_998, 1, 29_999, 1):
        forward(still, step)
        assert await asker.code(login) is None
        evaluated.append(tally.evaluated + tally.loaded)

    assert [each - evaluated[0] for each in evaluated] == [0, 0, 0, 0, 0, 0]
    assert moved(still) == 0


async def test_a_session_ends_by_itself_to_the_millisecond(still):
    """However often the same bytes were allowed shortly before."""
    asker = still[0]
    login = await asker.tenant.login()
    policy = await asker.both.context.book.policy(asker.tenant.name)
    assert policy is not None
    idle_ms = policy.settings.session.idle_ttl_s * 1000

    codes = []
    for step in (0, idle_ms - 20_000, 19_000, 999, 1, 0):
        forward(still, step)
        codes.extend([await asker.code(login), await asker.code(login)])

    assert codes == [None] * 8 + ["session_expired"] * 4


async def test_a_session_used_on_another_worker_has_not_expired_here(still):
    """What this worker saw of it long ago does not end it."""
    here, there = still
    admin = {"role": "administrator"}
    await here.tenant.call("PUT", "/v1/settings", {"session": {"idle_ttl_s": 1800, "absolute_ttl_s": 86_400}}, **admin)
    login = await here.tenant.login()
    assert await there.code(login, activity="lesson_open") is None
    for _ in range(3):
        forward(still, 800_000)
        assert await here.code(login, activity="lesson_open") is None

    assert await there.code(login) is None
    assert await there.code(login, activity="lesson_open") is None


async def test_a_steady_session_does_not_outlive_its_absolute_end(still):
    """However its beats fall."""
    asker = still[0]
    admin = {"role": "administrator"}
    await asker.tenant.call("PUT", "/v1/settings", {"session": {"idle_ttl_s": 1800, "absolute_ttl_s": 3600}}, **admin)
    login = await asker.tenant.login()
    for _ in range(3):
        forward(still, 988_000)
        assert await asker.code(login, activity="lesson_open") is None
    forward(still, 629_900)
    await asker.code(login, activity="lesson_open")

    codes = []
    for ms in (6_000, 100, 5_000, 10_000, 20_000):
        forward(still, ms)
        codes.append(await asker.code(login))

    assert codes == [None, "session_expired", "session_expired", "session_expired", "session_expired"]


# Stores that are gone.


async def test_without_the_channel_nothing_that_is_known_is_trusted(asker, second, redis_url):
    """A block on another worker, in the very time that the subscription is cut, is honoured all the same."""
    tenant = asker.tenant
    login = await tenant.login()
    await asker.by_heart(login)
    memory = asker.both.context.checks.memory

    async with Redis.from_url(redis_url) as admin:
        await admin.client_kill_filter(_type="pubsub")
    await until(lambda: not memory.trusted, within_s=0.5)
    allowed = [await asker.code(login) for _ in range(3)]
    await block(Tenant(second, tenant.name), login)
    refused = [await asker.code(login) for _ in range(3)]
    await until(lambda: memory.trusted and second.context.checks.memory.trusted)

    assert allowed == [None] * 3
    assert refused == ["device_blocked"] * 3
    assert await asker.code(login) == "device_blocked"


@pytest.mark.chaos
@pytest.mark.parametrize("fault", ["killed", "frozen"])
async def test_without_valkey_answers_stay_right(database_url: str, tmp_path: Path, fault, service: Service):
    """Two workers and a Valkey that dies, or stands still: a block is honoured in time, and later all is as before."""
    async with own_valkey(tmp_path) as valkey, contextlib.AsyncExitStack() as stack:
        one_, other = [await stack.enter_async_context(running(database_url, valkey.url)) for _ in range(2)]
        tenant = one_.tenant()
        await tenant.login("zoe")
        asker = await stack.enter_async_context(asking(tenant))
        login = await tenant.login()
        await asker.by_heart(login)
        if fault == "killed":
            await valkey.child.kill()
        else:
            valkey.freeze()

        allowed = [await asker.code(login, activity="lesson_open") for _ in range(3)]
        await block(Tenant(other, tenant.name), login)
        began = time.monotonic()
        while await asker.code(login) != "device_blocked":
            assert time.monotonic() - began < 5
            await asyncio.sleep(0.02)
        if fault == "killed":
            await valkey.restart()
        else:
            valkey.thaw()
        await until(lambda: one_.context.checks.memory.trusted)

        assert allowed == [None] * 3
        assert await asker.code(login) == "device_blocked"
        await tenant.device("ana", login["device"]["id"], access="default")
        assert await asker.code(login) is None
        await asker.by_heart(login)


# No verdict outlives what it depends on.

steps = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "block",
                "unblock",
                "end",
                "login",
                "login elsewhere",
                "rule",
                "observe",
                "drop rule",
                "off",
                "on",
                "staff",
            ]
        ),
        st.integers(0, 1),
        st.booleans(),
        st.sampled_from([0, 0, 0, 1_000, 31_000]),
    ),
    min_size=3,
    max_size=10,
)


class World:
    """A member with up to a few sessions, changed at random on two workers."""

    def __init__(self, here: Tenant, there: Tenant) -> None:
        self.here = here
        self.there = there
        self.logins: list[Answer] = []
        self.rules: list[str] = []

    async def change(self, what: str, which: int, tenant: Tenant) -> None:
        """Carry out one of `steps`."""
        login = self.logins[which % len(self.logins)]
        match what:
            case "block" | "unblock":
                access = "blocked" if what == "block" else "default"
                await tenant.device("ana", login["device"]["id"], access=access)
            case "end":
                await end(tenant, login)
            case "login":
                self.opened(await tenant.login(device_token=login["device"]["token"]))
            case "login elsewhere":
                self.opened(await tenant.login(user_agent=FIREFOX))
            case "off" | "on":
                await tenant.call("PATCH", "/v1/members/ana", {"checks_enabled": what == "on"}, role="supervisor")
            case "staff":
                await tenant.call("PUT", "/v1/members/ana", {"staff": bool(which)})
            case _:
                await self.change_rules(what, tenant)

    async def change_rules(self, what: str, tenant: Tenant) -> None:
        """The part of it that is about rules."""
        body = {"kind": "ip_deny", "params": {"networks": [ELSEWHERE]}}
        if what == "rule":
            self.rules.append((await tenant.call("POST", "/v1/rules", body, role="administrator"))["id"])
        elif self.rules and what == "observe":
            await tenant.call("PUT", f"/v1/rules/{self.rules[-1]}", body | {"mode": "observe"}, role="administrator")
        elif self.rules:
            await tenant.call("DELETE", f"/v1/rules/{self.rules.pop()}", role="administrator")

    def opened(self, login: Answer) -> None:
        """Note a session, if it is one: a login on a blocked device opens none."""
        if login["session"]:
            self.logins.append(login)

    async def fresh(self, login: Answer, ip: str) -> tuple[str, str | None, bool]:
        """What a worker says that remembers nothing."""
        context = self.there.service.context
        context.checks.memory.drop_all()
        context.book.drop_all()
        answer = await self.there.check(login, ip=ip)
        return answer["decision"], (answer["reason"] or {}).get("code"), answer["exempt"]


@examples(12, 250)
@given(steps=steps)
async def test_no_verdict_outlives_what_it_depends_on(service, second, steps):
    """After any sequence of changes, the fast lane says what a worker says that asks PostgreSQL each time.

    At once after a change on the same worker; after one on the other, as soon as it is pushed.
    """
    tenant = service.tenant()
    world = World(tenant, Tenant(second, tenant.name))
    world.logins.append(await tenant.login())
    async with asking(tenant) as asker:
        for what, which, far, ms in steps:
            for each in world.logins[-3:]:
                await asker.ask(each)
                await asker.ask(each, ip=ELSEWHERE)
            await world.change(what, which, world.there if far else tenant)
            for clock in (service.clock, second.clock):
                clock.forward(ms)
            try:
                for each in world.logins[-3:]:
                    for ip in (LAPTOP, ELSEWHERE):
                        await _agree(asker, world, each, ip, patient=far)
            finally:
                for clock in (service.clock, second.clock):
                    clock.forward(-ms)


async def _agree(asker: Asker, world: World, login: Answer, ip: str, *, patient: bool) -> None:
    expected = await world.fresh(login, ip)
    deadline = time.monotonic() + (PUSHED_S if patient else 0)
    while (said := await asker.ask(login, ip=ip)) != expected:
        assert time.monotonic() < deadline, (said, expected)
        await asyncio.sleep(0.001)
