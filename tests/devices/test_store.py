"""Devices as operators read and change them, and what that does to the student."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.service import CHROME, FIREFOX, Tenant, items

PHONE = "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36"


async def devices(tenant: Tenant, member: str = "ana", query: str = "") -> list[dict[str, Any]]:
    """The devices of a member."""
    return list(items(await tenant.see(f"/v1/members/{member}/devices{query}")))


async def test_a_device_is_described_as_a_person_would(tenant: Tenant):
    """Browser, system, class and model; the address it was last seen at."""
    await tenant.login(user_agent=PHONE, client_hints={"Sec-CH-UA-Model": '"Pixel 8 Pro"'})

    (device,) = await devices(tenant)

    assert (device["label"], device["device_class"], device["model"]) == ("Chrome on Android", "mobile", "Pixel 8 Pro")
    assert (device["browser"], device["browser_version"], device["os"]) == ("Chrome Mobile", "142", "Android")
    assert (device["access"], device["last_ip"], device["active_sessions"]) == ("default", "203.0.113.9", 1)
    assert device["admitted_at"] == device["first_seen_at"] == device["last_seen_at"]


async def test_an_operators_word_is_kept_with_its_author_and_reason(tenant: Tenant):
    """And a name alone changes no access."""
    login = await tenant.login()
    device = login["device"]["id"]

    blocked = await tenant.device("ana", device, access="blocked", reason="sold")
    named = await tenant.device("ana", device, name="Old laptop")
    unnamed = await tenant.device("ana", device, name=None)

    assert (blocked["access"], blocked["access_reason"], blocked["access_by"]) == (
        "blocked",
        "sold",
        f"supervisor@{tenant.name}",
    )
    assert (named["name"], named["access"], named["access_at"]) == ("Old laptop", "blocked", blocked["access_at"])
    assert unnamed["name"] is None
    (stored,) = await devices(tenant)
    assert stored == unnamed.body


async def test_the_name_an_operator_gave_is_what_the_student_reads(tenant: Tenant):
    """In the choices of a refusal."""
    login = await tenant.login()
    await tenant.device("ana", login["device"]["id"], name="Living room")
    await tenant.rule("device_limit", "deny_new", max=1)

    refused = await tenant.login(user_agent=FIREFOX)

    assert [choice["label"] for choice in refused["reason"]["choices"]] == ["Living room"]


async def test_an_allowed_device_is_never_refused_and_takes_no_place(tenant: Tenant):
    """The limit is about the others."""
    await tenant.rule("device_limit", "deny_new", max=1)
    await tenant.login()
    refused = await tenant.login(user_agent=FIREFOX)
    await tenant.device("ana", refused["device"]["id"], access="allowed", reason="second home")

    allowed = await tenant.login(device_token=refused["device"]["token"], user_agent=FIREFOX)
    third = await tenant.login(user_agent=PHONE)
    await tenant.device("ana", refused["device"]["id"], access="default")
    after = await tenant.check(allowed, user_agent=FIREFOX)

    assert (refused["decision"], allowed["decision"], third["decision"]) == ("deny", "allow", "deny")
    assert (after["decision"], after["reason"]["code"]) == ("deny", "device_limit")


async def test_a_blocked_device_takes_no_place(tenant: Tenant):
    """Who blocks the stolen one lets in its successor."""
    await tenant.rule("device_limit", "deny_new", max=1)
    stolen = await tenant.login()
    await tenant.device("ana", stolen["device"]["id"], access="blocked")

    successor = await tenant.login(user_agent=FIREFOX)

    assert successor["decision"] == "allow"


async def test_a_forgotten_device_leaves_its_history_and_comes_back_as_another(tenant: Tenant):
    """Its sessions end, its logins stay, its cookie is worth nothing."""
    login = await tenant.login()
    device = login["device"]["id"]

    gone = await tenant.call("DELETE", f"/v1/members/ana/devices/{device}?reason=lost", role="supervisor")
    again = await tenant.login(device_token=login["device"]["token"])
    twice = await tenant.call("DELETE", f"/v1/members/ana/devices/{device}", role="supervisor")
    patched = await tenant.device("ana", device, access="blocked")

    assert (gone.status, twice.status, patched.status) == (204, 404, 404)
    assert (again["decision"], again["device"]["new"]) == ("allow", True)
    assert again["device"]["id"] != device
    logins = [line["device_id"] for line in items(await tenant.see("/v1/members/ana/logins"))]
    assert logins == [again["device"]["id"], device]
    assert [each["id"] for each in await devices(tenant)] == [again["device"]["id"]]


async def test_a_device_is_its_members_alone(tenant: Tenant):
    """Under another member's path it is not there, and is not changed."""
    login = await tenant.login("ana")
    await tenant.login("ben")
    device = login["device"]["id"]

    patched = await tenant.device("ben", device, access="blocked")
    deleted = await tenant.call("DELETE", f"/v1/members/ben/devices/{device}", role="supervisor")

    assert (patched.status, deleted.status) == (404, 404)
    assert (await tenant.check(login))["decision"] == "allow"


