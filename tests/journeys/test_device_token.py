"""A device token over time: rotated, lost on its way, copied, old, shown by many at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import cycle
from typing import Any

import pytest

from tests.service import CHROME, FIREFOX, Answer, Service, Tenant, items, running

LATE_MS = 31_000
"""Past the grace of the token before."""
DEVICES = "SELECT id, secret_hash FROM device WHERE tenant = $1"
OPEN = "SELECT id FROM session WHERE tenant = $1 AND ended_at IS NULL"


@pytest.fixture(scope="module")
async def second(service: Service, database_url: str, redis_url: str) -> AsyncIterator[Service]:
    """Another worker on the same stores."""
    async with running(database_url, redis_url) as worker:
        yield worker


async def rows(tenant: Tenant, query: str) -> list[Any]:
    """What PostgreSQL has of the tenant."""
    return list(await tenant.service.context.sessions._db.fetch(query, tenant.name))


async def cases(tenant: Tenant) -> list[dict[str, Any]]:
    """The cases, the newest first."""
    return list(items(await tenant.see("/v1/violations")))


async def used(tenant: Tenant, login: Answer) -> Answer:
    """A check that shows the login's token, and its way to PostgreSQL."""
    check = await tenant.check(login, device_token=login["device"]["token"])
    await tenant.service.context.checks._evaluation._shown.flush()
    return check


async def test_two_hundred_first_logins_of_one_browser_are_one_device(tenant: Tenant, second: Service):
    """On two workers; every answer has the one token that counts, so that whichever arrives last, it works."""
    workers = cycle((tenant, Tenant(second, tenant.name)))

    logins = await asyncio.gather(*(next(workers).login() for _ in range(200)))

    assert {login.status for login in logins} == {200}
    assert {login["decision"] for login in logins} == {"allow"}
    assert not any(login["degraded"] for login in logins)
    assert len({login["device"]["id"] for login in logins}) == 1
    assert len({login["device"]["cookie"]["header"] for login in logins}) == 1
    assert [login["device"]["new"] for login in logins].count(True) == 1
    assert len(await rows(tenant, DEVICES)) == 1
    assert len(await rows(tenant, OPEN)) == 1
    again = await tenant.login(device_token=logins[0]["device"]["token"])
    assert (again["device"]["id"], again["device"]["new"]) == (logins[0]["device"]["id"], False)
    assert await cases(tenant) == []


async def test_first_logins_one_after_the_other_are_devices_of_their_own(tenant: Tenant):
    """A private window sends no cookie: it is another device, whatever else it has in common."""
    first, second = await tenant.login(), await tenant.login()

    assert first["device"]["id"] != second["device"]["id"]
    assert second["device"]["new"] is True


@pytest.mark.parametrize(
    "other",
    [
        pytest.param({"member": "ben"}, id="member"),
        pytest.param({"user_agent": FIREFOX}, id="browser"),
        pytest.param({"user_agent": CHROME.format(99)}, id="version"),
        pytest.param({"ip": "198.51.100.7"}, id="address"),
    ],
)
async def test_first_logins_at_once_that_differ_are_devices_of_their_own(tenant: Tenant, other):
    """Member, user agent and address have to be the same."""
    logins = await asyncio.gather(tenant.login(), tenant.login(**other))

    assert len({login["device"]["id"] for login in logins}) == 2


async def test_of_two_tabs_whichever_session_the_browser_kept_goes_on(tenant: Tenant):
    """Both log in with the same cookie; nobody knows whose answer arrives last, and nobody is logged out."""
    before = await tenant.login()
    shown = {"device_token": before["device"]["token"]}

    one, two = await asyncio.gather(tenant.login(**shown), tenant.login(**shown))
    kept = [await tenant.check(each, device_token=each["device"]["token"]) for each in (one, two, one)]

    assert one["device"]["token"] == two["device"]["token"]
    assert [check["decision"] for check in kept] == ["allow", "allow", "allow"]
    assert len(await rows(tenant, OPEN)) == 1
    assert await cases(tenant) == []


async def test_of_two_tabs_without_a_cookie_both_sessions_go_on(tenant: Tenant):
    """Whichever the browser kept; where a rule limits sessions, it counts both."""
    await tenant.rule("session_limit", "evict_oldest", max=2)
    one, two = await asyncio.gather(tenant.login(), tenant.login())

    kept = [await tenant.check(each, device_token=each["device"]["token"]) for each in (one, two, one)]

    assert [check["decision"] for check in kept] == ["allow", "allow", "allow"]
    assert one["ended_sessions"] == two["ended_sessions"] == []


