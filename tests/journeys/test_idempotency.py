"""Retries: the same attempt gives the same answer, however it comes again."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from tests.service import CHROME, FIREFOX, LAPTOP, Answer, Tenant, items, running, token


def attempt(**fields: Any) -> dict[str, Any]:
    """A login as the platform sends it."""
    return {"member_id": "ana", "outcome": "success", "ip": LAPTOP, "user_agent": CHROME.format(142)} | fields


async def raw(tenant: Tenant, body: dict[str, Any], **headers: str) -> tuple[int, bytes]:
    """Status and bytes of a login."""
    allowed = {"Authorization": f"Bearer {token(tenant.name, 'platform')}"} | headers
    url = f"{tenant.service.url}/v1/logins"
    async with tenant.service.http.post(url, json=body, headers=allowed) as response:
        return response.status, await response.read()


async def lines(tenant: Tenant, what: str) -> list[dict[str, Any]]:
    """What is recorded of Ana."""
    return list(items(await tenant.see(f"/v1/members/ana/{what}")))


BODIES = [
    pytest.param({}, id="allowed"),
    pytest.param({"outcome": "failure", "failure_reason": "wrong password"}, id="failed"),
    pytest.param({"user_agent": FIREFOX, "method": "impersonation"}, id="impersonation"),
]


@pytest.mark.parametrize("fields", BODIES)
async def test_a_retry_gives_the_same_answer_byte_for_byte(tenant: Tenant, fields):
    """Tokens included, which were never stored; nothing is recorded twice."""
    body = attempt(attempt_id=str(uuid4()), **fields)

    first = await raw(tenant, body)
    second = await raw(tenant, body)
    third = await raw(tenant, body)

    assert first[0] == 200
    assert first == second == third
    assert len(await lines(tenant, "logins")) == 1
    assert len(await lines(tenant, "sessions")) == (0 if fields.get("outcome") == "failure" else 1)


async def test_a_refusal_is_repeated_too(tenant: Tenant):
    """Even after the rule that refused is gone; and it is one case with one hit."""
    rule = await tenant.rule("ip_deny", networks=["203.0.113.0/24"])
    body = attempt(attempt_id=str(uuid4()))
    first = await raw(tenant, body)
    await tenant.call("DELETE", f"/v1/rules/{rule['id']}", role="administrator")

    second = await raw(tenant, body)

    assert first == second
    assert b'"decision":"deny"' in first[1]
    (case,) = await lines(tenant, "violations")
    assert case["hits"] == 1
    assert case["id"].encode() in second[1]


async def test_an_eviction_is_told_again(tenant: Tenant):
    """The platform that missed the answer still learns which sessions ended."""
    await tenant.rule("session_limit", "evict_oldest", max=1)
    first = await tenant.login()
    body = attempt(attempt_id=str(uuid4()), user_agent=FIREFOX)

    answers = [await tenant.call("POST", "/v1/logins", body) for _ in range(2)]

    ended = [{"id": first["session"]["id"], "reason": "session_limit"}]
    assert [answer["ended_sessions"] for answer in answers] == [ended, ended]
    assert (await tenant.check(answers[1]))["decision"] == "allow"


@pytest.mark.parametrize("fields", BODIES)
@pytest.mark.parametrize("by", ["attempt_id", "Idempotency-Key"])
async def test_parallel_duplicates_are_one_login(tenant: Tenant, fields, by):
    """Twenty at one instant: one is recorded, all get its answer."""
    attempt_id = str(uuid4())
    body = attempt(**fields) | ({"attempt_id": attempt_id} if by == "attempt_id" else {})
    headers = {"Idempotency-Key": "login 1"} if by == "Idempotency-Key" else {}

    answers = await asyncio.gather(*(raw(tenant, body, **headers) for _ in range(20)))

    assert {status for status, _ in answers} == {200}
    assert len({answer for _, answer in answers}) == 1
    assert len(await lines(tenant, "logins")) == 1


async def test_parallel_duplicates_on_two_workers_are_one_login(tenant: Tenant, database_url, redis_url):
    """The platform's retry may arrive at another worker while the first is still at it."""
    async with running(database_url, redis_url) as second:
        there = Tenant(second, tenant.name)
        bodies = [attempt(attempt_id=str(uuid4())) for _ in range(10)]

        answers = await asyncio.gather(*(raw(each, body) for body in bodies for each in (tenant, there, tenant)))

    assert {status for status, _ in answers} == {200}
    assert len(set(answers)) == len(bodies)
    assert len(await lines(tenant, "logins")) == len(bodies)


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"member_id": "ben"}, id="member"),
        pytest.param({"outcome": "failure"}, id="outcome"),
        pytest.param({"method": "sso"}, id="method"),
        pytest.param({"session_id": "platform-2"}, id="session"),
    ],
)
async def test_an_attempt_id_with_another_content_is_a_conflict(tenant: Tenant, other):
    """It names one attempt; the first answer stands."""
    attempt_id = str(uuid4())
    first = await raw(tenant, attempt(attempt_id=attempt_id))

    refused = await tenant.call("POST", "/v1/logins", attempt(attempt_id=attempt_id, **other))

    assert (refused.status, refused["errors"][0]["pointer"]) == (409, "/attempt_id")
    assert await raw(tenant, attempt(attempt_id=attempt_id)) == first
    assert len(await lines(tenant, "logins")) == 1


