"""A device without its cookie: when it may be one that was seen before, and when it may not."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from accessguard.devices.hints import screen
from accessguard.devices.kinship import Sighted, agreements, same_as
from accessguard.rules.model import Access
from tests.build import NOW, number
from tests.service import FIREFOX, Answer, Tenant, items

PHONE = (
    "Mozilla/5.0 (Linux; Android 10; K) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/142.0.0.0 Mobile Safari/537.36"
)
HINTS = {"Sec-CH-UA-Model": '"Pixel 8"', "Sec-CH-Viewport-Width": "412", "Sec-CH-DPR": "2.625"}


def sighted(value: int = 1, *, first: float, last: float, **more: Any) -> Sighted:
    """A phone at home, first and last seen so many hours before NOW."""
    given: dict[str, Any] = {
        "id": number(value),
        "access": Access.DEFAULT,
        "browser": "Chrome Mobile",
        "os": "Android",
        "device_class": "mobile",
        "model": "Pixel 8",
        "screen": "412@2.63",
        "first_seen_at": NOW - timedelta(hours=first),
        "last_seen_at": NOW - timedelta(hours=last),
        "places": frozenset({"203.0.113.9"}),
    }
    return Sighted(**given | more)


NEW = sighted(2, first=5, last=0)
OLD = sighted(1, first=900, last=9)


@pytest.mark.parametrize(
    ("other", "alike"),
    [
        pytest.param(OLD, True, id="everything agrees"),
        pytest.param(replace(OLD, browser="Chrome"), True, id="another form of the browser"),
        pytest.param(replace(OLD, screen=None), True, id="no word of the screen"),
        pytest.param(replace(OLD, places=OLD.places | {"198.51.100.7"}), True, id="elsewhere, too"),
        pytest.param(replace(OLD, browser="Firefox"), False, id="another browser"),
        pytest.param(replace(OLD, os="iOS"), False, id="another system"),
        pytest.param(replace(OLD, device_class="tablet"), False, id="another class"),
        pytest.param(replace(OLD, model="Pixel 9"), False, id="another model"),
        pytest.param(replace(OLD, screen="360@3"), False, id="another screen"),
        pytest.param(replace(OLD, places=frozenset({"198.51.100.7"})), False, id="another network"),
        pytest.param(sighted(1, first=900, last=1), False, id="in use meanwhile"),
        pytest.param(sighted(1, first=900, last=5 + 30 * 24 + 1), False, id="away for too long"),
        pytest.param(sighted(1, first=4, last=0), False, id="the later one"),
    ],
)
def test_a_device_is_taken_for_an_earlier_one_only_when_nothing_speaks_against_it(other: Sighted, alike: bool):
    """Family, system, class, model, screen, network and time must agree."""
    reasons = agreements(NEW, other)

    assert bool(reasons) is alike


def test_of_several_the_last_one_is_suggested_with_its_reasons():
    """In words that an operator can weigh."""
    earlier = sighted(3, first=1000, last=400)

    found = same_as(NEW, [earlier, OLD, NEW])

    assert found is not None
    assert found.id == OLD.id
    assert found.because == (
        "browser: Chrome",
        "system: Android",
        "class: mobile",
        "model: Pixel 8",
        "screen: 412@2.63",
        "network: seen at the same address",
        "time: first seen 4 h after the other was seen last",
    )


@pytest.mark.parametrize(
    ("hints", "handheld", "kept"),
    [
        (None, True, None),
        ({}, True, None),
        ({"Sec-CH-Viewport-Width": "412", "Sec-CH-DPR": "2.625"}, True, "412@2.62"),
        ({"Viewport-Width": "412", "DPR": "3.0"}, True, "412@3"),
        ({"Sec-CH-Viewport-Width": "1712", "Sec-CH-DPR": "1.5"}, False, "1.5"),
        ({"Sec-CH-Viewport-Width": "-1", "Sec-CH-DPR": "nan"}, True, None),
        ({"Sec-CH-Viewport-Width": "9" * 50, "Sec-CH-DPR": "1e9"}, True, None),
        ({"Sec-CH-Viewport-Width": "\u0664\u0661\u0662"}, True, None),
    ],
)
def test_little_is_kept_of_a_screen(hints: dict[str, str] | None, handheld: bool, kept: str | None):
    """A width where a window fills the screen, and the density; nothing of what is malformed."""
    assert screen(hints, handheld=handheld) == kept


async def test_a_list_of_devices_suggests_what_may_be_one(tenant: Tenant):
    """The phone that came back without its cookie, and not the laptop beside it; a merge ends the suggestion."""
    clock = tenant.service.clock
    old = await tenant.login(user_agent=PHONE, client_hints=HINTS)
    await tenant.login(user_agent=FIREFOX)
    clock.forward(3_600_000)
    try:
        new = await tenant.login(user_agent=PHONE, client_hints=HINTS)
        found = {row["id"]: row for row in items(await tenant.see("/v1/members/ana/devices"))}
        path = f"/v1/members/ana/devices/{new['device']['id']}/merge"
        await tenant.call("POST", path, {"into": old["device"]["id"]}, role="supervisor")
        after = list(items(await tenant.see("/v1/members/ana/devices")))
    finally:
        clock.forward(-3_600_000)

    suggested = {each: row["same_as"] for each, row in found.items() if row["same_as"]}
    assert suggested == {new["device"]["id"]: old["device"]["id"]}
    assert "screen: 412@2.62" in found[new["device"]["id"]]["same_as_because"]
    assert [row["same_as"] for row in after] == [None, None]


SWAPS = {"max": 1, "window_days": 30}


async def settle(tenant: Tenant, challenged: Answer, **freed: Any) -> Answer:
    """Settle the challenge of an answer."""
    path = f"/v1/challenges/{challenged['reason']['challenge_id']}"
    return await tenant.call("POST", path, {"outcome": "passed"} | freed)


async def test_a_student_says_that_this_is_the_old_device_and_gets_in(tenant: Tenant):
    """Once, within the budget: the old device has its place, the new cookie is the old device's, its session is replaced."""
    await tenant.rule("device_limit", "challenge", max=1, swaps=SWAPS)
    old = await tenant.login(user_agent=PHONE, client_hints=HINTS)
    new = await tenant.login(user_agent=PHONE, client_hints=HINTS)

    settled = await settle(tenant, new, merge_device_id=old["device"]["id"])
    again = await settle(tenant, new, merge_device_id=old["device"]["id"])
    next_time = await tenant.login(user_agent=PHONE, device_token=settled["device"]["token"])
    third = await tenant.login(user_agent=PHONE, client_hints=HINTS)

    (choice,) = new["reason"]["choices"]
    assert (new["decision"], choice["id"], choice["same"]) == ("challenge", old["device"]["id"], True)
    assert (settled["decision"], settled["device"]["id"], settled["device"]["new"]) == (
        "allow",
        old["device"]["id"],
        False,
    )
    assert settled["ended_sessions"] == [{"id": old["session"]["id"], "reason": "replaced"}]
    assert again.body == settled.body
    assert (next_time["decision"], next_time["device"]["id"]) == ("allow", old["device"]["id"])
    assert (third["decision"], third["reason"]["choices"][0]["same"]) == ("challenge", False)
    assert (await settle(tenant, third, merge_device_id=old["device"]["id"])).status == 409
    (line,) = items(await tenant.call("GET", "/v1/audit?action=device.merge", role="administrator"))
    assert (line["role"], line["target_id"]) == ("platform", new["device"]["id"])


