"""Members: found, sorted, paged, kept and annotated."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import pytest
from yarl import URL

from tests.service import FIREFOX, Answer, Tenant, items, token

NAMES = {
    "emoji": "Ana 😀 🏳️‍🌈",
    "right to left": "\u202eאנה\u202c",
    "slash": "a/b/../c",
    "percent": "100%_\\",
    "quotes": "'; DROP TABLE member; --",
    "long": "x" * 200,
    "none": "",
}


async def find(tenant: Tenant, **asked: Any) -> list[str]:
    """The ids that a list of members shows, in its order."""
    answer = await tenant.call("GET", "/v1/members", role="supervisor", params={"sort": "name", **asked})
    return [member["member_id"] for member in items(answer)]


async def put(tenant: Tenant, member: str, **fields: Any) -> Answer:
    """What the platform knows of a member."""
    url = URL(f"{tenant.service.url}/v1/members/{quote(member, safe='').replace('.', '%2E')}", encoded=True)
    headers = {"Authorization": f"Bearer {token(tenant.name, 'platform')}"}
    async with tenant.service.http.put(url, json=fields, headers=headers) as response:
        return Answer(response.status, await response.json(content_type=None))


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
async def test_any_name_is_kept_and_found(tenant: Tenant, name):
    """As it was sent, and by any part of it."""
    made = await put(tenant, "ana", name=name)
    await put(tenant, "ben", name="Somebody else")

    found = await find(tenant, q=name[:100]) if name else ["ana"]

    assert (made.status, made["name"]) == (200, name)
    assert found == ["ana"]


@pytest.mark.parametrize(
    "member",
    ["a/b", "..", ".", "%", "%2F", "😀", "\u202eabc", "a b", "?q=1", "#", ";", "x" * 128, "é" * 128, "ana@b.example"],
)
async def test_any_id_of_the_platform_is_a_path_and_a_place_in_a_list(tenant: Tenant, member):
    """128 characters of whatever, in every call that names it."""
    login = await tenant.login(member, session_id=member)
    made = await put(tenant, member, name="x")
    headers = {"Authorization": f"Bearer {token(tenant.name, 'supervisor')}"}
    path = quote(member, safe="").replace(".", "%2E")
    found = {}
    for each in (f"members/{path}", f"members/{path}/logins", f"sessions/{path}"):
        url = URL(f"{tenant.service.url}/v1/{each}", encoded=True)
        async with tenant.service.http.get(url, headers=headers) as response:
            found[each] = (response.status, await response.json(content_type=None))

    assert (login["session"]["id"], made["member_id"]) == (member, member)
    assert [status for status, _ in found.values()] == [200] * 3
    assert found[f"members/{path}"][1]["member_id"] == member
    assert found[f"members/{path}/logins"][1]["items"][0]["session_id"] == member
    assert (await tenant.check(login))["member_id"] == member
    assert await find(tenant, q=member) == [member]


@pytest.mark.parametrize(
    ("q", "found"),
    [
        pytest.param("JOÃO", ["joao"], id="name in capitals"),
        pytest.param("silva", ["joao", "rui"], id="part of names"),
        pytest.param("joao@new", ["joao"], id="e-mail"),
        pytest.param("joao@old", ["joao"], id="former e-mail"),
        pytest.param("JOAO@OLDEST.EXAMPLE", ["joao"], id="the one before that"),
        pytest.param("5511", ["rui"], id="phone"),
        pytest.param("rui", ["rui"], id="id"),
        pytest.param("%", [], id="a percent sign is a percent sign"),
        pytest.param("_", [], id="an underscore is an underscore"),
        pytest.param("\\", [], id="a backslash is a backslash"),
        pytest.param("nobody", [], id="nobody"),
        pytest.param("", ["joao", "rui"], id="nothing in particular"),
    ],
)
async def test_a_member_is_found_by_whatever_support_has_at_hand(tenant: Tenant, q, found):
    """Name, e-mail, any former e-mail, phone, id; capitals do not matter."""
    for email in ("joao@oldest.example", "joao@old.example", "joao@new.example"):
        await put(tenant, "joao", name="João da Silva", email=email)
    await put(tenant, "rui", name="Rui Silva", phone="+5511 99999")

    assert await find(tenant, q=q) == found


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("João da Silva", "silva joao"),
        ("João da Silva", "JOA\u0303O  DA"),
        ("Łukasz Strauß-Østergård", "lukasz STRAUSS ostergard"),
        ("王伟明", "伟明"),
        ("山田 ハナコ", "ハナ"),
        ("김민수", "민수"),
        ("محمد علي", "علي"),
        ("\u202eאנה כהן\u202c", "כהן"),
        ("Ирина Ёлкина", "елкина"),
        ("Jo Li", "li"),
        ("😀 Ana", "😀"),
    ],
)
async def test_words_are_found_in_any_order_and_on_any_keyboard(tenant: Tenant, stored, asked):
    """Accents, capitals, marks of direction and the order of words do not matter; of a short word, its beginning is asked for."""
    await put(tenant, "1", name=stored)
    await put(tenant, "2", name="Julie Olivier-Dali")

    assert await find(tenant, q=asked) == ["1"]


@pytest.mark.parametrize(
    ("stored", "asked"),
    [
        ("+55 (11) 99999-1234", "11999991234"),
        ("5511999991234", "+55 11 99999 1234"),
        ("(11) 99999-1234", "+55 11 99999-1234"),
        ("+44 20 7946 0958", "(0)20 7946 0958"),
        ("+33 6 12 34 56 78", "0033 6 12 34 56 78"),
        ("+33612345678", "06.12.34.56.78"),
        ("+380 44 123 45 67", "123-45-67"),
        ("٠٥٠١٢٣٤٥٦٧", "0501234567"),
    ],
)
async def test_a_number_is_found_in_any_format_and_in_part(tenant: Tenant, stored, asked):
    """By the country that the school says, by its digits alone, with whatever zeros are dialled before it."""
    await tenant.login("2")
    await tenant.call("PUT", "/v1/settings", {"country": "BR"}, role="administrator")
    await put(tenant, "1", phone=stored)
    await put(tenant, "2", phone="+55 11 98888-0000", email="x@y.example")

    assert await find(tenant, q=asked) == ["1"]


async def test_what_is_changed_is_found_as_it_is_now(tenant: Tenant):
    """Tags too, by whomever they were written; a member who only logged in is found by the id."""
    await put(tenant, "a1", name="Former", tags=["old"])
    assert await find(tenant, q="former") == ["a1"]
    await put(tenant, "a1", name="Present")
    await tenant.call("PATCH", "/v1/members/a1", {"tags": ["new"]}, role="supervisor")
    await tenant.login("somebody-else")

    assert [await find(tenant, q=q) for q in ("former", "present", "body-el")] == [[], ["a1"], ["somebody-else"]]
    assert [await find(tenant, tag=tag) for tag in ("old", "new")] == [[], ["a1"]]


async def test_whom_somebody_else_takes_in_is_waited_for(tenant: Tenant):
    """A row is held at times, by upkeep and whoever changes it: a search is not to miss it. Nor is it to wait for ever."""
    await put(tenant, "a1", name="Present")

    async with tenant.service.context.members._db.transaction() as holding:
        await holding.row("SELECT FROM member WHERE tenant = $1 AND id = 'a1' FOR UPDATE", tenant.name)
        held = await find(tenant, q="present")
        asking = asyncio.create_task(find(tenant, q="present"))
        await asyncio.sleep(0.1)

    assert (held, await asking) == ([], ["a1"])


async def test_filters_narrow_the_list(tenant: Tenant):
    """By tag, by unread, by restricted, and by several at once."""
    await put(tenant, "ana", tags=["vip", "x"])
    await put(tenant, "ben", tags=["vip"])
    await tenant.rule("ip_deny", networks=["192.0.2.0/24"])
    await tenant.login("ben", ip="192.0.2.1")
    observed = await tenant.rule("device_limit", "log", max=1)
    await tenant.login("cleo")
    await tenant.login("cleo", user_agent=FIREFOX)

    lists = {
        name: await find(tenant, **asked)
        for name, asked in {
            "vip": {"tag": "vip"},
            "unread": {"unread": "true"},
            "restricted": {"restricted": "true"},
            "both": {"tag": "x", "restricted": "true"},
        }.items()
    }

    assert observed.status == 201
    assert lists == {"vip": ["ana", "ben"], "unread": ["ben", "cleo"], "restricted": ["ben"], "both": []}


@pytest.fixture
async def crowd(tenant: Tenant) -> list[str]:
    """Eleven members, of whom some have never been there, some share a name, some have unread cases."""
    await tenant.rule("ip_deny", networks=["192.0.2.0/24"])
    names = ["Zoe", "ana", "Ana", "Ana", "", "", "Émile", "\u202eאנה", "😀", "a%b", "a/b"]
    for place, name in enumerate(names):
        member = f"m{place}"
        await put(tenant, member, name=name)
        if place % 3:
            login = await tenant.login(member)
            if place % 2:
                await tenant.check(login, activity="lesson_open")
        if place % 4 == 1:
            await tenant.login(member, ip="192.0.2.1")
    return [f"m{place}" for place in range(len(names))]


def _key(sort: str, member: dict[str, Any]) -> Any:
    activity = member["last_activity"]
    return {
        "last_activity": activity["at"] if activity else "",
        "first_access": member["first_access_at"] or "",
        "last_access": member["last_access_at"] or "",
        "name": member["name"],
        "unread": member["unread_violations"],
    }[sort]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("sort", ["last_activity", "first_access", "last_access", "name", "unread"])
@pytest.mark.parametrize("limit", [1, 3])
async def test_pages_hold_everybody_once_and_in_order(tenant: Tenant, crowd, sort, order, limit):
    """Over many pages, with equal keys, with members that have none; as one page would."""
    seen: list[dict[str, Any]] = []
    cursor, pages = "", 0
    while cursor or not pages:
        page = await tenant.see(f"/v1/members?sort={sort}&order={order}&limit={limit}{cursor}")
        seen += items(page)
        cursor, pages = page["next_cursor"] and f"&cursor={page['next_cursor']}", pages + 1

    whole = await tenant.see(f"/v1/members?sort={sort}&order={order}&limit=200")
    ids = [member["member_id"] for member in seen]
    keys = [_key(sort, member) for member in seen]
    assert sorted(ids) == sorted(crowd)
    assert ids == [member["member_id"] for member in items(whole)]
    assert keys == sorted(keys, reverse=order == "desc")
    assert pages == -(-len(crowd) // limit)
    assert whole["next_cursor"] is None


async def test_a_page_goes_on_where_it_left_off_while_others_come_and_go(tenant: Tenant, crowd):
    """A member that comes in before the place shifts nobody to the next page."""
    first = await tenant.see("/v1/members?sort=name&limit=5")
    await put(tenant, "newcomer", name=" first of all")

    second = await tenant.see(f"/v1/members?sort=name&limit=200&cursor={first['next_cursor']}")

    ids = [member["member_id"] for page in (first, second) for member in page["items"]]
    assert sorted(ids) == sorted(crowd)


async def test_what_the_platform_says_replaces_what_it_said(tenant: Tenant):
    """An upsert: what is left out is emptied; what operators wrote stays."""
    await put(tenant, "ana", name="Ana", email="ana@example.com", phone="1", locale="pt-BR", time_zone="America/Bahia")
    note = {"note": "calls on Mondays", "checks_enabled": False, "reason": "exam"}
    await tenant.call("PATCH", "/v1/members/ana", note, role="supervisor")

    again = await put(tenant, "ana", name="Ana B.")

    assert (again["name"], again["email"], again["phone"], again["locale"]) == ("Ana B.", None, None, None)
    assert (again["note"], again["checks_enabled"], again["checks_reason"]) == ("calls on Mondays", False, "exam")


async def test_a_switch_with_an_end_ends_by_itself(tenant: Tenant):
    """Until then the member is exempt, from then on it is not; no beat and no held verdict stretches it."""
    from datetime import UTC, datetime

    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])
    login = await tenant.login(ip="192.0.2.1")
    clock = tenant.service.clock
    until = datetime.fromtimestamp((clock() + 20_000) / 1000, UTC).isoformat()
    await tenant.call(
        "PATCH", "/v1/members/ana", {"checks_enabled": False, "checks_disabled_until": until}, role="supervisor"
    )

    before = await tenant.check(login)
    clock.forward(20_000)
    after = await tenant.check(login)
    clock.forward(-20_000)

    assert (before["decision"], before["exempt"]) == ("allow", True)
    assert before["ttl_ms"] <= 5_000
    assert (after["decision"], after["reason"]["code"]) == ("deny", "ip_denied")


async def test_a_card_counts_what_is_open_known_and_unread(tenant: Tenant):
    """Ended sessions, forgotten devices and read cases no longer count."""
    one, two = await tenant.login(), await tenant.login(user_agent=FIREFOX)
    await tenant.rule("ip_deny", networks=["203.0.113.0/24"])
    await tenant.check(one)
    full = await tenant.see("/v1/members/ana")
    await tenant.call("DELETE", f"/v1/members/ana/devices/{two['device']['id']}", role="supervisor")
    await tenant.call("POST", "/v1/violations/mark", {"member_id": "ana", "read": True}, role="supervisor")

    card = await tenant.see("/v1/members/ana")

    counted = [(each["active_sessions"], each["devices"], each["unread_violations"]) for each in (full, card)]
    assert counted == [(2, 2, 1), (1, 1, 0)]
    assert full["latest_violation"]["code"] == "ip_denied"
    assert full["latest_violation"]["session_id"] == one["session"]["id"]


async def test_a_failed_login_makes_a_member_known_but_no_access(tenant: Tenant):
    """Its log can be read; it has never been in."""
    await tenant.login("ana", outcome="failure", failure_reason="wrong password")
    unknown = {"member_id": None, "outcome": "failure", "identifier": "Unknown@Example.com", "ip": "203.0.113.9"}
    recorded = await tenant.call("POST", "/v1/logins", unknown)

    card = await tenant.see("/v1/members/ana")
    (line,) = items(await tenant.see("/v1/members/ana/logins"))

    assert (card["first_access_at"], card["last_access_at"], card["devices"]) == (None, None, 0)
    assert (recorded.status, recorded["session"]) == (200, None)
    assert (line["outcome"], line["failure_reason"], line["session_id"]) == ("failure", "wrong password", None)
    assert await find(tenant) == ["ana"]