async def test_two_that_go_on_with_the_sessions_of_two_tabs_are_told_apart_after_half_a_minute(tenant: Tenant):
    """From then on the one that was used last is the only one."""
    before = await tenant.login()
    shown = {"device_token": before["device"]["token"]}
    one, two = await asyncio.gather(tenant.login(**shown), tenant.login(**shown))
    await tenant.check(one)
    tenant.service.clock.forward(LATE_MS)

    over, open_still = await tenant.check(two), await tenant.check(one)

    assert (over["decision"], over["reason"]["code"]) == ("deny", "session_ended")
    assert open_still["decision"] == "allow"


async def test_a_login_after_the_answer_replaces_the_session_for_good(tenant: Tenant):
    """It shows the present token, so it knows of the session before."""
    first = await tenant.login()
    second = await tenant.login(device_token=first["device"]["token"])

    over = await tenant.check(first)

    assert over["reason"]["code"] == "session_ended"
    assert second["ended_sessions"] == [{"id": first["session"]["id"], "reason": "replaced"}]
    assert (await tenant.check(second))["decision"] == "allow"


@pytest.mark.parametrize("later_ms", [0, LATE_MS])
async def test_a_lost_answer_heals(tenant: Tenant, later_ms):
    """The browser goes on showing the token before, twice in a row, at once or the next day, and keeps its device."""
    shown = (await tenant.login())["device"]
    ids = set()
    for _ in range(3):
        tenant.service.clock.forward(later_ms)
        ids.add((await tenant.login(device_token=shown["token"]))["device"]["id"])

    assert ids == {shown["id"]}
    assert [case["details"]["grade"] for case in await cases(tenant)] == ([] if later_ms == 0 else ["late_previous"])


@pytest.mark.parametrize(
    ("behind", "grade"),
    [
        pytest.param(1, "late_previous", id="one behind"),
        pytest.param(2, "displaced", id="two behind"),
        pytest.param(7, "displaced", id="the last that is remembered"),
        pytest.param(8, "stale", id="forgotten"),
    ],
)
async def test_a_copied_token_is_found_and_gets_no_device(tenant: Tenant, behind, grade):
    """Its owner has gone on since; the copy is another device, and a case that no rule had to ask for."""
    logins = [await tenant.login()]
    for _ in range(behind):
        logins.append(await tenant.login(device_token=logins[-1]["device"]["token"]))
    await used(tenant, logins[-1])
    tenant.service.clock.forward(LATE_MS)

    thief = await tenant.login(device_token=logins[0]["device"]["token"], ip="198.51.100.7")

    assert thief["device"]["id"] != logins[0]["device"]["id"]
    assert thief["device"]["new"] is True
    (case,) = await cases(tenant)
    assert (case["code"], case["effect"], case["rule_id"]) == ("copied_session", "logged", None)
    assert case["details"]["grade"] == grade
    assert thief["violations"] == [case["id"]]
    assert (await used(tenant, logins[-1]))["decision"] == "allow"


async def test_a_token_of_a_forgotten_device_is_stale(tenant: Tenant):
    """It makes a new device."""
    login = await tenant.login()
    await tenant.call("DELETE", f"/v1/members/ana/devices/{login['device']['id']}", role="supervisor")

    again = await tenant.login(device_token=login["device"]["token"])

    assert again["device"]["new"] is True
    assert [case["details"]["grade"] for case in await cases(tenant)] == ["stale"]


@pytest.mark.parametrize(
    ("action", "decision", "effect"), [("end_session", "deny", "ended"), ("log", "allow", "logged")]
)
async def test_a_session_whose_checks_show_an_old_token_is_a_case(tenant: Tenant, action, decision, effect):
    """With a rule of copied_session it is the rule's, which may end it; the explanation says how old the token is."""
    rule = await tenant.rule("copied_session", action, signal="browser")
    first = await tenant.login()
    second = await tenant.login(device_token=first["device"]["token"])
    third = await tenant.login(device_token=second["device"]["token"])

    check = await tenant.check(third, device_token=first["device"]["token"], explain=True)

    assert check["decision"] == decision
    assert [step["grade"] for step in check["trace"]] == ["displaced"]
    (case,) = await cases(tenant)
    assert (case["rule_id"], case["effect"], case["details"]["grade"]) == (rule["id"], effect, "displaced")


