"""Tenants of tenants, and the end of one: nothing is left, and its tokens open nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from accessguard.database import Database
from accessguard.guard.upkeep import Job, Upkeep
from tests.members.test_privacy import TABLES
from tests.service import Answer, Service, Tenant, items


@pytest.fixture
async def db(service: Service, database_url: str) -> AsyncIterator[Database]:
    """Connections of this test."""
    made = await Database.connect(database_url, size=2)
    yield made
    await made.close()


async def root(tenant: Tenant, method: str, query: str = "", body: Any = None) -> Answer:
    """A call of the installation about this tenant, by a token for all."""
    return await Tenant(tenant.service, "*").call(method, f"/v1/tenants/{tenant.name}{query}", body, role="root")


async def family(service: Service) -> tuple[Tenant, Tenant, Tenant]:
    """An agency, its school, and a stranger; each has a member."""
    agency, school, stranger = service.tenant(), service.tenant(), service.tenant()
    for each in (agency, school, stranger):
        await each.login("ana")
    assert (await root(school, "PATCH", body={"parent": agency.name})).status == 200
    return agency, school, stranger


async def test_an_agency_acts_for_its_children_and_for_nobody_else(service: Service):
    """Its token names the child in a header; a stranger, a tenant that is not there and the parent of a child are refused alike."""
    agency, school, stranger = await family(service)

    async def seen(by: Tenant, of: str) -> int:
        headers = {"AccessGuard-Tenant": of}
        return (await by.call("GET", "/v1/members/ana", role="supervisor", headers=headers)).status

    assert await seen(agency, school.name) == 200
    login = {"member_id": "bo", "outcome": "success", "ip": "203.0.113.9", "user_agent": "x"}
    made = await agency.call("POST", "/v1/logins", login, headers={"AccessGuard-Tenant": school.name})
    assert (made["decision"], (await school.see("/v1/members/bo")).status) == ("allow", 200)
    assert [await seen(agency, stranger.name), await seen(agency, "nobody"), await seen(school, agency.name)] == [
        403
    ] * 3
    assert (await root(school, "PATCH", body={"parent": None})).status == 200
    assert await seen(agency, school.name) == 403


async def test_the_administrator_of_an_agency_sees_its_children_listed(service: Service):
    """Its own tenant and those below it, whichever way its token is bound; a stranger and an operator of less see none of it."""
    agency, school, stranger = await family(service)
    everywhere = Tenant(service, "*")

    async def listed(by: Tenant, role: str = "administrator", **headers: str) -> Answer:
        return await by.call("GET", "/v1/tenants", role=role, headers=headers)

    named = await listed(everywhere, **{"AccessGuard-Tenant": agency.name})
    assert [{each["tenant"] for each in items(found)} for found in (await listed(agency), named)] == [
        {agency.name, school.name}
    ] * 2
    assert [each["tenant"] for each in items(await listed(stranger))] == [stranger.name]
    assert [(await listed(everywhere)).status, (await listed(agency, "supervisor")).status] == [400, 403]
    assert (await listed(agency, **{"AccessGuard-Tenant": stranger.name})).status == 403


async def test_no_tenant_is_its_own_grandparent(service: Service):
    """A parent that leads back, or that is not there, is refused with a pointer."""
    agency, school, _ = await family(service)

    refused = [
        await root(agency, "PATCH", body={"parent": parent}) for parent in (school.name, agency.name, "nobody-at-all")
    ]

    assert [(each.status, each["errors"][0]["pointer"]) for each in refused] == [(400, "/parent")] * 3


async def test_a_root_of_one_tenant_is_root_of_that_and_below(service: Service):
    """It reads, changes and lists these; of others it learns nothing, and gives them no child."""
    agency, school, stranger = await family(service)

    async def by(whose: Tenant, method: str, of: str, body: Any = None) -> int:
        return (await whose.call(method, f"/v1/tenants/{of}", body, role="root")).status

    listed = [each["tenant"] for each in items(await agency.call("GET", "/v1/tenants", role="root"))]
    own = [await by(agency, "GET", agency.name), await by(agency, "PATCH", school.name, {"name": "School"})]
    others = [await by(agency, method, stranger.name, {"name": "x"}) for method in ("GET", "PATCH", "DELETE")]
    up = [await by(school, "GET", agency.name), await by(school, "PATCH", school.name, {"parent": stranger.name})]
    made = await agency.call("POST", "/v1/tenants", {"tenant": f"{stranger.name}-new"}, role="root")

    assert listed == sorted([agency.name, school.name])
    assert own == [200, 200]
    assert [*others, *up, await by(agency, "GET", "nobody"), made.status] == [403] * 7


async def test_five_generations_are_too_many_whichever_end_grows(service: Service):
    """What hangs below a tenant comes along when it gets a parent."""
    tenants = [service.tenant() for _ in range(5)]
    for each in tenants:
        await each.login("ana")
    for child, parent in ((1, 0), (3, 2), (4, 3)):
        assert (await root(tenants[child], "PATCH", body={"parent": tenants[parent].name})).status == 200

    refused = await root(tenants[2], "PATCH", body={"parent": tenants[1].name})
    taken = await root(tenants[2], "PATCH", body={"parent": tenants[0].name})

    assert (refused.status, refused["errors"][0]["pointer"], taken.status) == (400, "/parent", 200)


async def test_a_suspended_tenant_is_not_there_until_it_is_active_again(tenant: Tenant):
    """Checks of its sessions too, held verdicts included."""
    login = await tenant.login("ana")
    for _ in range(3):
        assert (await tenant.check(login))["decision"] == "allow"

    await root(tenant, "PATCH", body={"status": "suspended"})
    closed = [(await tenant.check(login)).status, (await tenant.see("/v1/members")).status]
    await root(tenant, "PATCH", body={"status": "active"})

    assert closed == [404, 404]
    assert (await tenant.check(login))["decision"] == "allow"


async def test_a_tenant_is_deleted_in_two_steps_and_nothing_is_left_of_it(service: Service, db: Database):
    """Refused while it has children and without the token; then every table is empty of it, and its tokens make nothing anew."""
    agency, school, stranger = await family(service)
    login = await school.login("bo")
    await school.rule("device_limit", "deny_new", max=1)

    parent = await root(agency, "DELETE")
    asked = await root(school, "DELETE")
    forged = await root(school, "DELETE", "?confirmation=x")
    foreign = await root(stranger, "DELETE", f"?confirmation={asked['confirmation']}")
    done = await root(school, "DELETE", f"?confirmation={asked['confirmation']}&reason=left")
    at_once = [(await school.check(login)).status, (await school.login("bo")).status]
    upkeep = Upkeep(db, now_ms=service.clock, chores=())
    chore = service.context.tenants.chore
    while (await root(school, "GET")).status == 200:
        await db.row("DELETE FROM upkeep WHERE job = $1", Job.TENANTS)
        await upkeep.attempt(chore)

    assert [each.status for each in (parent, asked, forged, foreign, done)] == [409, 200, 400, 400, 202]
    assert (asked["members"], done["status"], at_once) == (2, "deleting", [404, 404])
    left = set()
    for (name,) in await db.fetch(TABLES):
        held = f"""SELECT count(*) FROM "{name}" x WHERE to_jsonb(x) ->> 'tenant' = $1"""
        left |= {name} if await db.value(held, school.name) else set()
    assert left <= {"erasure"}
    again = await school.call("POST", "/v1/tenants", {"tenant": school.name}, role="root")
    assert [(await school.login("bo")).status, (await school.see("/v1/members")).status, again.status] == [
        404,
        404,
        409,
    ]
    lines = items(await agency.call("GET", "/v1/audit", role="administrator"))
    assert [(each["action"], each["target_id"], each["reason"]) for each in lines] == [
        ("tenant.delete", school.name, "left")
    ]
    assert (await stranger.see("/v1/members/ana")).status == 200
