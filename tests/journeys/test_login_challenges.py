"""Challenges at a login and at a check: what was withheld goes through, is refused, or a place is freed for it; once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import msgspec
import pytest

from tests.service import CHROME, FIREFOX, Answer, Service, Tenant, items, running

SWAPS = {"max": 1, "window_days": 30}


@pytest.fixture
async def own(database_url: str, redis_url: str, service: Service) -> AsyncIterator[Tenant]:
    """A tenant on a worker whose clock is the test's alone."""
    async with running(database_url, redis_url) as worker:
        yield worker.tenant()


async def settle(tenant: Tenant, challenged: Answer, outcome: str = "passed", **freed) -> Answer:
    """Settle the challenge of an answer."""
    path = f"/v1/challenges/{challenged['reason']['challenge_id']}"
    return await tenant.call("POST", path, {"outcome": outcome} | freed)


async def challenged(tenant: Tenant, **params) -> tuple[Answer, Answer]:
    """A session, and a second login that is challenged because one may be open."""
    await tenant.rule("session_limit", "challenge", **{"max": 1} | params)
    first = await tenant.login()
    second = await tenant.login(user_agent=FIREFOX, session_id="second", identifier="ana@example.com")
    assert second["decision"] == "challenge", second.body
    return first, second


async def test_a_challenged_login_opens_nothing_and_says_what_to_settle(tenant):
    """With the code, what could be closed, and a device that will be known again."""
    first, second = await challenged(tenant)

    assert (second["session"], second["ended_sessions"]) == (None, [])
    assert second["reason"]["code"] == "session_limit"
    assert [each["id"] for each in second["reason"]["choices"]] == [first["session"]["id"]]
    assert second["device"]["new"] is True
    assert (await tenant.check(first))["decision"] == "allow"
    assert (await tenant.check("second"))["reason"]["code"] == "unknown_session"


async def test_a_passed_challenge_lets_the_login_through(tenant):
    """It answers as the login would have, both sessions go on, and both lines are in the log."""
    first, second = await challenged(tenant)

    passed = await settle(tenant, second)

    assert (passed.status, passed["decision"], passed["reason"]) == (200, "allow", None)
    assert (passed["session"]["id"], passed["device"]["id"]) == ("second", second["device"]["id"])
    assert passed["attempt_id"] == second["reason"]["challenge_id"]
    for session in (first, passed):
        answer = await tenant.check(session, user_agent=CHROME.format(142))
        assert answer["decision"] == "allow", answer.body
    lines = list(items(await tenant.see("/v1/members/ana/logins")))
    assert [line["decision"] for line in lines] == ["allow", "challenge", "allow"]


async def test_the_device_s_next_secret_is_the_one_that_was_answered(tenant):
    """The token that the finished login hands out is known at the next one, and nothing secret was stored."""
    _, second = await challenged(tenant)

    passed = await settle(tenant, second)
    again = await tenant.login(user_agent=FIREFOX, device_token=passed["device"]["token"])

    lines = list(items(await tenant.see("/v1/members/ana/logins")))
    assert (again["device"]["id"], again["device"]["new"]) == (passed["device"]["id"], False)
    assert lines[0]["device_token"] == "current"
    db = tenant.service.context.sessions._db
    stored = await db.value("SELECT asked FROM challenge WHERE tenant = $1", tenant.name)
    assert b"device_id" in bytes(stored)
    assert b"ana@example.com" not in bytes(stored)
    for token in (second["device"]["token"], passed["device"]["token"]):
        assert token.encode() not in bytes(stored)


async def test_a_repeated_settlement_answers_the_same(tenant):
    """Ten at once too; one session, one line; the other outcome comes too late."""
    _, second = await challenged(tenant)

    answers = await asyncio.gather(*(settle(tenant, second) for _ in range(10)))
    late = await settle(tenant, second, "failed")

    assert [answer.status for answer in answers] == [200] * 10
    assert len({msgspec.json.encode(answer.body) for answer in answers}) == 1
    assert late.status == 409
    sessions = list(items(await tenant.see("/v1/members/ana/sessions")))
    assert len(sessions) == 2


