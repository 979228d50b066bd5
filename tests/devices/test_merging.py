"""Two devices that are one: what a merge moves, folds, refuses, and what races with it."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from accessguard.sessions.bars import bars, of_device, of_session
from tests.service import CHROME, FIREFOX, Answer, Service, Tenant, items

DAY_MS = 86_400_000


async def merge(tenant: Tenant, one: str, into: str, member: str = "ana", **more: Any) -> Answer:
    """A supervisor says that the one is the other."""
    path = f"/v1/members/{member}/devices/{one}/merge"
    return await tenant.call("POST", path, {"into": into} | more, role="supervisor")


async def listed(tenant: Tenant, what: str, member: str = "ana") -> list[dict[str, Any]]:
    """What a supervisor sees of a member."""
    return list(items(await tenant.see(f"/v1/members/{member}/{what}")))


def device_of(login: Answer) -> str:
    """The id of the device that logged in."""
    return str(login["device"]["id"])


async def test_everything_of_the_one_is_the_others_and_nothing_is_lost(tenant: Tenant):
    """Sessions, logins, violations and times; both logins stay in the access log."""
    await tenant.rule("device_limit", "log", max=1)
    old, new = await tenant.login(), await tenant.login()

    one = await merge(tenant, device_of(new), device_of(old), reason="lost its cookie")

    (device,) = await listed(tenant, "devices")
    assert one.status == 200
    assert device == one.body
    assert (device["id"], device["merged_ids"], device["active_sessions"]) == (device_of(old), [device_of(new)], 2)
    assert device["last_seen_at"] > device["first_seen_at"] == device["admitted_at"]
    for what, many in (("logins", 2), ("sessions", 2), ("violations", 1)):
        assert [row["device_id"] for row in await listed(tenant, what)] == [device_of(old)] * many, what


async def test_whichever_cookie_the_browser_shows_it_is_the_same_device(tenant: Tenant):
    """The merged device's cookie brings the survivor's; its id stands for it, too."""
    old, new = await tenant.login(), await tenant.login()
    await merge(tenant, device_of(new), device_of(old))

    by_merged = await tenant.login(device_token=new["device"]["token"])
    by_survivor = await tenant.login(device_token=by_merged["device"]["token"])
    named = await tenant.device("ana", device_of(new), name="Laptop")

    assert [device_of(each) for each in (by_merged, by_survivor)] == [device_of(old)] * 2
    assert [each["device"]["new"] for each in (by_merged, by_survivor)] == [False, False]
    assert (named["id"], named["name"]) == (device_of(old), "Laptop")
    assert len(await listed(tenant, "devices")) == 1


async def test_devices_merged_one_after_the_other_are_all_the_last_one(tenant: Tenant):
    """A chain is never followed further than one step."""
    first, second, third = [await tenant.login() for _ in range(3)]
    await merge(tenant, device_of(first), device_of(second))
    last = await merge(tenant, device_of(second), device_of(third))

    again = await tenant.login(device_token=first["device"]["token"])

    assert sorted(last["merged_ids"]) == sorted([device_of(first), device_of(second)])
    assert device_of(again) == device_of(third)


@pytest.mark.parametrize("blocked", ["merged", "survivor"])
async def test_a_block_is_told_of_every_id_and_session_that_a_merge_brings_under_it(
    tenant: Tenant, service: Service, blocked: str
):
    """Also to those who cannot ask PostgreSQL; so is the end of the block."""
    old, new = await tenant.login(), await tenant.login()
    lines = [of_device(tenant.name, device_of(each)) for each in (old, new)]
    lines += [of_session(tenant.name, each["session"]["id"]) for each in (old, new)]
    barred = service.context.checks.memory.barred
    await tenant.device("ana", device_of(new if blocked == "merged" else old), access="blocked", reason="stolen")

    await merge(tenant, device_of(new), device_of(old))
    during = [bars(barred.mark(each)) for each in lines]
    await tenant.device("ana", device_of(old), access="default")

    assert during == [True] * 4
    assert [bars(barred.mark(each)) for each in lines] == [False] * 4


@pytest.mark.parametrize("blocked", ["merged", "survivor"])
async def test_a_merge_never_lets_a_blocked_device_in(tenant: Tenant, blocked: str):
    """A block of either holds for both cookies and for the sessions of both."""
    old, new = await tenant.login(), await tenant.login()
    await tenant.device("ana", device_of(new), access="allowed", reason="hers")
    await tenant.device("ana", device_of(new if blocked == "merged" else old), access="blocked", reason="stolen")
    if blocked == "survivor":
        assert (await tenant.check(new))["decision"] == "allow"

    one = await merge(tenant, device_of(new), device_of(old))

    assert (one["access"], one["access_reason"]) == ("blocked", "stolen")
    for each in (old, new):
        assert (await tenant.check(each))["reason"]["code"] == "device_blocked"
        refused = await tenant.login(device_token=each["device"]["token"])
        assert (refused["decision"], refused["reason"]["code"]) == ("deny", "device_blocked")


async def test_a_blocked_devices_cookie_is_refused_in_anothers_session(tenant: Tenant):
    """The cookie of what was merged into a blocked device is a blocked one at a check, too."""
    old, new, other = await tenant.login(), await tenant.login(), await tenant.login(user_agent=FIREFOX)
    await merge(tenant, device_of(new), device_of(old))
    await tenant.device("ana", device_of(old), access="blocked")

    shown = await tenant.check(other, user_agent=FIREFOX, device_token=new["device"]["token"])

    assert (shown["decision"], shown["reason"]["code"]) == ("deny", "device_blocked")


async def test_allowed_wins_over_nothing_said(tenant: Tenant):
    """What an operator vouched for stays vouched for."""
    old, new = await tenant.login(), await tenant.login()
    await tenant.device("ana", device_of(new), access="allowed", reason="second home")

    one = await merge(tenant, device_of(new), device_of(old))

    assert (one["access"], one["access_reason"]) == ("allowed", "second home")


async def test_a_merge_frees_a_place_and_is_one_new_device(tenant: Tenant):
    """Of the device limit and of churn alike; the earlier place is kept."""
    await tenant.rule("device_limit", "deny_new", max=2)
    await tenant.rule("device_churn", "deny_new", max_new=2, window_days=30)
    old, new = await tenant.login(), await tenant.login()
    refused = await tenant.login(user_agent=FIREFOX)

    one = await merge(tenant, device_of(new), device_of(old))
    third = await tenant.login(user_agent=FIREFOX, device_token=refused["device"]["token"])

    assert (refused["decision"], third["decision"]) == ("deny", "allow")
    assert one["admitted_at"] == one["first_seen_at"]


async def test_a_merge_says_what_it_did_and_says_it_once(tenant: Tenant):
    """The audit log has both as they were, and what they are; asked again, nothing happens."""
    old, new = await tenant.login(), await tenant.login()

    first = await merge(tenant, device_of(new), device_of(old), reason="cookie lost")
    again = await merge(tenant, device_of(new), device_of(old))
    back = await merge(tenant, device_of(old), device_of(new))

    (line,) = items(await tenant.call("GET", "/v1/audit?action=device.merge", role="administrator"))
    assert first.body == again.body == back.body
    assert (line["target_id"], line["reason"]) == (device_of(new), "cookie lost")
    assert line["before"]["device"]["id"] == device_of(new)
    assert line["before"]["into"]["merged_ids"] == []
    assert line["after"]["into"]["merged_ids"] == [device_of(new)]


async def test_what_cannot_be_merged_is_refused(tenant: Tenant):
    """Itself, an unknown one, a forgotten one, somebody else's, a part of a third one; and roles that may not."""
    one, two, three = [await tenant.login() for _ in range(3)]
    gone, foreign = await tenant.login(), await tenant.login("bob")
    await tenant.call("DELETE", f"/v1/members/ana/devices/{device_of(gone)}", role="supervisor")
    await merge(tenant, device_of(one), device_of(two))

    answers = {
        "itself": await merge(tenant, device_of(two), device_of(two)),
        "unknown": await merge(tenant, str(uuid4()), device_of(two)),
        "into unknown": await merge(tenant, device_of(two), str(uuid4())),
        "forgotten": await merge(tenant, device_of(gone), device_of(two)),
        "into forgotten": await merge(tenant, device_of(two), device_of(gone)),
        "foreign": await merge(tenant, device_of(foreign), device_of(two)),
        "into foreign": await merge(tenant, device_of(two), device_of(foreign)),
        "unknown member": await merge(tenant, device_of(two), device_of(three), "eve"),
        "of a third": await merge(tenant, device_of(one), device_of(three)),
    }

    assert {name: answer.status for name, answer in answers.items()} == {
        "itself": 400,
        "unknown": 404,
        "into unknown": 404,
        "forgotten": 404,
        "into forgotten": 404,
        "foreign": 404,
        "into foreign": 404,
        "unknown member": 404,
        "of a third": 409,
    }
    path = f"/v1/members/ana/devices/{device_of(two)}/merge"
    for role in ("platform", "attendant"):
        assert (await tenant.call("POST", path, {"into": device_of(three)}, role=role)).status == 403


