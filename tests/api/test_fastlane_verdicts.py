"""What the fast lane knows by heart is worth what the verdict behind it is worth, and not a request longer."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from tests.api.lanes import Lanes, lanes, one, question, request
from tests.fuzz import examples
from tests.service import CHROME, FIREFOX, LAPTOP, Answer, Service, Tenant, items, running
from tests.sessions.own import own_valkey, until

ELSEWHERE = "198.51.100.7"
FAR_S = 10_000_000_000
PUSHED_S = 0.9
"""Less than any poll takes to find out."""


class Asker:
    """Asks the fast lane, on one connection."""

    def __init__(self, tenant: Tenant, both: Lanes, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.tenant = tenant
        self.both = both
        self._reader, self._writer = streams

    async def ask(self, session: Answer | str, **fields: Any) -> tuple[str, str | None, bool]:
        """The decision, its reason's code, and whether the member is exempt."""
        session_id = session if isinstance(session, str) else session["session"]["id"]
        asked = question(session_id, user_agent=CHROME.format(142)) | fields
        self._writer.write(request(self.tenant.name, asked, exp=FAR_S))
        body = (await one(self._reader)).body
        return body["decision"], (body["reason"] or {}).get("code"), body["exempt"]

    async def batch(self, *sessions: Answer, **fields: Any) -> list[str | None]:
        """The codes of a batch, None for each that is allowed."""
        asked = [question(each["session"]["id"], user_agent=CHROME.format(142)) | fields for each in sessions]
        self._writer.write(request(self.tenant.name, {"checks": asked}, path="/v1/checks", exp=FAR_S))
        return [(each["reason"] or {}).get("code") for each in (await one(self._reader)).body["results"]]

    async def raw(self, sent: bytes) -> int:
        """The status of what these bytes are answered with."""
        self._writer.write(sent)
        return (await one(self._reader)).status

    async def code(self, session: Answer | str, **fields: Any) -> str | None:
        """The code of the refusal, None when it is allowed."""
        return (await self.ask(session, **fields))[1]

    async def by_heart(self, session: Answer, **fields: Any) -> None:
        """Ask until the answer is known by the bytes of the question."""
        for _ in range(2):
            assert await self.code(session, **fields) is None
        before = self.both.context.checks.tally.answers
        assert await self.code(session, **fields) is None
        assert self.both.context.checks.tally.answers > before, "it was not the fast lane that answered"
        held = self.both.context.checks.memory.verdict(self.tenant.name, session["session"]["id"])
        assert held is not None
        assert held.other is None


@contextlib.asynccontextmanager
async def asking(tenant: Tenant) -> AsyncIterator[Asker]:
    """An asker of the tenant's worker."""
    context = tenant.service.context
    await until(lambda: context.checks.memory.trusted)
    await context.book.policy(tenant.name)
    async with lanes(context) as both:
        streams = await asyncio.open_connection("127.0.0.1", both.fast)
        await asyncio.sleep(0.001)  # its first bytes come when the connection is there
        yield Asker(tenant, both, streams)
        streams[1].close()


@pytest.fixture
async def asker(tenant: Tenant) -> AsyncIterator[Asker]:
    """An asker of a fresh tenant."""
    await tenant.login("zoe")
    async with asking(tenant) as found:
        yield found


@pytest.fixture(scope="module")
async def second(service: Service, database_url: str, redis_url: str) -> AsyncIterator[Service]:
    """Another worker."""
    async with running(database_url, redis_url) as worker:
        await until(lambda: worker.context.checks.memory.trusted)
        yield worker


async def block(tenant: Tenant, login: Answer) -> Answer:
    """A supervisor blocks the device."""
    return await tenant.device("ana", login["device"]["id"], access="blocked")


async def deny(tenant: Tenant, _: Answer) -> Answer:
    """An administrator denies the address."""
    return await tenant.rule("ip_deny", networks=["203.0.113.0/24"])


async def end(tenant: Tenant, login: Answer) -> Answer:
    """The platform ends the session."""
    return await tenant.call("POST", f"/v1/sessions/{login['session']['id']}/end", {"reason": "logout"})


