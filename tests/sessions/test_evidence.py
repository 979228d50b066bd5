"""What the wider rules look at, as it is read for one member."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from accessguard.rules.model import EnrolmentStatus, Place
from accessguard.sessions.evidence import EvidenceStore
from accessguard.sessions.model import NetworkRow
from accessguard.sessions.networks import NetworkStore
from tests.build import host
from tests.service import Service, Tenant, items

DEVICE = UUID(int=5)


@pytest.fixture
def store(service: Service) -> EvidenceStore:
    """What is stored in the run's PostgreSQL."""
    return EvidenceStore(service.context.sessions._db)


def now(tenant: Tenant) -> datetime:
    """The service's time."""
    return datetime.fromtimestamp(tenant.service.clock() / 1000, UTC)


async def test_networks_come_with_their_places(store, service, tenant):
    """What is not known of a place is None; a login without a session has none."""
    await tenant.login(ip="192.0.2.7")
    at, networks = now(tenant), NetworkStore(service.context.sessions._db)
    common: dict[str, Any] = {"member_id": "ana", "device_id": DEVICE, "at": at}
    known: dict[str, Any] = {"country": "IT", "asn": 64500, "city": "Milan", "latitude": 45.46, "longitude": 9.19}
    await networks.seen(tenant.name, [NetworkRow(session_id="s1", ip="203.0.113.9", admitted_at=at, **common, **known)])
    await networks.seen(tenant.name, [NetworkRow(session_id="", ip="2001:db8::1", admitted_at=None, **common)])

    found = await store.of_member(tenant.name, "ana")

    facts = {fact.address.text: fact for fact in found.network_facts()}
    assert facts["203.0.113.9"].place == Place(**known)
    assert (facts["203.0.113.9"].session_id, facts["203.0.113.9"].admitted_at) == ("s1", at)
    assert (facts["2001:db8::1"].place, facts["2001:db8::1"].session_id, facts["2001:db8::1"].admitted_at) == (
        None,
        None,
        None,
    )


async def test_enrolments_and_passes_come_as_they_stand(store, tenant):
    """Passes that ended are passed over by time."""
    at = now(tenant)
    enrolment = {"starts_at": "2026-01-01T00:00:00Z", "status": "frozen"}
    await tenant.call("PUT", "/v1/members/ana/enrolments/course-1", enrolment)
    for kind, hours in (("extra_device", 1), ("extra_device", 3), ("extra_session", 2)):
        body = {"kind": kind, "until": (at + timedelta(hours=hours)).isoformat()}
        await tenant.call("POST", "/v1/members/ana/passes", body, role="supervisor")

    found = await store.of_member(tenant.name, "ana")

    later = at + timedelta(hours=2)
    assert [(each.product_id, each.status) for each in found.enrolments] == [("course-1", EnrolmentStatus.FROZEN)]
    assert [found.live("extra_device", each) for each in (at, later)] == [2, 1]
    assert [found.live("extra_session", each) for each in (at, later)] == [1, 0]
    assert abs((found.next_end(at) or at) - at - timedelta(hours=1)) < timedelta(milliseconds=2)


async def test_cases_are_those_that_are_no_false_alarms(store, tenant):
    """By their rule and their beginning."""
    rule = await tenant.rule("ip_deny", networks=["192.0.2.0/24"])
    for member in ("ana", "ben"):
        await tenant.login(member, ip="192.0.2.1")
    (case,) = items(await tenant.see("/v1/members/ana/violations"))
    before = await store.of_member(tenant.name, "ana")
    await tenant.call("PATCH", f"/v1/violations/{case['id']}", {"resolution": "false_alarm"}, role="supervisor")

    after = await store.of_member(tenant.name, "ana")

    assert [str(each.rule_id) for each in before.cases] == [rule["id"]]
    assert after.cases == ()
    assert await store.of_member(tenant.name, "nobody") is None


FAIL = """
    INSERT INTO login_attempt (tenant, id, at, member_id, outcome, method, ip, device_id, device_token, decision, counted)
    VALUES ($1, $2, $3, $4, 'failure', 'password', $5, $6, 'none', 'allow', $7)
"""


async def test_failures_are_the_member_s_and_those_at_its_address(store, service, tenant):
    """Not those that a limit refused, not older ones, not those of others elsewhere."""
    await tenant.login()
    at, db = now(tenant), service.context.sessions._db
    rows = (
        (1, "ana", "203.0.113.9", None, True),
        (2, "ana", "198.51.100.1", DEVICE, True),
        (3, "ben", "203.0.113.9", None, True),
        (4, None, "203.0.113.9", None, True),
        (5, "ben", "198.51.100.1", None, True),
        (6, "ana", "203.0.113.9", None, False),
        (90, "ana", "203.0.113.9", None, True),
    )
    for minutes, member, ip, device, counted in rows:
        await db.row(FAIL, tenant.name, uuid4(), at - timedelta(minutes=minutes), member, ip, device, counted)
    since = at - timedelta(hours=1)

    found = await store.failures(tenant.name, "ana", at=host("203.0.113.9"), since=since)
    unknown = await store.failures(tenant.name, None, at=host("203.0.113.9"), since=since)
    nowhere = await store.failures(tenant.name, "ana", at=None, since=since)

    ages = sorted((round((at - each.at) / timedelta(minutes=1)), each.own) for each in found.facts)
    assert ages == [(1, True), (2, True), (3, False), (4, False)]
    assert {each.device_id for each in found.facts} == {None, DEVICE}
    assert (len(unknown.facts), len(nowhere.facts)) == (3, 2)


async def test_a_success_clears_the_counter_it_is_on(store, tenant):
    """A known device clears its own, a new one those of strangers."""
    first = await tenant.login()
    since = now(tenant) - timedelta(hours=1)
    device = UUID(first["device"]["id"])
    again = await tenant.login(device_token=first["device"]["token"])

    failures = await store.failures(tenant.name, "ana", at=None, since=since)
    found = {n: failures.succeeded_at(each) for n, each in (("known", device), ("new", None), ("other", uuid4()))}

    assert again["device"]["new"] is False
    assert found["known"] > found["new"] > since
    assert found["other"] is None
