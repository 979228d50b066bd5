"""Whole requests whose address, user agent, hints or device token nobody honest would send: no 500, ever, nobody's identity."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz import examples
from tests.service import CHROME, FIREFOX, Answer, Service, Tenant, token

NUMBERS = itertools.count()
NASTY = st.sampled_from(
    ["\0", "\x7f", "\u202e", "\ud800", "\udfff", "\U0010ffff", "﷽", "'; --", "%00", "\r\n", "$1", "\\"]
)
JUNK = st.text(max_size=40) | st.lists(NASTY, max_size=4).map("".join)
HOSTS = st.ip_addresses().map(str)
IPS = (
    HOSTS
    | st.builds("{}:{}".format, HOSTS, st.integers(-1, 99_999))
    | st.builds("[{}%{}]:{}".format, HOSTS, JUNK, st.integers(0, 70_000))
    | st.lists(HOSTS | JUNK, max_size=4).map(", ".join)
    | st.text(alphabet="0123456789abcdef.:[]%/ ,x", max_size=300)
    | JUNK
)
USER_AGENTS = (
    st.none()
    | st.builds("{}{}{}".format, st.sampled_from([CHROME.format(142), FIREFOX, "curl/8", "MyApp/3.2 ("]), JUNK, JUNK)
    | st.text(alphabet="Mozilla/5.0 (;)AndroidiPhoneWindowsNT likeGecko", max_size=700)
    | st.text(max_size=700)
)
HINT_NAMES = st.sampled_from(
    ["Sec-CH-UA", "sec-ch-ua-model", "Sec-CH-UA-Mobile", "Sec-CH-UA-Platform", "SEC-CH-UA-PLATFORM-VERSION"]
)
HINTS = st.none() | st.dictionaries(
    HINT_NAMES | JUNK, st.text(alphabet='"\\;,=v?01. Windows', max_size=80) | JUNK, max_size=6
)
EDITS = st.lists(st.tuples(st.integers(0, 400), st.sampled_from(["", ".", "=", "A", "\0", "-", "é"])), max_size=4)


class Ground:
    """A tenant in which one member has a session, and a device that others would like to be."""

    def __init__(self, tenant: Tenant, login: Answer) -> None:
        self.tenant = tenant
        self.session_id: str = login["session"]["id"]
        self.device_id: str = login["device"]["id"]
        self.device_token: str = login["device"]["token"]
        self._bearer = {"Authorization": f"Bearer {token(tenant.name, 'platform')}", "Content-Type": "application/json"}

    def forged(self, edits: list[tuple[int, str]]) -> str:
        """The device's token with some of its characters replaced."""
        characters = list(self.device_token)
        for place, other in edits:
            characters[place % len(characters)] = other
        return "".join(characters)

    async def ask(self, path: str, body: dict[str, Any]) -> Answer:
        """Send it by the fast lane, surrogates and all."""
        service = self.tenant.service
        raw = json.dumps(body).encode()
        async with service.http.post(service.url + path, data=raw, headers=self._bearer) as response:
            return Answer(response.status, await response.json(content_type=None))


@pytest.fixture(scope="module")
async def ground(service: Service) -> Ground:
    """Rules that look at everything a request says of itself."""
    tenant = service.tenant()
    login = await tenant.login()
    await tenant.rule("ip_deny", mode="observe", networks=["203.0.113.0/24"])
    await tenant.rule("network_limit", mode="observe", max=50, window_s=3600, unit="ip")
    await tenant.rule("copied_session", mode="observe", signal="both")
    await tenant.rule("country_deny", mode="observe", countries=["IT"])
    return Ground(tenant, login)


@examples(120, 20_000)
@given(IPS, USER_AGENTS, EDITS | JUNK, st.booleans())
async def test_no_check_ends_with_a_500(ground: Ground, ip, user_agent, forged, explain):
    """Answered or refused as malformed; the session is nobody else's."""
    shown = forged if isinstance(forged, str) else ground.forged(forged)
    body = {
        "session_id": ground.session_id,
        "ip": ip,
        "user_agent": user_agent,
        "device_token": shown,
        "explain": explain,
        "activity": "lesson_open" if explain else None,
    }

    answer = await ground.ask("/v1/check", body)

    assert answer.status in {200, 400}, answer.body
    assert answer.status == 400 or answer["member_id"] == "ana"
    assert answer.status == 400 or answer["device_id"] == ground.device_id


@examples(120, 20_000)
@given(IPS, USER_AGENTS, HINTS, EDITS | JUNK)
async def test_no_login_ends_with_a_500_nor_with_the_device_of_another(ground: Ground, ip, user_agent, hints, forged):
    """Answered or refused as malformed; not even a genuine token gives its device to another member."""
    shown = forged if isinstance(forged, str) else ground.forged(forged)
    number = next(NUMBERS)
    body = {
        "member_id": f"stranger-{number}",
        "outcome": "success" if number % 4 else "failure",
        "ip": ip,
        "user_agent": user_agent,
        "client_hints": hints,
        "device_token": shown,
    }

    answer = await ground.ask("/v1/logins", body)

    assert answer.status in {200, 400}, answer.body
    device = answer.body.get("device")
    assert device is None or device["id"] != ground.device_id
