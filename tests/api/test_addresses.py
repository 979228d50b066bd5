"""Look before you deny: who else uses an address or a browser."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest

from accessguard.geo import Geo
from accessguard.sessions.model import NetworkRow
from accessguard.sessions.networks import NetworkStore, bounds
from tests.build import host
from tests.mmdb import city, mmdb
from tests.service import FIREFOX, Service, Tenant, items

V6 = "2001:db8:1:2::9"


@pytest.fixture
def networks(service: Service) -> NetworkStore:
    """The networks of the run's PostgreSQL."""
    return NetworkStore(service.context.sessions._db)


@pytest.fixture
def places(service: Service, tmp_path: Path) -> Iterator[None]:
    """The service knows where 203.0.113.0/24 is."""
    path = tmp_path / "city.mmdb"
    record = city("BR", "Recife", -8.05, -34.88, time_zone="America/Recife") | {
        "autonomous_system_number": 64500,
        "autonomous_system_organization": "Example Telecom",
    }
    path.write_bytes(mmdb({"203.0.113.0/24": record}))
    addresses = service.context.addresses
    before, addresses._geo = addresses._geo, Geo([path])
    yield
    addresses._geo = before


def seen(tenant: Tenant, member: str, ip: str, *, days: float = 0, admitted: bool = True, **more: Any) -> NetworkRow:
    """A member was seen at an address so many days ago."""
    at = datetime.fromtimestamp(tenant.service.clock() / 1000, UTC) - timedelta(days=days)
    given: dict[str, Any] = {
        "member_id": member,
        "session_id": f"s-{member}",
        "ip": ip,
        "device_id": None,
        "at": at,
        "admitted_at": at if admitted else None,
    }
    return NetworkRow(**given | more)


async def crowd(tenant: Tenant, *members: str) -> None:
    """Members that are there."""
    for member in members:
        await tenant.call("PUT", f"/v1/members/{member}", {})


async def test_an_address_tells_who_else_was_seen_there(tenant: Tenant, networks):
    """How many lately, how many today, and the last of them; nobody of before, nobody of elsewhere."""
    await crowd(tenant, "ana", "ben", "cleo", "dan")
    rows = [
        seen(tenant, "ana", "203.0.113.9"),
        seen(tenant, "ben", "203.0.113.9", days=3),
        seen(tenant, "cleo", "203.0.113.9", days=31),
        seen(tenant, "dan", "203.0.113.10"),
    ]
    await networks.seen(tenant.name, rows)

    found = await tenant.see("/v1/addresses/203.0.113.9")

    assert (found["ip"], found["network"]) == ("203.0.113.9", "203.0.113.9")
    assert (found["members"], found["network_members"], found["members_today"]) == (2, 2, 1)
    assert [each["member_id"] for each in found["last"]] == ["ana", "ben"]


async def test_an_ipv6_address_is_counted_with_its_neighbours(tenant: Tenant, networks):
    """Who holds a /64 changes the rest at will, so that both are told."""
    await crowd(tenant, "ana", "ben", "cleo", "dan")
    await networks.seen(
        tenant.name,
        [
            seen(tenant, "ana", V6),
            seen(tenant, "ben", "2001:db8:1:2::"),
            seen(tenant, "cleo", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
            seen(tenant, "dan", "2001:db8:1:3::"),
        ],
    )

    found = await tenant.see(f"/v1/addresses/{V6}")

    assert (found["network"], found["members"], found["network_members"]) == ("2001:db8:1:2::/64", 1, 3)
    assert bounds(host(V6)) == ("2001:db8:1:2::", "2001:db8:1:2:ffff:ffff:ffff:ffff")


async def test_a_second_look_moves_last_use_and_only_forward(tenant: Tenant, networks):
    """One row for each member, session and address; a refused use takes no place and moves nothing."""
    await crowd(tenant, "ana")
    old, new = seen(tenant, "ana", "203.0.113.9", days=2), seen(tenant, "ana", "203.0.113.9", days=1, country="BR")
    uses = []
    for row in (
        msgspec.structs.replace(old, admitted_at=None),
        old,
        new,
        old,
        seen(tenant, "ana", "203.0.113.9", admitted=False),
    ):
        await networks.seen(tenant.name, [row])
        use = await networks.use(tenant.name, host("203.0.113.9"), since=old.at - timedelta(1), today=old.at)
        uses.append([each.last_at for each in use.last])

    assert uses == [[old.at], [old.at], [new.at], [new.at], [new.at]]


async def test_only_ten_are_named(tenant: Tenant, networks):
    """An address of a school or of a phone company has thousands."""
    members = [f"m{number}" for number in range(12)]
    await crowd(tenant, *members)
    await networks.seen(tenant.name, [seen(tenant, each, "203.0.113.9", days=int(each[1:]) / 24) for each in members])

    found = await tenant.see("/v1/addresses/203.0.113.9")

    assert found["members"] == 12
    assert [each["member_id"] for each in found["last"]] == members[:10]


async def test_an_address_tells_where_it_is_and_which_rules_name_it(tenant: Tenant, places):
    """Those that are off too; not those that name others, nor those that are no lists."""
    await tenant.login()
    named = [
        (await tenant.rule("ip_deny", mode="off", networks=["203.0.113.0/24"]))["id"],
        (await tenant.rule("ip_allow_only", mode="observe", networks=["203.0.113.9"]))["id"],
    ]
    await tenant.rule("ip_deny", mode="observe", networks=["198.51.100.0/24"])
    await tenant.rule("device_limit", mode="observe", max=1)

    found = await tenant.see("/v1/addresses/203.0.113.9")

    assert found["place"] == {
        "country": "BR",
        "asn": 64500,
        "city": "Recife",
        "latitude": -8.05,
        "longitude": -34.88,
        "operator": "Example Telecom",
        "time_zone": "America/Recife",
    }
    assert [each["id"] for each in found["rules"]] == named
    assert [each["kind"] for each in found["rules"]] == ["ip_deny", "ip_allow_only"]


@pytest.mark.parametrize("text", ["203.0.113.256", "example.com", "203.0.113.0%2F24", "%20", "::g"])
async def test_what_is_no_address_is_not_found(tenant: Tenant, text):
    """A network is no address either."""
    await tenant.login()

    found = await tenant.see(f"/v1/addresses/{text}")

    assert found.status == 404


async def test_an_address_of_another_tenant_tells_nothing(service: Service, networks):
    """Two schools behind one proxy do not see each other."""
    one, other = service.tenant(), service.tenant()
    for tenant in (one, other):
        await tenant.login("ana", ip="192.0.2.7")
    await crowd(one, "ana")
    await networks.seen(one.name, [seen(one, "ana", "203.0.113.9")])

    found = await other.see("/v1/addresses/203.0.113.9")

    assert (found["members"], found["last"], found["rules"]) == (0, [], [])


async def test_a_device_tells_how_many_others_use_its_browser(tenant: Tenant):
    """In the list and in the answer to a change; forgotten ones do not count, nor other browsers."""
    ana = await tenant.login("ana")
    token = ana["device"]["token"]
    ben = await tenant.login("ben", device_token=token)
    cleo = await tenant.login("cleo", device_token=token)
    await tenant.login("dan", user_agent=FIREFOX)

    (before,) = items(await tenant.see("/v1/members/ana/devices"))
    await tenant.call("DELETE", f"/v1/members/ben/devices/{ben['device']['id']}", role="supervisor")
    after = await tenant.device("ana", ana["device"]["id"], access="blocked")

    assert cleo["device"]["id"] != ana["device"]["id"]
    assert (before["used_by"], after["used_by"]) == (2, 1)
