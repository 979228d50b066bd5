"""Members that have something in common: what is found, how much it says, and who may see it."""

from __future__ import annotations

from typing import Any

import pytest

from accessguard.members.phone import e164
from accessguard.members.related import address_strength, device_strength
from tests.service import FIREFOX, Tenant, items


async def related(tenant: Tenant, member: str = "ana") -> list[tuple[Any, ...]]:
    """Who is related to a member: by what, how strongly, shared by how many."""
    rows = items(await tenant.see(f"/v1/members/{member}/related"))
    return [(row["member_id"], row["reason"], row["strength"], row["members"]) for row in rows]


async def put(tenant: Tenant, member: str, phone: str) -> None:
    """A member with a telephone number."""
    assert (await tenant.call("PUT", f"/v1/members/{member}", {"name": member, "phone": phone})).status == 200


async def test_who_uses_the_same_browser_is_related_strongly(tenant: Tenant):
    """By the cookie that both were given, wherever they were."""
    ana = await tenant.login()
    await tenant.login("bob", device_token=ana["device"]["token"], ip="198.51.100.7")
    await tenant.login("eve", ip="192.0.2.1")

    assert await related(tenant) == [("bob", "device", "strong", 2)]
    assert await related(tenant, "bob") == [("ana", "device", "strong", 2)]


async def test_who_was_at_the_same_address_at_the_same_time_is_related(tenant: Tenant):
    """Not who came days after; of IPv6 the /64 is one place."""
    clock = tenant.service.clock
    await tenant.login(ip="2001:db8::1")
    await tenant.login("bob", ip="2001:db8::2", user_agent=FIREFOX)
    ana = await tenant.login(ip="2001:db8::1")
    clock.forward(60_000)
    await tenant.check(ana, ip="2001:db8::1", activity="lesson_open")
    clock.forward(5 * 86_400_000)
    try:
        await tenant.login("eve", ip="2001:db8::3", user_agent=FIREFOX)
        found = await related(tenant)
        (shown,) = items(await tenant.see("/v1/members/ana/related"))
    finally:
        clock.forward(-5 * 86_400_000 - 60_000)

    assert found == [("bob", "address", "medium", 2)]
    assert shown["ip"] == "2001:db8::"


async def test_a_busy_address_says_little_and_a_very_busy_one_nothing(tenant: Tenant):
    """A household, an office, a carrier's NAT."""
    await tenant.login("ana", ip="203.0.113.50")
    for number in range(7):
        await tenant.login(f"m{number}", ip="203.0.113.50")
        await tenant.login("ana", ip="203.0.113.50")
    office = await related(tenant)
    for number in range(7, 60):
        await tenant.login(f"m{number}", ip="203.0.113.50")
    await tenant.login("ana", ip="203.0.113.50")

    carrier = await related(tenant)

    assert {row[2] for row in office} == {"weak"}
    assert len(office) == 7
    assert carrier == []


async def test_one_number_in_two_formats_is_one(tenant: Tenant):
    """By the tenant's country, which a number with a country code does not need; what was written stays as it is."""
    saved = await tenant.call("PUT", "/v1/settings", {"country": "IT"}, role="administrator")
    await put(tenant, "ana", "333 123 4567")
    await put(tenant, "bob", "+39 (333) 123-4567")
    await put(tenant, "eve", "+1 333 123 4567")
    await put(tenant, "joe", "ask me")

    member = await tenant.see("/v1/members/ana")

    assert saved.status == 200, saved.body
    assert member["phone"] == "333 123 4567"
    assert await related(tenant) == [("bob", "phone", "strong", 2)]
    assert await related(tenant, "joe") == []


async def test_numbers_that_a_release_before_stored_are_read_later(tenant: Tenant, database_url: str):
    """A few at a time; a second look finds nothing left to do."""
    import asyncpg

    await put(tenant, "ana", "+39 333 1234567")
    await put(tenant, "bob", "0039 333 1234567")
    await put(tenant, "eve", "+393331234567")
    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("UPDATE member SET phone_e164 = NULL WHERE tenant = $1", tenant.name)
    finally:
        await connection.close()
    before = await related(tenant)

    while await tenant.service.context.members.read_phones(most=2):
        pass

    assert before == []
    assert await related(tenant) == [("eve", "phone", "strong", 3), ("bob", "phone", "strong", 3)]


@pytest.mark.parametrize(
    ("raw", "country", "number"),
    [
        (None, "IT", None),
        ("", "IT", ""),
        ("+39 333 1234567", None, "+393331234567"),
        ("333 1234567", "IT", "+393331234567"),
        ("333 1234567", None, ""),
        ("0049 (0)30 901820", None, "+4930901820"),
        ("000 901820", None, ""),
        ("(11) 98765-4321", "BR", "+5511987654321"),
        ("12", "IT", ""),
        ("no number", "IT", ""),
    ],
)
def test_a_number_is_written_one_way(raw: str | None, country: str | None, number: str | None):
    """E.164, or nothing where it cannot be told."""
    assert e164(raw, country) == number


def test_strength_falls_with_the_number_of_members():
    """And rises with the number of quiet addresses."""
    assert [device_strength(many) for many in (2, 3, 4, 10, 11)] == ["strong", "strong", "medium", "medium", "weak"]
    assert [address_strength(many, 1) for many in (2, 4, 5, 40)] == ["medium", "medium", "weak", "weak"]
    assert address_strength(3, 2) == "strong"


async def test_related_members_are_for_those_who_may_see_addresses(tenant: Tenant):
    """Neither for an attendant nor for the platform; in pages, and as CSV."""
    ana = await tenant.login()
    await tenant.login("bob", device_token=ana["device"]["token"])
    await tenant.login("ana", device_token=ana["device"]["token"])
    path = "/v1/members/ana/related"

    first = await tenant.see(f"{path}?limit=1")
    second = await tenant.see(f"{path}?limit=1&cursor={first['next_cursor']}")
    table = await tenant.see(path, headers={"Accept": "text/csv"})

    assert [row["reason"] for row in (*items(first), *items(second))] == ["device", "address"]
    assert second["next_cursor"] is None
    assert table.body.decode().startswith(
        "member_id,name,reason,strength,last_at,shared,members,ip,explanation\r\nbob,"
    )
    for role in ("attendant", "platform"):
        assert (await tenant.call("GET", path, role=role)).status == 403
    assert (await tenant.see("/v1/members/nobody/related")).status == 404


async def test_who_is_often_at_home_still_shares_it(tenant: Tenant, monkeypatch: pytest.MonkeyPatch):
    """Uses of an address by the member himself do not crowd out the others'."""
    monkeypatch.setattr("accessguard.members.related.MOST_READ", 3)
    for member in ("ana", "ana", "ana", "ana", "bob", "ana"):
        await tenant.login(member, ip="203.0.113.51")

    assert [row[:2] for row in await related(tenant)] == [("bob", "address")]