@pytest.mark.parametrize("unlike", ["browser", "network", "allowed", "in use"])
async def test_a_student_cannot_say_so_of_a_device_that_does_not_agree(tenant: Tenant, unlike: str):
    """Neither of another browser or network, nor where an operator has spoken, nor of one that is in use."""
    clock, ago = tenant.service.clock, 3_600_000
    old = await tenant.login(user_agent=PHONE, client_hints=HINTS)
    other = await tenant.login(user_agent=FIREFOX, ip="192.0.2.77")
    await tenant.rule("device_limit", "challenge", max=1, swaps=SWAPS)
    asked: dict[str, Any] = {"user_agent": PHONE, "client_hints": HINTS}
    asked |= {"browser": {"user_agent": FIREFOX}, "network": {"ip": "198.51.100.7"}}.get(unlike, {})
    if unlike == "allowed":
        await tenant.device("ana", other["device"]["id"], access="default")
        await tenant.device("ana", old["device"]["id"], access="allowed")
    new = await tenant.login(**asked)
    if unlike == "in use":
        clock.forward(ago)
        await tenant.check(old, user_agent=PHONE, activity="lesson_open")
        await tenant.service.context.activity.flush()
        clock.forward(-ago)

    settled = await settle(tenant, new, merge_device_id=old["device"]["id"])

    assert (new["decision"], settled.status) == ("challenge", 409)
    assert unlike == "in use" or not any(choice["same"] for choice in new["reason"]["choices"])
    assert len(list(items(await tenant.see("/v1/members/ana/devices")))) == 3


async def test_a_session_that_is_challenged_goes_on_as_that_of_the_old_device(tenant: Tenant):
    """At a check, when the limit came later than the device."""
    old = await tenant.login(user_agent=PHONE, client_hints=HINTS)
    new = await tenant.login(user_agent=PHONE, client_hints=HINTS)
    await tenant.rule("device_limit", "challenge", max=1, swaps=SWAPS)
    put = await tenant.check(new, user_agent=PHONE)

    settled = await settle(tenant, put, merge_device_id=old["device"]["id"])
    after = await tenant.check(new, user_agent=PHONE)

    assert put["decision"] == "challenge"
    assert (settled.status, settled["decision"]) == (200, "allow")
    assert (after["decision"], after["device_id"]) == ("allow", old["device"]["id"])


async def test_a_device_merged_while_its_challenge_is_open_goes_on_as_the_other(tenant: Tenant):
    """An operator was faster than the student."""
    await tenant.rule("device_limit", "challenge", max=1)
    old = await tenant.login()
    new = await tenant.login()
    path = f"/v1/members/ana/devices/{new['device']['id']}/merge"
    await tenant.call("POST", path, {"into": old["device"]["id"]}, role="supervisor")

    settled = await settle(tenant, new)

    assert (settled["decision"], settled["device"]["id"], settled["device"]["new"]) == (
        "allow",
        old["device"]["id"],
        False,
    )