async def test_a_failed_challenge_is_a_denial_for_the_same_reason(tenant):
    """Nothing is opened; the next login is challenged anew."""
    _, second = await challenged(tenant)

    failed = await settle(tenant, second, "failed")
    again, late = await settle(tenant, second, "failed"), await settle(tenant, second)

    assert (failed["decision"], failed["session"]) == ("deny", None)
    assert (failed["reason"]["code"], failed["reason"]["challenge_id"]) == ("session_limit", None)
    assert (again.body, late.status) == (failed.body, 409)
    assert (await tenant.login(user_agent=FIREFOX))["decision"] == "challenge"


async def test_a_challenge_is_over_after_ten_minutes(own):
    """Then a new login is the way."""
    own.service.clock.stop()
    _, second = await challenged(own)

    own.service.clock.forward(600_000)

    assert (await settle(own, second)).status == 409
    assert (await own.check("second"))["reason"]["code"] == "unknown_session"


async def test_a_challenge_of_another_tenant_is_not_there(service, tenant):
    """Nor is one that nobody put, and no other role may settle."""
    _, second = await challenged(tenant)
    path = f"/v1/challenges/{second['reason']['challenge_id']}"

    statuses = [
        (await service.tenant().call("POST", path, {"outcome": "passed"})).status,
        (await tenant.call("POST", f"/v1/challenges/{uuid4()}", {"outcome": "passed"})).status,
        (await tenant.call("POST", path, {"outcome": "passed"}, role="supervisor")).status,
        (await tenant.call("POST", path, {"outcome": "perhaps"})).status,
        (await settle(tenant, second, "failed", end_session_id="x")).status,
        (await settle(tenant, second, end_session_id="x", forget_device_id=str(uuid4()))).status,
    ]

    assert statuses == [404, 404, 403, 400, 400, 400]


async def test_a_place_is_freed_within_the_budget(tenant):
    """The chosen session ends, the login goes through; the next time the budget is used up."""
    first, second = await challenged(tenant, swaps=SWAPS)

    freed = await settle(tenant, second, end_session_id=first["session"]["id"])
    third = await tenant.login(session_id="third")
    over = await settle(tenant, third, end_session_id="second")
    passed = await settle(tenant, third)

    assert (freed["decision"], freed["ended_sessions"]) == (
        "allow",
        [{"id": first["session"]["id"], "reason": "freed_by_member"}],
    )
    closed = (await tenant.check(first))["reason"]
    assert (closed["end_reason"], "another place" in closed["message"]) == ("freed_by_member", True)
    assert third["decision"] == "challenge"
    assert (over.status, passed["decision"]) == (409, "allow")
    assert (await tenant.check("second", user_agent=FIREFOX))["decision"] == "allow"


async def test_only_what_holds_a_place_can_be_freed(tenant):
    """Not what is not among the choices, and nothing where the rule has no budget; the challenge stays open."""
    first, second = await challenged(tenant)
    without = await settle(tenant, second, end_session_id=first["session"]["id"])
    (rule,) = (await tenant.call("GET", "/v1/rules", role="administrator"))["items"]
    body = {name: rule[name] for name in ("kind", "mode", "action", "params")}
    body["params"] |= {"swaps": SWAPS}
    await tenant.call("PUT", f"/v1/rules/{rule['id']}", body, role="administrator")

    other = await settle(tenant, second, end_session_id="somebody-else-s")
    freed = await settle(tenant, second, end_session_id=first["session"]["id"])

    assert (without.status, other.status) == (409, 409)
    assert (await tenant.check(first))["decision"] == "deny"
    assert freed["decision"] == "allow"


