"""What browsers, caches and proxies on the way are not to be talked into."""

from __future__ import annotations

from itertools import combinations

import pytest

from accessguard.api.routes import ROUTES
from accessguard.sessions.live import key
from tests.service import Service, Tenant, token

EVIL = "evil.example"
POISON = {
    "Host": EVIL,
    "X-Forwarded-Host": EVIL,
    "X-Host": EVIL,
    "X-Original-URL": f"//{EVIL}/",
    "Forwarded": f"host={EVIL};proto=https",
    "X-Forwarded-Proto": "https",
}


def plain_reads() -> list[str]:
    """Every path that is read and names nothing."""
    return [
        route.path for route in ROUTES if route.method == "GET" and "{" not in route.path and route.path != "/v1/stream"
    ]


@pytest.mark.parametrize(
    "path",
    [*plain_reads(), "/healthz", "/readyz", "/docs", "/openapi.json", "/console/", "/console/sign-in", "/nothing"],
)
async def test_no_answer_is_kept_on_the_way_or_leads_to_where_its_caller_said_it_is(
    service: Service, tenant: Tenant, path
):
    """`no-store` for whatever speaks of people, and the host of a request in no answer, let in or not."""
    await tenant.login()
    shown = {"Authorization": f"Bearer {token(tenant.name, 'administrator', 'web')}", "Accept": "text/html,*/*"}
    for headers in (POISON, POISON | shown):
        async with service.http.get(service.url + path, headers=headers, allow_redirects=False) as answer:
            text = await answer.text()
            told = " ".join(f"{name}: {value}" for name, value in answer.headers.items())
        kept = answer.headers.get("Cache-Control", "")

        assert EVIL not in told
        assert "no-store" in kept or path in {"/docs", "/openapi.json"}
        if (
            path != "/.well-known/authzen-configuration"
        ):  # says where it was reached, to who reached it, and is not kept
            assert EVIL not in text


@pytest.mark.parametrize("host", ["a b", "h/../x", "h?x", "h@evil.example", 'h"', "h#", "h\\evil", "[::1", "h:123456"])
async def test_a_host_that_is_none_is_not_written_into_the_description_of_the_service(service: Service, host):
    """The one answer that says where the service was reached."""
    headers = {"Host": host}
    async with service.http.get(f"{service.url}/.well-known/authzen-configuration", headers=headers) as answer:
        text = await answer.text()

    assert answer.status == 400
    assert "http://" not in text


@pytest.mark.parametrize(
    "onward",
    [
        f"https://{EVIL}/",
        f"//{EVIL}/",
        f"/console//{EVIL}/../..//{EVIL}",
        f"/\\{EVIL}",
        f"/console/\\{EVIL}",
        f"\t//{EVIL}",
        f"/console/\r\nLocation: https://{EVIL}",
        f"/console/\u2028{EVIL}",
        f"javascript:alert(1)//{EVIL}",
        f"/console@{EVIL}",
        f"/consolex.{EVIL}",
    ],
)
async def test_signing_in_leads_to_a_page_of_the_console_whatever_was_asked_for(
    service: Service, tenant: Tenant, onward
):
    """An open redirect lends somebody else's page the school's good name."""
    await tenant.login()
    said = {"token": token(tenant.name, "supervisor", "web"), "next": onward}
    async with service.http.post(f"{service.url}/console/sign-in", data=said, allow_redirects=False) as answer:
        where = answer.headers["Location"]

    assert answer.status == 303
    assert where.startswith("/console/")
    assert not where.startswith("//")
    assert "\\" not in where
    assert answer.headers.getall("Location") == [where]


HOSTILE = [
    "a",
    "a:b",
    "b",
    ":",
    "{a}",
    "}{",
    "*",
    "a}:live",
    "a\r\nFLUSHALL\r\n",
    " ",
    "\u202e",
    "é",
    "x" * 128,
    "%00",
    "../a",
    "'",
]


def test_no_two_members_share_a_key_of_valkey():
    """Ids are opaque: none of them reaches over into another tenant's or member's keys."""
    keys = {(tenant, member): key(tenant, member) for tenant in HOSTILE for member in HOSTILE}

    assert len(set(keys.values())) == len(keys)
    for (one, first), (other, second) in combinations(list(keys.items()), 2):
        assert not first.startswith(second), (one, other)


async def test_hostile_ids_are_ids_like_any_other(service: Service, tenant: Tenant):
    """Commands, braces and line ends in ids stay where they were written."""
    neighbour = await tenant.login("neighbour")
    for number, member in enumerate(HOSTILE):
        login = await tenant.login(member, session_id=f"{number}{member}"[:128])
        checked = await tenant.check(login, activity="lesson_open")

        assert (checked.status, checked["member_id"], checked["decision"]) == (200, member, "allow")
    assert (await tenant.check(neighbour))["decision"] == "allow"