async def end_all(tenant: Tenant, _: Answer) -> Answer:
    """A supervisor ends all."""
    return await tenant.call("POST", "/v1/members/ana/sessions/end", role="supervisor")


async def forget(tenant: Tenant, login: Answer) -> Answer:
    """A supervisor forgets the device."""
    return await tenant.call("DELETE", f"/v1/members/ana/devices/{login['device']['id']}", role="supervisor")


async def evict(tenant: Tenant, _: Answer) -> Answer:
    """Another login takes the only place."""
    await tenant.rule("session_limit", "evict_oldest", max=1)
    return await tenant.login(user_agent=FIREFOX)


CHANGES = [
    pytest.param(block, "device_blocked", id="block"),
    pytest.param(deny, "ip_denied", id="rule"),
    pytest.param(end, "session_ended", id="end"),
    pytest.param(end_all, "session_ended", id="end all"),
    pytest.param(forget, "session_ended", id="forgotten device"),
    pytest.param(evict, "session_ended", id="evicted"),
]
Change = Callable[[Tenant, Answer], Awaitable[Answer]]


@pytest.mark.parametrize(("change", "code"), CHANGES)
async def test_a_change_is_honoured_by_the_next_batch(asker, change: Change, code):
    """Though each of its questions was known by its bytes; the other one is answered as it would be alone."""
    login, other = await asker.tenant.login(), await asker.tenant.login("bo")
    for _ in range(4):
        assert await asker.batch(login, other) == [None, None]
    known = len(asker.both.context.checks.memory.bodies)

    await change(asker.tenant, login)

    assert known >= 2, "no question of it was known"
    assert await asker.batch(login, other) == [code, await asker.code(other)]


async def test_a_batch_that_is_known_records_its_interactions_as_ever(asker):
    """When their beats are due, whatever is known of their bytes; each counts as a check."""
    login, other = await asker.tenant.login(), await asker.tenant.login("bo")
    clock, tally = asker.tenant.service.clock, asker.both.context.checks.tally
    for _ in range(4):
        await asker.batch(login, other, activity="lesson_open")
    moved, plain = tally.moved, tally.plain

    await asker.batch(login, other, activity="lesson_open")
    early = tally.moved
    clock.forward(30_000)
    await asker.batch(login, other, activity="lesson_open")

    assert (early, tally.moved) == (moved, moved + 2)
    assert tally.plain == plain + 4


@pytest.mark.parametrize(("change", "code"), CHANGES)
async def test_a_change_is_honoured_by_the_next_check(asker, change: Change, code):
    """Though the same bytes were allowed a moment ago; and the refusal stays."""
    login = await asker.tenant.login()
    await asker.by_heart(login)

    answer = await change(asker.tenant, login)

    assert answer.status in {200, 201, 204}, answer.body
    assert [await asker.code(login) for _ in range(3)] == [code] * 3


@pytest.mark.parametrize(("change", "code"), CHANGES)
async def test_a_change_on_another_worker_is_honoured_as_soon_as_it_is_pushed(asker, second, change: Change, code):
    """Long before anything would be asked anew by itself."""
    login = await asker.tenant.login()
    await asker.by_heart(login)

    await change(Tenant(second, asker.tenant.name), login)

    deadline = time.monotonic() + PUSHED_S
    while await asker.code(login) != code:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.001)


