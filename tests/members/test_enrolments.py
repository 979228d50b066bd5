"""Enrolments: fed by the platform, kept with their history, and what they make of a member's status."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from accessguard.rules.model import EnrolmentStatus
from tests.service import Answer, Tenant, items

DAY = timedelta(days=1)


def time(days: float) -> str:
    """So many days from now."""
    return (datetime.now(UTC) + days * DAY).isoformat()


async def enrol(tenant: Tenant, product: str = "course-1", member: str = "ana", **fields: Any) -> Answer:
    """What the platform says of one enrolment: begun yesterday, unless told otherwise."""
    asked = {"starts_at": time(-1)} | fields
    return await tenant.call("PUT", f"/v1/members/{member}/enrolments/{product}", asked)


async def standing(tenant: Tenant, member: str = "ana") -> tuple[str, str | None]:
    """Status and reason on the card."""
    card = await tenant.see(f"/v1/members/{member}")
    return card["status"], card["status_reason"]


async def test_an_enrolment_is_kept_as_the_platform_says(tenant: Tenant):
    """And stands on the member's card; what is left out is emptied."""
    begun, ends, bought = time(-3), time(30), time(-4)
    made = await enrol(tenant, starts_at=begun, ends_at=ends, purchased_at=bought)
    card = await tenant.see("/v1/members/ana")
    again = await enrol(tenant, starts_at=begun)

    assert made.status == 200
    assert card["enrolments"] == [made.body]
    assert abs(datetime.fromisoformat(made["ends_at"]) - datetime.fromisoformat(ends)) < timedelta(milliseconds=1)
    assert (again["ends_at"], again["purchased_at"], again["status"]) == (None, None, "active")


async def test_an_enrolment_makes_an_unknown_member_known(tenant: Tenant):
    """The platform may tell of products before it tells of people."""
    await enrol(tenant, member="newcomer")

    card = await tenant.see("/v1/members/newcomer")

    assert (card.status, card["name"], card["first_access_at"]) == (200, "", None)


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        pytest.param({"ends_at": time(-1.5)}, "/ends_at", id="ends before it begins"),
        pytest.param({"reopens_at": time(3)}, "/reopens_at", id="reopens without being frozen"),
        pytest.param({"status": "gone"}, "/status", id="no such status"),
        pytest.param({"starts_at": None}, "/starts_at", id="no beginning"),
        pytest.param({"starts_at": "2026-01-01T00:00:00"}, "/starts_at", id="no time zone"),
        pytest.param({"color": "red"}, "", id="no such field"),
    ],
)
async def test_an_enrolment_that_makes_no_sense_is_refused(tenant: Tenant, fields, pointer):
    """With a pointer to the field; and it makes no member known."""
    refused = await enrol(tenant, **fields)

    assert (refused.status, refused["errors"][0]["pointer"]) == (400, pointer)
    assert (await tenant.see("/v1/members/ana")).status == 404


async def test_an_enrolment_that_is_taken_away_is_gone_but_not_forgotten(tenant: Tenant):
    """Every change with its author and reason; what was sent again unchanged is none."""
    store = tenant.service.context.enrolments
    await enrol(tenant, starts_at="2026-01-01T00:00:00Z", reason="bought")
    await enrol(tenant, starts_at="2026-01-01T00:00:00Z", reason="nightly")
    await enrol(tenant, starts_at="2026-01-01T00:00:00Z", status="frozen", reason="exam")
    path = "/v1/members/ana/enrolments/course-1"

    gone = await tenant.call("DELETE", f"{path}?reason=refund")
    again = await tenant.call("DELETE", path)

    changes = await store.changes(tenant.name, "ana")
    sides = [tuple(side and side.status for side in (each.before, each.after)) for each in changes]
    frozen, active = EnrolmentStatus.FROZEN, EnrolmentStatus.ACTIVE
    assert (gone.status, again.status) == (204, 404)
    assert [each.reason for each in changes] == ["refund", "exam", "bought"]
    assert sides == [(frozen, None), (active, frozen), (None, active)]
    assert {each.actor for each in changes} == {f"platform@{tenant.name}"}
    assert (await tenant.see("/v1/members/ana"))["enrolments"] == []


async def test_a_change_of_an_enrolment_takes_the_next_generation_of_its_member(tenant: Tenant):
    """So that no worker goes on with what it knew; the same content again changes nothing."""
    sessions = tenant.service.context.sessions
    begun = "2026-01-01T00:00:00Z"
    login = await tenant.login()
    numbers = []
    for fields in ({}, {"status": "frozen"}, {"status": "frozen"}, {"status": "active"}):
        await enrol(tenant, starts_at=begun, **fields)
        found = await sessions.snapshot(tenant.name, login["session"]["id"], timeout_s=5)
        assert found is not None
        numbers.append(found.generation)

    assert numbers[0] < numbers[1] == numbers[2] < numbers[3]