async def test_merges_and_logins_at_once_leave_one_device(tenant: Tenant):
    """Whoever comes second finds what the first one left: no login makes a device anew, no merge is half done."""
    logins = [await tenant.login() for _ in range(4)]
    into = device_of(logins[0])

    answers = await asyncio.gather(
        *(merge(tenant, device_of(each), into) for each in logins[1:] * 2),
        *(tenant.login(device_token=each["device"]["token"]) for each in logins * 3),
    )

    assert {answer.status for answer in answers} == {200}
    (device,) = await listed(tenant, "devices")
    assert device["id"] == into
    assert len(device["merged_ids"]) == 3
    assert {row["device_id"] for row in await listed(tenant, "sessions")} == {into}
    assert {row["device_id"] for row in await listed(tenant, "logins")} == {into}


async def test_two_merges_of_one_device_leave_it_in_one_place(tenant: Tenant):
    """The second one is told that it came too late; a merge to and fro makes one device."""
    one, two, three = [await tenant.login() for _ in range(3)]

    apart = await asyncio.gather(
        merge(tenant, device_of(one), device_of(two)), merge(tenant, device_of(one), device_of(three))
    )
    crossed = await asyncio.gather(
        merge(tenant, device_of(two), device_of(three)), merge(tenant, device_of(three), device_of(two))
    )

    assert sorted(answer.status for answer in apart) == [200, 409]
    assert [answer.status for answer in crossed] == [200, 200]
    assert crossed[0]["id"] == crossed[1]["id"]
    assert len(await listed(tenant, "devices")) == 1