async def test_what_was_refused_is_allowed_at_the_next_check_after_its_cause_is_gone(asker):
    """A rule in each of its versions, a block, the switch of a member."""
    tenant = asker.tenant
    login = await tenant.login()
    rule = await deny(tenant, login)
    path, body = f"/v1/rules/{rule['id']}", {"kind": "ip_deny", "params": {"networks": ["203.0.113.0/24"]}}
    seen = [await asker.ask(login)]

    async def then(*call: Any, role: str) -> None:
        assert (await tenant.call(*call, role=role)).status < 300
        seen.extend([await asker.ask(login), await asker.ask(login)])

    await then("PUT", path, body | {"mode": "observe"}, role="administrator")
    await then("PUT", path, body | {"mode": "enforce"}, role="administrator")
    await then("PATCH", "/v1/members/ana", {"checks_enabled": False}, role="supervisor")
    await then("PATCH", "/v1/members/ana", {"checks_enabled": True}, role="supervisor")
    await then("DELETE", path, role="administrator")
    await then("PATCH", f"/v1/members/ana/devices/{login['device']['id']}", {"access": "blocked"}, role="supervisor")
    await then("PATCH", f"/v1/members/ana/devices/{login['device']['id']}", {"access": "default"}, role="supervisor")

    no, yes = ("deny", "ip_denied", False), ("allow", None, False)
    exempt, blocked = ("allow", None, True), ("deny", "device_blocked", False)
    assert seen == [no, yes, yes, no, no, exempt, exempt, no, no, yes, yes, blocked, blocked, yes, yes]


async def test_another_address_browser_or_device_token_is_another_question(asker):
    """Each asked in turn, again and again: none gets the answer of another."""
    tenant = asker.tenant
    await tenant.rule("ip_deny", networks=[f"{ELSEWHERE}/32"])
    login = await tenant.login()
    other = await tenant.login(user_agent=FIREFOX)
    await tenant.device("ana", other["device"]["id"], access="blocked")
    token = other["device"]["token"]

    for _ in range(4):
        assert await asker.code(login) is None
        assert await asker.code(login, ip=ELSEWHERE) == "ip_denied"
        assert await asker.code(login, device_token=token) == "device_blocked"
        assert await asker.code(login, user_agent=FIREFOX) is None
        assert await asker.code(login, device_token="forged") is None
        assert await asker.code(login, ip="no address") is None


async def test_a_body_is_known_for_its_own_tenant_alone(asker, service):
    """The same session id elsewhere is another session, or none."""
    login = await asker.tenant.login(session_id="platform-1")
    await asker.by_heart(login)
    stranger = service.tenant()
    await stranger.login()

    async with asking(stranger) as other:
        assert [await other.code("platform-1") for _ in range(3)] == ["unknown_session"] * 3
    assert await asker.code("platform-1") is None


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


async def test_what_is_counted_is_what_was_answered(asker):
    """A refused client that asks by the same bytes a hundred times is one case with its hits."""
    login = await asker.tenant.login()
    await deny(asker.tenant, login)

    codes = {await asker.code(login) for _ in range(100)}
    await asker.both.context.folds.flush()

    (case,) = items(await asker.tenant.see("/v1/violations"))
    assert (codes, case["hits"]) == ({"ip_denied"}, 100)


async def test_the_bytes_of_a_body_alone_are_no_request(asker):
    """On a connection whose head never varies, too, and whoever's body it was."""
    login = await asker.tenant.login()
    asked = question(login["session"]["id"], user_agent=CHROME.format(142))
    whole = request(asker.tenant.name, asked, exp=FAR_S)
    start, _, body = whole.partition(b"\r\n\r\n")
    answers = [await asker.raw(whole) for _ in range(4)]
    varied = [b"%b\r\nX-Mark: %d\r\n\r\n%b" % (start, number, body) for number in range(4)]
    await asker.both.talk(asker.both.fast, *varied)

    assert body in asker.both.context.checks.memory.bodies
    assert whole in asker.both.context.checks.memory.requests
    assert await asker.raw(whole) == 200
    bare = await asker.raw(body)

    assert answers == [200] * 4
    assert bare == 400


class Gone:
    """A connection that was lost while its answer was being made."""

    def write(self, _: bytes) -> None:
        """What uvloop says of it."""
        raise RuntimeError("the handler is closed")


class There:
    """A connection that takes what it is given."""

    def __init__(self) -> None:
        self.given: list[bytes] = []

    def write(self, answer: bytes) -> None:
        """Keep it."""
        self.given.append(answer)


async def test_a_connection_that_is_gone_takes_nobody_elses_answer(asker):
    """The others of its turn of the loop still get theirs."""
    there = There()

    for each in (Gone(), there):
        asker.both.lane.allow(each, b"{}")
    asker.both.lane.flush()

    assert len(there.given) == 1


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