@pytest.mark.parametrize(
    "path",
    [
        "/v1/members/ana/devices/01a201b6-f039-7452-84f4-158fc4bf4db7",
        "/v1/members/ana/devices/1",
        "/v1/members/x/devices/1",
    ],
)
async def test_a_device_that_never_was_is_not_found(tenant: Tenant, path):
    """Nor is what cannot be one."""
    await tenant.login()

    answers = [
        await tenant.call("PATCH", path, {"access": "blocked"}, role="supervisor"),
        await tenant.call("DELETE", path, role="supervisor"),
    ]

    assert [answer.status for answer in answers] == [404, 404]


async def test_two_members_on_one_browser_have_each_their_own_device(tenant: Tenant):
    """The browser has one cookie, of whoever logged in last; both are recognised by it."""
    ana = await tenant.login("ana")
    ben = await tenant.login("ben", device_token=ana["device"]["token"])

    ana_again = await tenant.login("ana", device_token=ben["device"]["token"])
    ben_again = await tenant.login("ben", device_token=ana_again["device"]["token"])
    await tenant.device("ana", ana["device"]["id"], access="blocked")
    blocked = await tenant.login("ana", device_token=ben_again["device"]["token"])
    other = await tenant.check(ben_again)

    assert ben["device"]["id"] != ana["device"]["id"]
    assert (ana_again["device"]["id"], ana_again["device"]["new"]) == (ana["device"]["id"], False)
    assert (ben_again["device"]["id"], ben_again["device"]["new"]) == (ben["device"]["id"], False)
    assert (blocked["decision"], other["decision"]) == ("deny", "allow")
    assert [len(await devices(tenant, member)) for member in ("ana", "ben")] == [1, 1]


async def test_a_blocked_device_cannot_hide_behind_another_ones_session(tenant: Tenant):
    """A session that was carried over to a blocked browser is refused there, and goes on at home."""
    home, blocked = await tenant.login(), await tenant.login(user_agent=FIREFOX)
    await tenant.device("ana", blocked["device"]["id"], access="blocked")

    there = await tenant.check(home, device_token=blocked["device"]["token"])
    here = await tenant.check(home, device_token=home["device"]["token"])

    assert (there["decision"], there["reason"]["code"]) == ("deny", "device_blocked")
    assert here["decision"] == "allow"


async def test_a_new_token_at_each_login_leads_to_the_same_device(tenant: Tenant):
    """Tokens rotate; only a hash of the newest two is kept, and no token."""
    first = await tenant.login()
    second = await tenant.login(device_token=first["device"]["token"], user_agent=CHROME.format(143))

    row = await tenant.service.context.devices._db.row(
        "SELECT device::text AS stored, secret_hash, previous_hash FROM device WHERE tenant = $1", tenant.name
    )

    assert first["device"]["token"] != second["device"]["token"]
    assert first["device"]["id"] == second["device"]["id"]
    assert row is not None
    assert (len(row["secret_hash"]), len(row["previous_hash"])) == (32, 32)
    secrets = [login["device"]["token"].split(".")[3] for login in (first, second)]
    assert [secret for secret in secrets if secret in row["stored"]] == []


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_of_devices_hold_each_once(tenant: Tenant, order):
    """Also those that were seen at the same instant."""
    tenant.service.clock.stop()
    logins = await asyncio.gather(*(tenant.login(user_agent=CHROME.format(130 + each)) for each in range(8)))
    tenant.service.clock._stopped_ms = None
    seen: list[str] = []
    cursor, pages = "", 0
    while cursor or not pages:
        page = await tenant.see(f"/v1/members/ana/devices?limit=3&order={order}{cursor}")
        seen += [device["id"] for device in items(page)]
        cursor, pages = page["next_cursor"] and f"&cursor={page['next_cursor']}", pages + 1

    assert sorted(seen) == sorted(login["device"]["id"] for login in logins)
    assert pages == 3