@pytest.mark.parametrize(
    ("enrolments", "status"),
    [
        pytest.param([{}], ("active", None), id="begun, without an end"),
        pytest.param([{"ends_at": time(1)}], ("active", None), id="not over yet"),
        pytest.param([{"starts_at": time(-9), "ends_at": time(-1)}], ("inactive", "expired"), id="over"),
        pytest.param([{"status": "deactivated"}], ("inactive", "deactivated"), id="removed by hand"),
        pytest.param([{"starts_at": time(1)}], ("inactive", "not_started"), id="not begun"),
        pytest.param([{"status": "frozen"}], ("inactive", "frozen"), id="frozen"),
        pytest.param([{"status": "frozen", "reopens_at": time(1)}], ("inactive", "frozen"), id="frozen for a while"),
        pytest.param([{"status": "frozen", "reopens_at": time(-0.5)}], ("active", None), id="open again"),
        pytest.param([{"status": "deactivated"}, {}], ("active", None), id="one of two is active"),
        pytest.param([{"status": "deactivated"}, {"status": "frozen"}], ("inactive", "frozen"), id="the nearer says why"),
        pytest.param([], ("inactive", "never_enrolled"), id="none"),
    ],
)  # fmt: skip
async def test_a_member_is_inactive_only_when_all_its_enrolments_are(tenant: Tenant, enrolments, status):
    """Computed, never stored: on the card, in the list and its filter alike."""
    await tenant.login("ana")
    await enrol(tenant, member="ben")
    for number, fields in enumerate(enrolments):
        await enrol(tenant, f"course-{number}", **fields)

    lists = {
        name: [each["member_id"] for each in items(await tenant.see(f"/v1/members?status={name}"))]
        for name in ("active", "inactive")
    }

    assert await standing(tenant) == status
    assert "ana" in lists[status[0]]
    assert sorted(lists["active"] + lists["inactive"]) == ["ana", "ben"]


async def test_without_any_enrolment_in_the_tenant_everybody_is_active(tenant: Tenant):
    """A platform that does not tell of products would otherwise have nobody but inactive students."""
    await tenant.login("ana")

    assert await standing(tenant) == ("active", None)


async def test_members_of_one_product_are_listed(tenant: Tenant):
    """Whatever their status."""
    await enrol(tenant, "a", "ana")
    await enrol(tenant, "a", "ben", status="deactivated")
    await enrol(tenant, "b", "cleo")

    found = [each["member_id"] for each in items(await tenant.see("/v1/members?product_id=a&sort=name"))]

    assert found == ["ana", "ben"]


async def test_enrolments_of_another_tenant_are_nobody_s(service):
    """The same ids in two schools have nothing to do with each other."""
    one, other = service.tenant(), service.tenant()
    await enrol(one)
    await other.login("ana")

    gone = await other.call("DELETE", "/v1/members/ana/enrolments/course-1")

    assert gone.status == 404
    assert (await other.see("/v1/members/ana"))["enrolments"] == []
    assert await standing(other) == ("active", None)


async def test_the_history_of_enrolments_says_who_did_what_when_and_why(tenant: Tenant):
    """Deactivation, reactivation, freezing, withdrawal; each product as it stands now."""
    course = {"product": "a/1%", "starts_at": "2026-01-01T00:00:00Z", "purchased_at": "2025-12-24T00:00:00Z"}
    path = "/v1/members/ana/enrolments"
    for reason, fields in (
        ("bought", {}),
        ("chargeback", {"status": "deactivated"}),
        ("settled", {"status": "active"}),
        ("exam", {"status": "frozen", "reopens_at": time(3)}),
    ):
        sent = {name: value for name, value in (course | fields).items() if name != "product"} | {"reason": reason}
        await tenant.call("PUT", f"{path}/a%2F1%25", sent)
    await enrol(tenant, "b", starts_at=time(2))
    await tenant.call("DELETE", f"{path}/b?reason=refund")

    first, second = items(await tenant.see(path))
    page = await tenant.see(f"{path}?limit=1")
    (last,) = items(await tenant.see(f"{path}?limit=1&cursor={page['next_cursor']}"))
    card = await tenant.see("/v1/members/ana")

    told = [(each["change"], each["reason"]) for each in first["history"]]
    assert told == [
        ("frozen", "exam"),
        ("reactivated", "settled"),
        ("deactivated", "chargeback"),
        ("enrolled", "bought"),
    ]
    assert {each["actor"] for each in first["history"]} == {f"platform@{tenant.name}"}
    assert (first["product_id"], first["active"], first["standing"]) == ("a/1%", False, "frozen")
    assert first["opens_at"] == first["reopens_at"] == card["opens_at"] is not None
    assert (second["product_id"], second["active"], second["standing"]) == ("b", False, None)
    assert [each["change"] for each in second["history"]] == ["withdrawn", "enrolled"]
    assert (second["withdrawn_at"], last) == (second["history"][0]["at"], second)
    assert (await tenant.see("/v1/members/nobody/enrolments")).status == 404


async def test_a_status_in_a_list_changes_when_its_time_comes(tenant: Tenant):
    """Nobody has to write anything for it: what ends is over, what was frozen goes on."""
    await enrol(tenant, "a", "ana", ends_at=time(1))
    await enrol(tenant, "a", "ben", status="frozen", reopens_at=time(1))

    async def listed() -> list[list[str]]:
        return [
            [each["member_id"] for each in items(await tenant.see(f"/v1/members?status={status}&sort={sort}"))]
            for status in ("active", "inactive")
            for sort in ("name", "last_activity")
        ]

    before = await listed()
    tenant.service.clock.forward(2 * 86_400_000)
    after = await listed()

    assert before == [["ana"], ["ana"], ["ben"], ["ben"]]
    assert after == [["ben"], ["ben"], ["ana"], ["ana"]]
