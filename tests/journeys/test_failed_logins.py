"""Failed logins: a lock that says when it ends, that nothing lengthens, and that no stranger puts on a known device."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import pytest

from tests.service import FIREFOX, Answer, Service, Tenant, items, running

STRANGER = "198.51.100.7"
LOCK_S = 600


@pytest.fixture
async def own(database_url: str, redis_url: str, service: Service) -> AsyncIterator[Tenant]:
    """A tenant on a worker whose clock is the test's alone."""
    async with running(database_url, redis_url) as worker:
        yield worker.tenant()


async def fail(tenant: Tenant, member: str | None = "ana", **fields) -> Answer:
    """A login whose password was wrong."""
    asked = {"outcome": "failure", "failure_reason": "wrong_password", "ip": STRANGER, "member_id": member} | fields
    return await tenant.login(**asked)


async def three(tenant: Tenant, mode: str = "enforce", **params) -> Answer:
    """A rule that locks for ten minutes after three failures in five."""
    return await tenant.rule(
        "login_failures", "deny", mode=mode, **{"max": 3, "window_s": 300, "lock_s": LOCK_S} | params
    )


def code(answer: Answer) -> str | None:
    """Why an answer refuses; None when it does not."""
    assert answer.status == 200, answer.body
    return (answer["reason"] or {}).get("code")


async def test_the_third_failure_locks_and_the_refusal_says_until_when(own):
    """What comes after it is refused, right or wrong, until the lock ends by itself."""
    own.service.clock.stop()
    await three(own)
    for _ in range(3):
        assert code(await fail(own)) is None
        own.service.clock.forward(10_000)

    wrong, right = await fail(own), await own.login(ip=STRANGER)
    until = datetime.fromisoformat(right["reason"]["retry_at"]).timestamp() * 1000
    own.service.clock.forward(int(until) - own.service.clock() - 1)
    before = await own.login(ip=STRANGER)
    own.service.clock.forward(1)
    after = await own.login(ip=STRANGER)

    assert [code(each) for each in (wrong, right, before, after)] == ["login_failures"] * 3 + [None]
    assert right["session"] is None
    assert (right["reason"]["limit"], right["reason"]["counted"]) == (3, 3)


async def test_tries_during_a_lock_do_not_lengthen_it(own):
    """They are recorded as refused, and count for nothing afterwards either."""
    own.service.clock.stop()
    await three(own)
    for _ in range(3):
        await fail(own)
    locked = await fail(own)

    for _ in range(20):
        own.service.clock.forward(25_000)
        assert (await fail(own))["reason"]["retry_at"] == locked["reason"]["retry_at"]
    own.service.clock.forward(LOCK_S * 1000)

    assert code(await fail(own)) is None
    lines = list(items(await own.see("/v1/members/ana/logins?limit=200")))
    assert [line["code"] for line in lines].count("login_failures") == 21


async def test_a_stranger_who_guesses_does_not_lock_a_known_device(own):
    """The member's own counts its own failures alone, and those lock it."""
    home = await own.login()
    known = {"device_token": home["device"]["token"]}
    await three(own)

    guesses = [await fail(own) for _ in range(4)]
    again = await own.login(**known)
    known = {"device_token": again["device"]["token"]}
    for _ in range(3):
        assert code(await fail(own, **known)) is None

    assert code(guesses[-1]) == "login_failures"
    assert code(again) is None
    assert code(await own.login(**known)) == "login_failures"


async def test_a_success_clears_the_counter(own):
    """Two failures, a success, two failures: nobody is locked."""
    await three(own)
    for _ in range(2):
        for _ in range(2):
            assert code(await fail(own)) is None
        assert code(await own.login(ip=STRANGER)) is None


async def test_unknown_users_count_at_their_address(own):
    """Whoever tries names at one address is stopped there, and elsewhere nobody is."""
    await three(own, per="ip")
    for number in range(3):
        assert code(await fail(own, None, identifier=f"name{number}@example.com")) is None

    there = await fail(own, None, identifier="other@example.com")
    member, elsewhere = await own.login(ip=STRANGER), await own.login("ben", ip="192.0.2.55")

    assert [code(each) for each in (there, member, elsewhere)] == ["login_failures", "login_failures", None]
    assert there["reason"]["retry_at"] is not None


async def test_staff_and_impersonation_are_neither_counted_nor_refused(own):
    """Support that mistypes locks nobody."""
    await three(own)
    await own.call("PUT", "/v1/members/tea", {"staff": True})
    for _ in range(5):
        staff, other = await fail(own, "tea"), await fail(own, method="impersonation")
        assert (code(staff), code(other)) == (None, None)

    assert code(await own.login("tea", ip=STRANGER)) is None
    assert code(await own.login(ip=STRANGER)) is None


async def test_an_observing_rule_only_notes(own):
    """The case is there, nobody is refused."""
    await three(own, mode="observe")
    for _ in range(5):
        assert code(await fail(own)) is None

    (case,) = items(await own.see("/v1/violations"))
    assert (case["code"], case["effect"]) == ("login_failures", "logged")


async def test_a_refusal_by_a_rule_is_no_failed_login(own):
    """Guesses from a denied address count for nothing once the address is allowed again."""
    denied = await own.rule("ip_deny", networks=[STRANGER])
    await three(own)
    for _ in range(5):
        assert code(await fail(own)) == "ip_denied"
    await own.call("DELETE", f"/v1/rules/{denied['id']}", role="administrator")

    assert code(await own.login(ip=STRANGER)) is None


async def test_failures_at_the_same_instant_on_two_workers_are_no_more_than_the_limit(own, database_url, redis_url):
    """Each waits for the member's state to be what it was decided on, so none slips past."""
    await three(own)
    await fail(own, "ana")
    await own.login("ana", ip="192.0.2.80")
    async with running(database_url, redis_url) as worker:
        there = Tenant(worker, own.name)
        tries = await asyncio.gather(*(fail((own, there)[i % 2]) for i in range(40)))

    assert sorted(code(each) or "" for each in tries) == [""] * 3 + ["login_failures"] * 37


async def test_a_retry_of_a_refused_failure_answers_the_same(own):
    """By its attempt id."""
    await three(own)
    for _ in range(3):
        await fail(own, user_agent=FIREFOX)
    asked = {"attempt_id": "019aa7c4-5e79-7f10-8a3b-c4d5e6f70899"}

    first, second = await fail(own, **asked), await fail(own, **asked)

    assert code(first) == "login_failures"
    assert first.body == second.body
