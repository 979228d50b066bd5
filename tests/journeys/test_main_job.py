"""The main job from end to end, by the HTTP contract alone: what issue by issue must never break again."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.service import CHROME, FIREFOX, Tenant, items


async def test_a_browser_is_recognised_by_its_cookie_whatever_its_version(tenant: Tenant):
    """A cookie makes the device; an update keeps it; another browser on the machine is a second device."""
    first = await tenant.login()

    updated = await tenant.login(device_token=first["device"]["token"], user_agent=CHROME.format(143))
    other = await tenant.login(user_agent=FIREFOX)

    assert first["decision"] == "allow"
    assert first["device"]["new"] is True
    assert first["device"]["cookie"]["header"] == (
        f"__Host-ag_device={first['device']['token']}; Path=/; Max-Age=34560000; Secure; HttpOnly; SameSite=Lax"
    )
    assert (updated["device"]["id"], updated["device"]["new"]) == (first["device"]["id"], False)
    assert (other["device"]["id"] != first["device"]["id"], other["device"]["new"]) == (True, True)
    assert len(list(items(await tenant.see("/v1/members/ana/devices")))) == 2


async def test_fifty_logins_at_one_instant_leave_one_session(tenant: Tenant):
    """With evict_oldest and one place, every session but one is told that the limit ended it."""
    await tenant.rule("session_limit", "evict_oldest", max=1)

    logins = await asyncio.gather(*(tenant.login() for _ in range(50)))
    checks = await asyncio.gather(*(tenant.check(login) for login in logins))

    assert {login["decision"] for login in logins} == {"allow"}
    assert Counter(check["decision"] for check in checks) == {"allow": 1, "deny": 49}
    reasons = [check["reason"] for check in checks if check["decision"] == "deny"]
    assert {(reason["code"], reason["end_reason"]) for reason in reasons} == {("session_ended", "session_limit")}


async def test_fifty_logins_at_one_instant_admit_one(tenant: Tenant):
    """With deny_new and one place, one is allowed, 49 are refused, and each attempt is recorded."""
    await tenant.rule("session_limit", "deny_new", max=1)

    logins = await asyncio.gather(*(tenant.login() for _ in range(50)))

    assert Counter(login["decision"] for login in logins) == {"allow": 1, "deny": 49}
    refused = [login for login in logins if login["decision"] == "deny"]
    assert {login["reason"]["code"] for login in refused} == {"session_limit"}
    assert all(login["session"] is None for login in refused)
    recorded = list(items(await tenant.see("/v1/members/ana/logins?limit=200")))
    assert Counter(line["decision"] for line in recorded) == {"allow": 1, "deny": 49}


async def test_a_refused_device_holds_no_slot(tenant: Tenant):
    """With two devices allowed, the third comes in as soon as one is forgotten."""
    await tenant.rule("device_limit", "deny_new", max=2)
    first, second = await tenant.login(), await tenant.login(user_agent=FIREFOX)

    refused = await tenant.login()
    gone = await tenant.call("DELETE", f"/v1/members/ana/devices/{first['device']['id']}", role="supervisor")
    admitted = await tenant.login(device_token=refused["device"]["token"])

    assert (refused["decision"], refused["reason"]["code"]) == ("deny", "device_limit")
    assert (refused["reason"]["limit"], refused["reason"]["counted"]) == (2, 3)
    assert {choice["id"] for choice in refused["reason"]["choices"]} == {
        first["device"]["id"],
        second["device"]["id"],
    }
    assert gone.status == 204
    assert (admitted["decision"], admitted["device"]["id"]) == ("allow", refused["device"]["id"])
    ended = await tenant.check(first)
    assert (ended["reason"]["code"], ended["reason"]["end_reason"]) == ("session_ended", "device_forgotten")
    assert (await tenant.check(second))["decision"] == "allow"


async def test_a_blocked_device_is_refused_at_its_next_check(tenant: Tenant):
    """A block bites inside the 30 s; lifted, the session goes on and its history is there."""
    login = await tenant.login()
    before = await tenant.check(login, activity="lesson_open")

    blocked = await tenant.device("ana", login["device"]["id"], access="blocked", reason="shared")
    during = await tenant.check(login, activity="lesson_open")
    again = await tenant.login(device_token=login["device"]["token"])
    await tenant.device("ana", login["device"]["id"], access="default")
    after = await tenant.check(login)

    assert before["decision"] == "allow"
    assert (blocked["access"], blocked["access_reason"]) == ("blocked", "shared")
    assert (during["decision"], during["reason"]["code"]) == ("deny", "device_blocked")
    assert (again["decision"], again["reason"]["code"]) == ("deny", "device_blocked")
    assert after["decision"] == "allow"
    sessions = list(items(await tenant.see("/v1/members/ana/sessions")))
    assert [session["last_activity_kind"] for session in sessions] == ["lesson_open"]
    assert len(list(items(await tenant.see("/v1/members/ana/logins")))) == 2


@pytest.mark.parametrize(
    ("network", "inside", "outside"),
    [
        pytest.param("203.0.113.9", "203.0.113.9", "203.0.113.10", id="address"),
        pytest.param("203.0.113.0/28", "203.0.113.15", "203.0.113.16", id="CIDR"),
        pytest.param("203.0.113.0/255.255.255.240", "203.0.113.15", "203.0.113.16", id="netmask"),
        pytest.param("203.0.113.5-203.0.113.20", "203.0.113.20", "203.0.113.21", id="dash range"),
        pytest.param("203.0.113.*", "203.0.113.255", "203.0.114.0", id="wildcard"),
        pytest.param("2001:db8:1::/48", "2001:db8:1:2::3", "2001:db8:2::1", id="IPv6"),
        pytest.param("203.0.113.9", "::ffff:203.0.113.9", "::ffff:203.0.113.8", id="mapped client"),
        pytest.param("::ffff:203.0.113.9", "203.0.113.9", "203.0.113.8", id="mapped rule"),
    ],
)
async def test_addresses_are_denied_and_allowed_in_every_form(tenant: Tenant, network, inside, outside):
    """Each form of a network matches what it names and nothing beside it, in both kinds of rule."""
    login = await tenant.login(ip="192.0.2.1")
    denied = await tenant.rule("ip_deny", networks=[network])
    decisions = [(await tenant.check(login, ip=ip))["decision"] for ip in (inside, outside)]
    await tenant.call("DELETE", f"/v1/rules/{denied['id']}", role="administrator")
    body = {"kind": "ip_allow_only", "mode": "enforce", "params": {"networks": [network]}, "confirm_lockout": True}
    await tenant.call("POST", "/v1/rules", body, role="administrator")

    opposite = [await tenant.check(login, ip=ip) for ip in (inside, outside)]

    assert decisions == ["deny", "allow"]
    assert [check["decision"] for check in opposite] == ["allow", "deny"]
    assert opposite[1]["reason"]["code"] == "ip_not_allowed"


async def test_a_list_that_locks_out_its_author_is_refused(tenant: Tenant):
    """The author's own address is tried against the rule first; a confirmation saves it all the same."""
    body = {"kind": "ip_allow_only", "mode": "enforce", "params": {"networks": ["203.0.113.0/24"]}}

    refused = await tenant.call("POST", "/v1/rules", body, role="administrator")
    rules = list(items(await tenant.call("GET", "/v1/rules", role="administrator")))
    confirmed = await tenant.call("POST", "/v1/rules", body | {"confirm_lockout": True}, role="administrator")

    assert refused.status == 409
    assert refused["errors"][0]["pointer"] == "/params/networks"
    assert rules == []
    assert confirmed.status == 201