async def test_a_device_is_given_up_for_another(tenant):
    """The old one is forgotten, its session ends, the new one takes its place."""
    await tenant.rule("device_limit", "challenge", max=1, swaps=SWAPS)
    first = await tenant.login()
    second = await tenant.login(user_agent=FIREFOX)

    freed = await settle(tenant, second, forget_device_id=first["device"]["id"])

    assert (second["decision"], freed["decision"]) == ("challenge", "allow")
    assert freed["ended_sessions"] == [{"id": first["session"]["id"], "reason": "device_forgotten"}]
    devices = list(items(await tenant.see("/v1/members/ana/devices")))
    assert [device["id"] for device in devices] == [freed["device"]["id"]]
    assert devices[0]["admitted_at"] is not None


async def test_a_denial_behind_the_challenge_still_stands(tenant):
    """Passing leads on to the refusal that was found as well."""
    await tenant.rule("session_limit", "challenge", max=1)
    await tenant.rule("device_limit", "deny_new", max=1)
    await tenant.login()
    second = await tenant.login(user_agent=FIREFOX)

    passed = await settle(tenant, second)

    assert second["decision"] == "challenge"
    assert (passed["decision"], passed["reason"]["code"]) == ("deny", "device_limit")
    assert passed["session"] is None


async def test_a_retried_login_is_told_of_the_same_challenge(tenant):
    """By its attempt id, also after it was settled."""
    await tenant.rule("session_limit", "challenge", max=1)
    await tenant.login()
    asked = {"user_agent": FIREFOX, "attempt_id": str(uuid4())}

    first, second = await tenant.login(**asked), await tenant.login(**asked)

    assert first.body == second.body
    assert (await settle(tenant, first))["decision"] == "allow"


async def test_two_workers_settle_one_challenge_once(own, database_url, redis_url):
    """One passes, the other answers the same."""
    _, second = await challenged(own)
    async with running(database_url, redis_url) as worker:
        there = Tenant(worker, own.name)
        answers = await asyncio.gather(*(settle((own, there)[i % 2], second) for i in range(8)))

    assert len({msgspec.json.encode(answer.body) for answer in answers}) == 1
    assert answers[0]["decision"] == "allow"


async def test_a_session_that_was_ended_meanwhile_frees_no_place(tenant):
    """Whoever was thrown out does not throw out the owner with a challenge that is still open."""
    owner = await tenant.login()
    thief = await tenant.login(user_agent=FIREFOX)
    await tenant.rule("session_limit", "challenge", max=1, swaps={"max": 1, "window_days": 30})
    put = await tenant.check(thief, user_agent=FIREFOX)
    await tenant.call("POST", f"/v1/sessions/{thief['session']['id']}/end", {"reason": "password_changed"})

    path = f"/v1/challenges/{put['reason']['challenge_id']}"
    settled = await tenant.call("POST", path, {"outcome": "passed", "end_session_id": owner["session"]["id"]})

    assert put["decision"] == "challenge"
    assert settled.status == 409, settled.body
    session = await tenant.see(f"/v1/sessions/{owner['session']['id']}")
    assert session["ended_at"] is None


async def test_a_challenge_does_not_lift_a_block(tenant):
    """A device that support blocks while its student types the code stays out."""
    await tenant.login()
    other = await tenant.login(user_agent=FIREFOX)
    await tenant.rule("session_limit", "challenge", max=1)
    put = await tenant.check(other, user_agent=FIREFOX)
    await tenant.device("ana", other["device"]["id"], access="blocked")

    settled = await tenant.call("POST", f"/v1/challenges/{put['reason']['challenge_id']}", {"outcome": "passed"})

    assert (settled.status, settled["decision"], settled["session"]) == (200, "deny", None)


async def test_a_challenged_login_with_an_odd_browser_is_recorded(tenant):
    """What an allowed login takes, a challenged one takes: NUL, and more than is ever read."""
    await tenant.rule("device_limit", "challenge", max=1)
    await tenant.login()

    asked = await tenant.login(
        user_agent="odd\x00" + "x" * 100_000, client_hints={"Sec-CH-UA-Model": '"\x00' + "y" * 100_000, "X-Other": "z"}
    )

    assert (asked.status, asked["decision"]) == (200, "challenge")