async def test_two_contents_of_one_attempt_id_at_one_instant_are_one_login_and_conflicts(tenant: Tenant):
    """Whichever was first is recorded; nobody gets a 500 and nobody a session that is not there."""
    attempt_id = str(uuid4())
    bodies = [attempt(attempt_id=attempt_id, member_id=member) for member in ("ana", "ben", "cleo")]

    answers = await asyncio.gather(*(tenant.call("POST", "/v1/logins", body) for body in bodies * 3))

    assert {answer.status for answer in answers} == {200, 409}
    allowed = {answer["session"]["id"] for answer in answers if answer.status == 200}
    assert len(allowed) == 1
    assert (await tenant.check(allowed.pop()))["decision"] == "allow"


async def test_an_attempt_id_is_of_one_tenant(tenant: Tenant):
    """Another school may use the same one for something else."""
    other = tenant.service.tenant()
    body = attempt(attempt_id=str(uuid4()))

    here, there = await raw(tenant, body), await raw(other, body | {"member_id": "ben"})

    assert (here[0], there[0]) == (200, 200)


async def test_without_an_attempt_id_every_call_is_an_attempt(tenant: Tenant):
    """Nothing is guessed."""
    answers = [await raw(tenant, attempt()) for _ in range(2)]

    assert answers[0] != answers[1]
    assert len(await lines(tenant, "logins")) == 2


RULE = {"kind": "session_limit", "mode": "observe", "params": {"max": 3}}


async def create(tenant: Tenant, path: str, body: dict[str, Any], key: str, role: str, **more: Any) -> Answer:
    """One POST under an Idempotency-Key."""
    return await tenant.call("POST", path, body, role=role, headers={"Idempotency-Key": key}, **more)


async def test_a_rule_saved_again_under_one_key_is_one_rule(tenant: Tenant):
    """In a row and at one instant; one rule, one version, one line in the audit log."""
    answers = await asyncio.gather(*(create(tenant, "/v1/rules", RULE, "k1", "administrator") for _ in range(10)))
    later = await create(tenant, "/v1/rules", RULE, "k1", "administrator")
    another = await create(tenant, "/v1/rules", RULE, "k2", "administrator")

    assert {answer.status for answer in (*answers, later, another)} == {201}
    assert len({answer["id"] for answer in (*answers, later)}) == 1
    assert another["id"] != later["id"]
    assert len(list(items(await tenant.call("GET", "/v1/rules", role="administrator")))) == 2
    log = items(await tenant.call("GET", "/v1/audit?action=rule.create", role="administrator"))
    assert sorted(line["target_id"] for line in log) == sorted([later["id"], another["id"]])


async def test_a_key_is_of_one_caller_and_one_content(tenant: Tenant):
    """Another operator's key is another key; another rule under a used key is refused and not saved."""
    first = await create(tenant, "/v1/rules", RULE, "k1", "administrator", subject="one")

    other = await create(tenant, "/v1/rules", RULE, "k1", "administrator", subject="other")
    refused = await create(tenant, "/v1/rules", RULE | {"priority": 5}, "k1", "administrator", subject="one")

    assert (first.status, other.status, refused.status) == (201, 201, 422)
    assert first["id"] != other["id"]
    assert len(list(items(await tenant.call("GET", "/v1/rules", role="administrator")))) == 2


async def test_a_key_of_a_deleted_rule_does_not_bring_it_back(tenant: Tenant):
    """A late retry is told so."""
    made = await create(tenant, "/v1/rules", RULE, "k1", "administrator")
    await tenant.call("DELETE", f"/v1/rules/{made['id']}", role="administrator")

    late = await create(tenant, "/v1/rules", RULE, "k1", "administrator")

    assert late.status == 409
    assert list(items(await tenant.call("GET", "/v1/rules", role="administrator"))) == []


@pytest.mark.parametrize("key", ["", "x" * 256, "a\tb"])
async def test_a_key_that_is_none_is_refused(tenant: Tenant, key):
    """And nothing is saved."""
    answer = await create(tenant, "/v1/rules", RULE, key, "administrator")

    assert answer.status == 400
    assert list(items(await tenant.call("GET", "/v1/rules", role="administrator"))) == []


async def test_a_tenant_is_made_once_and_a_key_stands_for_one(tenant: Tenant):
    """Making it again changes nothing; another one under the same key is refused."""
    body, everywhere, key = {"tenant": f"{tenant.name}-new", "name": "First"}, Tenant(tenant.service, "*"), tenant.name

    made = await create(everywhere, "/v1/tenants", body, key, "root")
    again = await create(everywhere, "/v1/tenants", body, key, "root")
    renamed = await everywhere.call("POST", "/v1/tenants", body | {"name": "Second"}, role="root")
    refused = await create(everywhere, "/v1/tenants", {"tenant": f"{tenant.name}-other"}, key, "root")
    absent = await everywhere.call("GET", f"/v1/tenants/{tenant.name}-other", role="root")

    assert [each.status for each in (made, again, renamed, refused, absent)] == [201, 201, 201, 422, 404]
    assert made.body == again.body == renamed.body
