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
from tests.service import FIREFOX, Tenant, items

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