async def test_checks_switched_off_for_a_member_disable_rules_but_not_a_block(tenant: Tenant):
    """An exempt member is let in and recorded; a device blocked by hand stays blocked."""
    await tenant.rule("session_limit", "deny_new", max=1)
    first = await tenant.login()
    await tenant.call("PATCH", "/v1/members/ana", {"checks_enabled": False, "reason": "exam"}, role="supervisor")

    second = await tenant.login(user_agent=FIREFOX)
    check = await tenant.check(second)
    await tenant.device("ana", second["device"]["id"], access="blocked")
    blocked = await tenant.check(second)

    assert (second["decision"], second["exempt"]) == ("allow", True)
    assert (check["decision"], check["exempt"]) == ("allow", True)
    assert (blocked["decision"], blocked["reason"]["code"]) == ("deny", "device_blocked")
    lines = list(items(await tenant.see("/v1/members/ana/logins")))
    assert [line["exempt"] for line in lines] == [True, False]
    assert (await tenant.check(first))["decision"] == "allow"
    card = await tenant.see("/v1/members/ana")
    assert (card["checks_enabled"], card["checks_reason"]) == (False, "exam")


async def test_a_client_that_polls_makes_one_violation(tenant: Tenant):
    """A thousand refusals are one case with its hits; a read mark is personal, changes nothing, and is undone."""
    login = await tenant.login()
    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])

    polls = [await tenant.check(login) for _ in range(1000)]
    (case,) = items(await tenant.see("/v1/violations"))
    marked = await tenant.call("POST", "/v1/violations/mark", {"ids": [case["id"]], "read": True}, role="supervisor")
    (read,) = items(await tenant.see("/v1/violations"))
    (others,) = items(await tenant.see("/v1/violations", subject="somebody else"))
    still = await tenant.check(login)
    (again,) = items(await tenant.see("/v1/violations"))

    assert {poll["reason"]["code"] for poll in polls} == {"ip_denied"}
    assert {poll["violation_id"] for poll in polls} == {case["id"]}
    assert (case["hits"], case["read"], case["code"]) == (1000, False, "ip_denied")
    assert marked["marked"] == 1
    assert (read["read"], read["read_by"]) == (True, [f"supervisor@{tenant.name}"])
    assert others["read"] is False
    assert still["decision"] == "deny"
    assert (again["hits"], again["read"]) == (1001, False)


async def test_the_session_that_was_just_used_is_not_the_longest_idle(tenant: Tenant):
    """With evict_idle, an interaction counts for the very next login, before it has reached PostgreSQL."""
    await tenant.rule("session_limit", "evict_idle", max=2)
    first, second = await tenant.login(), await tenant.login(user_agent=FIREFOX)
    await tenant.check(first, activity="video_watch")

    third = await tenant.login(user_agent=CHROME.format(140))

    assert third["ended_sessions"] == [{"id": second["session"]["id"], "reason": "session_limit"}]
    assert (await tenant.check(first))["decision"] == "allow"
