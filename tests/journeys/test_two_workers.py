"""Two workers on the same stores: what one does, the other knows."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from random import Random
from typing import Any

import pytest

from tests.service import CHROME, FIREFOX, LAPTOP, Answer, Service, Tenant, items, running

PUSHED_S = 0.9
"""Less than any poll takes to find out: what arrives in this time was pushed."""


@pytest.fixture(scope="module")
async def second(service: Service, database_url: str, redis_url: str) -> AsyncIterator[Service]:
    """Another worker, whose channel is up."""
    async with running(database_url, redis_url) as worker:
        while not worker.context.changes._memory.trusted:
            await asyncio.sleep(0.01)
        yield worker


@pytest.fixture
def there(tenant: Tenant, second: Service) -> Tenant:
    """The tenant as the other worker serves it."""
    return Tenant(second, tenant.name)


async def becomes(tenant: Tenant, login: Answer, code: str | None, **more: Any) -> Answer:
    """The check once it answers with that code (None: allow); fails when a push would have been slow."""
    deadline = time.monotonic() + PUSHED_S
    while True:
        answer = await tenant.check(login, **more)
        if (answer["reason"] or {}).get("code") == code:
            return answer
        assert time.monotonic() < deadline, answer.body
        await asyncio.sleep(0.01)


async def held(tenant: Tenant) -> Answer:
    """A session whose verdict this worker holds."""
    login = await tenant.login()
    for _ in range(3):
        assert (await tenant.check(login))["decision"] == "allow"
    return login


async def test_a_block_on_one_worker_is_pushed_to_the_other(tenant, there):
    """And so is its end."""
    login = await held(there)

    await tenant.device("ana", login["device"]["id"], access="blocked")
    await becomes(there, login, "device_blocked")
    await tenant.device("ana", login["device"]["id"], access="default")

    await becomes(there, login, None)


async def test_an_ended_session_is_pushed(tenant, there):
    """With the reason that the other worker was told."""
    login = await held(there)

    await tenant.call("POST", f"/v1/sessions/{login['session']['id']}/end", {"reason": "password_changed"})

    answer = await becomes(there, login, "session_ended")
    assert answer["reason"]["end_reason"] == "password_changed"


async def test_the_end_of_all_sessions_is_pushed(tenant, there):
    """As many as there are."""
    logins = [await held(there), await there.login(user_agent=FIREFOX)]

    await tenant.call("POST", "/v1/members/ana/sessions/end", role="supervisor")

    for login in logins:
        await becomes(there, login, "session_ended")


async def test_a_rule_is_pushed_with_each_of_its_changes(tenant, there):
    """Saved, replaced by an observing one, enforced again, deleted."""
    login = await held(there)
    body = {"kind": "ip_deny", "mode": "enforce", "params": {"networks": ["203.0.113.0/24"]}}

    saved = await tenant.call("POST", "/v1/rules", body, role="administrator")
    await becomes(there, login, "ip_denied")
    path = f"/v1/rules/{saved['id']}"
    await tenant.call("PUT", path, body | {"mode": "observe"}, role="administrator")
    await becomes(there, login, None)
    await tenant.call("PUT", path, body, role="administrator")
    answer = await becomes(there, login, "ip_denied")
    await tenant.call("DELETE", path, role="administrator")
    await becomes(there, login, None)

    assert answer["reason"]["rule_version"] == 3


async def test_the_switch_of_a_member_is_pushed(tenant, there):
    """Off and on again."""
    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])
    login = await tenant.login(ip="192.0.2.1")
    await becomes(there, login, "ip_denied")

    await tenant.call("PATCH", "/v1/members/ana", {"checks_enabled": False}, role="supervisor")
    exempt = await becomes(there, login, None)
    await tenant.call("PATCH", "/v1/members/ana", {"checks_enabled": True}, role="supervisor")

    await becomes(there, login, "ip_denied")
    assert exempt["exempt"] is True


async def test_a_member_that_became_staff_is_pushed(tenant, there):
    """What the platform says of a member changes verdicts too."""
    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])
    login = await tenant.login(ip="192.0.2.1")
    await becomes(there, login, "ip_denied")

    await tenant.call("PUT", "/v1/members/ana", {"staff": True})

    assert (await becomes(there, login, None))["exempt"] is True


async def test_a_login_on_one_worker_evicts_on_the_other(tenant, there):
    """The student learns at the next request why."""
    await tenant.rule("session_limit", "evict_oldest", max=1)
    first = await held(there)

    await tenant.login(user_agent=FIREFOX)

    answer = await becomes(there, first, "session_ended")
    assert answer["reason"]["end_reason"] == "session_limit"


async def test_a_session_asked_for_before_it_began_is_known_once_it_has(tenant, there):
    """A worker remembers for a moment that there was none; the login takes that away."""
    await tenant.login("ben")
    early = await there.check("platform-1")
    await tenant.login(session_id="platform-1")

    answer = await becomes(there, _named("platform-1"), None)

    assert early["reason"]["code"] == "unknown_session"
    assert answer["member_id"] == "ana"


def _named(session_id: str) -> Answer:
    return Answer(200, {"session": {"id": session_id}})


async def test_a_forgotten_device_ends_its_sessions_on_both(tenant, there):
    """And a renamed one stays what it is."""
    login = await held(there)
    await tenant.device("ana", login["device"]["id"], name="laptop")
    renamed = await there.check(login)

    await tenant.call("DELETE", f"/v1/members/ana/devices/{login['device']['id']}", role="supervisor")

    answer = await becomes(there, login, "session_ended")
    assert (renamed["decision"], answer["reason"]["end_reason"]) == ("allow", "device_forgotten")


@pytest.mark.parametrize(
    ("action", "allowed"), [pytest.param("evict_oldest", 50, id="evict"), pytest.param("deny_new", 1, id="deny")]
)
async def test_fifty_logins_over_two_workers_leave_one_session(tenant, there, action, allowed):
    """Both decide on the same state, so neither lets in one too many; both say so afterwards."""
    await tenant.rule("session_limit", action, max=1)

    logins = await asyncio.gather(*((tenant, there)[i % 2].login() for i in range(50)))

    assert Counter(login.status for login in logins) == {200: 50}
    assert Counter(login["decision"] for login in logins)["allow"] == allowed
    opened = [login for login in logins if login["session"]]
    for worker in (tenant, there):
        checks = await asyncio.gather(*(worker.check(login) for login in opened))
        assert Counter(check["decision"] for check in checks)["allow"] == 1
    sessions = list(items(await tenant.see("/v1/members/ana/sessions?limit=200")))
    assert Counter(session["status"] for session in sessions)["open"] == 1
    attempts = list(items(await tenant.see("/v1/members/ana/logins?limit=200")))
    assert Counter(line["decision"] for line in attempts)["allow"] == allowed


async def test_fifty_new_browsers_over_two_workers_leave_as_many_devices_as_allowed(tenant, there):
    """Those that were refused hold no place."""
    await tenant.rule("device_limit", "deny_new", max=3)

    agents = [CHROME.format(90 + each) for each in range(50)]
    logins = await asyncio.gather(*((tenant, there)[i % 2].login(user_agent=each) for i, each in enumerate(agents)))

    assert Counter(login["decision"] for login in logins) == {"allow": 3, "deny": 47}
    devices = list(items(await tenant.see("/v1/members/ana/devices?limit=200")))
    assert sum(device["admitted_at"] is not None for device in devices) == 3


async def test_one_case_is_counted_from_both_workers(tenant, there):
    """Each holds its refusals for a while; none is lost and none is counted twice."""
    login = await tenant.login()
    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])
    await becomes(there, login, "ip_denied")

    before = await _hits(tenant, there)
    for _ in range(20):
        await tenant.check(login)
        await there.check(login)

    assert await _hits(tenant, there) - before == 40


async def _hits(*tenants: Tenant) -> int:
    for each in tenants:
        await each.service.context.folds.flush()
    (case,) = items(await tenants[0].see("/v1/violations"))
    hits: int = case["hits"]
    return hits


async def test_a_lost_channel_costs_speed_and_no_block(tenant, there):
    """A worker whose subscription was cut asks the store, and trusts its memory again when it is back."""
    login = await held(there)

    await tenant.service.context.ready._live._call("CLIENT", "KILL", "TYPE", "pubsub")
    await tenant.device("ana", login["device"]["id"], access="blocked")

    await becomes(there, login, "device_blocked")
    deadline = time.monotonic() + 5
    while not all(each.service.context.changes._memory.trusted for each in (tenant, there)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
    assert (await there.check(login))["decision"] == "deny"


async def test_everything_at_once_on_both_workers_is_answered(tenant, there):
    """Logins, beats, ends, blocks and forgotten devices of three members; nothing fails, nothing is left undone."""
    await tenant.rule("session_limit", "evict_oldest", max=2)
    await tenant.rule("device_limit", "deny_new", max=4)
    random = Random(1)

    async def live(worker: Tenant, member: str) -> list[int]:
        statuses = []
        for _ in range(12):
            login = await worker.login(member, user_agent=random.choice([FIREFOX, "curl/8"]))
            statuses.append(login.status)
            if login["session"] is not None:
                other = random.choice([tenant, there])
                statuses.append((await other.check(login, activity="lesson_open")).status)
                statuses.append((await _meddle(random, other, member, login)).status)
        return statuses

    async with asyncio.timeout(60):
        lives = await asyncio.gather(*(live(w, m) for w in (tenant, there) for m in ("ana", "ben", "cleo") * 3))
    for worker in (tenant, there):
        await worker.service.context.activity.flush()
        await worker.service.context.folds.flush()

    assert {status for statuses in lives for status in statuses} <= {200, 204, 404}
    for member in ("ana", "ben", "cleo"):
        card = await tenant.see(f"/v1/members/{member}")
        assert card["active_sessions"] <= 2
        assert card["last_activity"] is not None


async def _meddle(random: Random, tenant: Tenant, member: str, login: Answer) -> Answer:
    """One of the things that operators and the platform do meanwhile."""
    device = f"/v1/members/{member}/devices/{login['device']['id']}"
    what: list[tuple[str, str, dict[str, Any] | None, str]] = [
        ("POST", f"/v1/sessions/{login['session']['id']}/end", {}, "platform"),
        ("POST", f"/v1/members/{member}/sessions/end", {}, "supervisor"),
        ("PATCH", device, {"access": "blocked"}, "supervisor"),
        ("PATCH", f"/v1/members/{member}", {"note": "x"}, "supervisor"),
        ("PUT", f"/v1/members/{member}", {"name": "x"}, "platform"),
        ("DELETE", device, None, "supervisor"),
        ("GET", f"/v1/members/{member}/sessions", None, "supervisor"),
        ("GET", "/v1/members", None, "supervisor"),
    ]
    method, path, body, role = random.choice(what)
    return await tenant.call(method, path, body, role=role)


async def test_a_network_that_one_worker_let_in_takes_its_place_on_the_other(tenant, there):
    """The other one hears of it by the push, and refuses the next; both count alike."""
    await tenant.rule("network_limit", max=2, window_s=3600)
    one = await held(there)
    two = await there.login(user_agent=FIREFOX)
    await there.check(two, user_agent=FIREFOX)

    await tenant.check(one, ip="198.51.100.7")

    await becomes(there, two, "network_limit", ip="192.0.2.1", user_agent=FIREFOX)
    await becomes(tenant, one, "network_limit", ip="192.0.2.2")
    await becomes(there, one, None, ip="198.51.100.7")


async def test_a_copy_that_takes_turns_between_workers_is_found(tenant, there):
    """Whichever of them each machine is served by; and the end of the session is pushed."""
    await tenant.rule("copied_session", signal="network")
    login, codes = await tenant.login(), []
    for worker, ip in ((tenant, LAPTOP), (there, "198.51.100.7")) * 2:
        answer = await worker.check(login, ip=ip)
        codes.append(answer["reason"] and answer["reason"]["code"])
        await asyncio.sleep(0.1)  # the push of the one has reached the other

    await becomes(tenant, login, "session_ended")
    assert codes == [None, None, None, "copied_session"]


async def test_one_may_watch_whichever_worker_is_asked(tenant, there):
    """What the others do is read with the beat, seconds before it is in PostgreSQL; who only reads is in nobody's way."""
    await tenant.rule("session_limit", max=1, window_s=600, activities=["video_watch"])
    one, two = await tenant.login(), await there.login(user_agent=FIREFOX)

    answers = [
        await tenant.check(one, activity="lesson_open"),
        await there.check(two, activity="video_watch", user_agent=FIREFOX),
        await tenant.check(one, activity="video_watch"),
        await tenant.check(one, activity="lesson_open"),
    ]

    assert [(each["reason"] or {}).get("code") for each in answers] == [None, None, "session_limit", None]