async def test_a_session_whose_new_token_was_lost_is_never_ended_for_it(tenant: Tenant):
    """The platform kept the session and dropped the cookie: a rule that ends copied sessions leaves it alone."""
    await tenant.rule("copied_session", "end_session", signal="browser")
    first = await tenant.login()
    second = await tenant.login(device_token=first["device"]["token"])
    tenant.service.clock.forward(LATE_MS)

    check = await tenant.check(second, device_token=first["device"]["token"], explain=True)

    assert check["decision"] == "allow"
    (case,) = await cases(tenant)
    assert (case["effect"], case["rule_id"], case["details"]["grade"]) == ("logged", None, "late_previous")


async def test_a_token_in_its_grace_is_looked_at_again_when_that_is_over(tenant: Tenant):
    """However steadily the session is used."""
    first = await tenant.login()
    second = await tenant.login(device_token=first["device"]["token"])
    early = await tenant.check(second, device_token=first["device"]["token"])
    none_yet = await cases(tenant)
    tenant.service.clock.forward(2 * LATE_MS)

    late = await tenant.check(second, device_token=first["device"]["token"])

    assert (early["decision"], none_yet, late["decision"]) == ("allow", [], "allow")
    assert [case["details"]["grade"] for case in await cases(tenant)] == ["late_previous"]


async def test_a_cookie_in_another_browser_is_found_without_any_rule(tenant: Tenant):
    """At the login and at the check; the device keeps the name of its own browser."""
    login = await tenant.login()

    check = await tenant.check(login, user_agent=FIREFOX)
    there = await tenant.login(device_token=login["device"]["token"], user_agent=FIREFOX)

    assert (check["decision"], there["decision"], there["device"]["id"]) == ("allow", "allow", login["device"]["id"])
    seen = [
        (case["rule_id"], case["effect"], case["details"]["before"], case["details"]["seen"])
        for case in await cases(tenant)
    ]
    assert seen == [(None, "logged", "Chrome on Windows", "Firefox on Windows")] * 2


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"user_agent": CHROME.format(180)}, id="browser update"),
        pytest.param({"ip": "2001:db8::7"}, id="other network"),
    ],
)
async def test_an_update_and_another_network_are_nothing(tenant: Tenant, change):
    """Same device, no case, at logins and at checks."""
    login = await tenant.login()

    check = await tenant.check(login, device_token=login["device"]["token"], **change)
    again = await tenant.login(device_token=login["device"]["token"], **change)

    assert (check["decision"], again["device"]["id"]) == ("allow", login["device"]["id"])
    assert await cases(tenant) == []


async def test_what_is_found_without_a_rule_can_be_switched_off(tenant: Tenant):
    """By the setting `copies`."""
    await tenant.call("PUT", "/v1/settings", {"copies": "off"}, role="administrator")
    login = await tenant.login()

    await tenant.check(login, user_agent=FIREFOX)

    assert await cases(tenant) == []


async def test_a_member_without_checks_is_recorded_as_exempt(tenant: Tenant):
    """As with any rule."""
    login = await tenant.login()
    await tenant.call("PATCH", "/v1/members/ana", {"checks_enabled": False, "reason": "exam"}, role="supervisor")

    check = await tenant.check(login, user_agent=FIREFOX)

    assert check["decision"] == "allow"
    assert [case["effect"] for case in await cases(tenant)] == ["exempt"]


async def test_a_retry_of_one_of_many_at_once_gets_the_same_token(tenant: Tenant):
    """Also when it was given the token of another login."""
    asked = [{"attempt_id": f"0190d3f0-0000-7000-8000-00000000000{each}"} for each in range(6)]
    logins = await asyncio.gather(*(tenant.login(**each) for each in asked))

    again = [await tenant.login(**each) for each in asked]

    assert len({login["device"]["token"] for login in (*logins, *again)}) == 1


async def test_a_partitioned_cookie_is_a_setting(tenant: Tenant):
    """For a player embedded on other sites."""
    cookie = {"prefix": "__Host-", "same_site": "None", "partitioned": True}
    saved = await tenant.call("PUT", "/v1/settings", {"cookie": cookie}, role="administrator")

    login = await tenant.login()

    assert saved["cookie"]["partitioned"] is True
    assert login["device"]["cookie"]["header"].endswith("; Secure; HttpOnly; SameSite=None; Partitioned")