async def test_a_browser_that_serves_two_members_goes_on_serving_both(tenant: Tenant):
    """After a merge of the one's devices, the other is still recognised by the one's new cookie."""
    hers, fresh = await tenant.login(), await tenant.login()
    his = await tenant.login("bob", device_token=hers["device"]["token"])
    await merge(tenant, device_of(hers), device_of(fresh))

    back = await tenant.login(device_token=his["device"]["token"])
    again = await tenant.login("bob", device_token=back["device"]["token"])

    assert (device_of(back), device_of(again)) == (device_of(fresh), device_of(his))
    assert (await listed(tenant, "devices"))[0]["used_by"] == 1


async def test_a_case_of_the_one_goes_on_as_the_others(tenant: Tenant):
    """Of two open cases of one rule one goes on, and both stay in the log."""
    await tenant.rule("session_limit", "log", max=1)
    await tenant.login(user_agent=FIREFOX)
    old, new = await tenant.login(), await tenant.login()
    before = {row["id"] for row in await listed(tenant, "violations")}
    await merge(tenant, device_of(new), device_of(old))

    await tenant.login(device_token=old["device"]["token"])

    after = {row["id"]: row["hits"] for row in await listed(tenant, "violations")}
    assert set(after) == before
    assert sum(after.values()) == len(before) + 1


async def test_a_forgotten_survivor_takes_the_merged_cookies_with_it(tenant: Tenant):
    """Its cookies are those of no device then."""
    old, new = await tenant.login(), await tenant.login()
    await merge(tenant, device_of(new), device_of(old))

    gone = await tenant.call("DELETE", f"/v1/members/ana/devices/{device_of(new)}", role="supervisor")
    again = await tenant.login(device_token=new["device"]["token"])

    assert gone.status == 204
    assert again["device"]["new"]
    assert device_of(again) not in (device_of(old), device_of(new))


async def test_a_browser_without_cookies_does_not_burn_places_for_ever(tenant: Tenant):
    """A device that is not used leaves the window, day by day; a used one keeps its place."""
    clock = tenant.service.clock
    await tenant.rule("device_limit", "deny_new", max=2, window_days=10)
    used = await tenant.login(user_agent=FIREFOX)
    forgetful = await tenant.login()
    decisions = []

    try:
        for _ in range(11):
            clock.forward(DAY_MS)
            used = await tenant.login(user_agent=FIREFOX, device_token=used["device"]["token"])
            decisions.append((used["decision"], (await tenant.login(user_agent=CHROME.format(142)))["decision"]))
    finally:
        clock.forward(-11 * DAY_MS)

    assert [first for first, _ in decisions] == ["allow"] * 11
    assert [second for _, second in decisions] == ["deny"] * 9 + ["allow"] + ["deny"]
    assert forgetful["decision"] == "allow"
