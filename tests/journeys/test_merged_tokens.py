"""Cookies of devices that became one: they go on, rotate, and grow old as any other."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.service import Answer, Tenant, items

LATE_MS = 31_000
"""Past the grace of the token before."""


async def merged(tenant: Tenant) -> tuple[Answer, Answer]:
    """An old device and a new one, which became part of it."""
    old, new = await tenant.login(), await tenant.login()
    path = f"/v1/members/ana/devices/{new['device']['id']}/merge"
    assert (await tenant.call("POST", path, {"into": old["device"]["id"]}, role="supervisor")).status == 200
    tenant.service.clock.forward(LATE_MS)
    return old, new


async def shown(tenant: Tenant, login: Answer) -> Answer:
    """The login again, with the token of the one before."""
    return await tenant.login(device_token=login["device"]["token"])


async def used(tenant: Tenant, login: Answer) -> Answer:
    """A check that shows the login's token, and its way to PostgreSQL."""
    check = await tenant.check(login, device_token=login["device"]["token"])
    await tenant.service.context.checks._evaluation._shown.flush()
    return check


async def cases(tenant: Tenant) -> list[dict[str, Any]]:
    """The cases, the newest first."""
    return list(items(await tenant.see("/v1/violations")))


async def test_the_cookie_of_a_merged_device_rotates(tenant: Tenant):
    """Its browser goes on as the surviving device, with a new token each time, and nothing is found."""
    old, new = await merged(tenant)

    one = await shown(tenant, new)
    first = await used(tenant, one)
    two = await shown(tenant, one)
    second = await used(tenant, two)

    assert {one["device"]["id"], two["device"]["id"]} == {old["device"]["id"]}
    assert (first["decision"], second["decision"]) == ("allow", "allow")
    assert len({each["device"]["token"] for each in (old, new, one, two)}) == 4
    assert await cases(tenant) == []


async def test_a_copy_of_a_merged_devices_cookie_is_found(tenant: Tenant):
    """Its owner has gone on since: it is behind, and no device."""
    old, new = await merged(tenant)
    await used(tenant, await shown(tenant, new))
    tenant.service.clock.forward(LATE_MS)

    thief = await shown(tenant, new)

    assert thief["device"]["id"] != old["device"]["id"]
    (case,) = await cases(tenant)
    assert case["details"]["grade"] == "late_previous"


async def test_of_two_tabs_of_a_merged_device_either_goes_on(tenant: Tenant):
    """Both show its cookie; nobody knows whose answer arrives last."""
    _, new = await merged(tenant)

    one, two = await asyncio.gather(shown(tenant, new), shown(tenant, new))
    kept = [await tenant.check(each, device_token=each["device"]["token"]) for each in (one, two, one)]

    assert one["device"]["token"] == two["device"]["token"]
    assert [check["decision"] for check in kept] == ["allow", "allow", "allow"]
    assert await cases(tenant) == []


async def test_a_lost_answer_to_a_merged_device_heals(tenant: Tenant):
    """The browser shows its own cookie once more, at once and the next day."""
    old, new = await merged(tenant)
    ids = set()
    for _ in range(3):
        ids.add((await shown(tenant, new))["device"]["id"])
        tenant.service.clock.forward(LATE_MS)

    last = await shown(tenant, new)

    assert {*ids, last["device"]["id"]} == {old["device"]["id"]}
    assert (await used(tenant, await shown(tenant, last)))["decision"] == "allow"


async def test_the_cookie_of_the_survivor_goes_on_too(tenant: Tenant):
    """It was not lost after all: the profile that was merged came up first, and its answer was lost."""
    old, new = await merged(tenant)
    await shown(tenant, new)
    tenant.service.clock.forward(LATE_MS)

    back = await shown(tenant, old)

    assert back["device"]["id"] == old["device"]["id"]


async def test_a_twin_does_not_come_back_after_all_sessions_were_ended(tenant: Tenant):
    """Of two tabs at once one session is held back; an operator who ends all ends that as well."""
    before = await tenant.login()
    one, two = await asyncio.gather(shown(tenant, before), shown(tenant, before))
    await tenant.call("POST", "/v1/members/ana/sessions/end", role="supervisor")

    checks = [await tenant.check(each) for each in (one, two)]

    assert [check["decision"] for check in checks] == ["deny", "deny"]


async def test_a_twin_does_not_come_back_after_a_logout(tenant: Tenant):
    """Both were ended by name."""
    before = await tenant.login()
    one, two = await asyncio.gather(shown(tenant, before), shown(tenant, before))
    for each in (one, two):
        await tenant.call("POST", f"/v1/sessions/{each['session']['id']}/end", {"reason": "password_changed"})

    checks = [await tenant.check(each) for each in (one, two)]

    assert [check["decision"] for check in checks] == ["deny", "deny"]


async def test_one_that_was_ended_by_name_does_not_come_back(tenant: Tenant):
    """Though the other one is open, and it was replaced before."""
    before = await tenant.login()
    logins = await asyncio.gather(shown(tenant, before), shown(tenant, before))
    open_one = await tenant.see("/v1/members/ana/sessions")
    ids = {each["id"] for each in items(open_one) if each["status"] == "open"}
    (held,) = (each for each in logins if each["session"]["id"] not in ids)
    ended = await tenant.call("POST", f"/v1/sessions/{held['session']['id']}/end", {"reason": "password_changed"})

    check = await tenant.check(held)

    assert ended.status == 200
    assert check["decision"] == "deny"
    assert check["reason"]["end_reason"] == "password_changed"
