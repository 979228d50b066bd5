"""Cases and read marks."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from accessguard.violations import marks, store, summaries
from tests.service import CHROME, FIREFOX, Answer, Tenant, items

ONE, OTHER = "kim", "lou"


async def cases(tenant: Tenant, query: str = "", reader: str = ONE) -> list[dict[str, Any]]:
    """The cases that an operator sees."""
    return list(items(await tenant.see(f"/v1/violations{query}", subject=reader)))


async def mark(tenant: Tenant, reader: str = ONE, **selected: Any) -> Answer:
    """Mark cases read, or unread."""
    return await tenant.call(
        "POST", "/v1/violations/mark", {"read": True} | selected, role="supervisor", subject=reader
    )


async def refuse(tenant: Tenant, *members: str) -> None:
    """One case for each member: a login from where none may come."""
    for member in members:
        refused = await tenant.login(member, ip="192.0.2.1")
        assert refused["decision"] == "deny"


@pytest.fixture
async def denied(tenant: Tenant) -> Tenant:
    """A tenant that refuses 192.0.2.0/24."""
    await tenant.rule("ip_deny", networks=["192.0.2.0/24"])
    return tenant


async def test_a_mark_is_personal_and_changes_no_decision(denied):
    """Kim has reviewed it; Lou has not; the student is refused all the same."""
    await refuse(denied, "ana")

    marked = await mark(denied, member_id="ana")
    again = await mark(denied, member_id="ana")
    (mine,), (theirs,) = await cases(denied), await cases(denied, reader=OTHER)
    still = await denied.login("ana", ip="192.0.2.1")

    assert (marked["marked"], again["marked"]) == (1, 0)
    assert (mine["read"], mine["read_by"]) == (True, [ONE])
    assert (theirs["read"], theirs["read_by"]) == (False, [ONE])
    assert (still["decision"], still["reason"]["code"]) == ("deny", "ip_denied")


async def test_a_mark_is_undone_when_the_case_happens_again(denied):
    """Everybody's; and it can be set again."""
    await refuse(denied, "ana")
    await mark(denied, member_id="ana")
    await mark(denied, OTHER, member_id="ana")

    await refuse(denied, "ana")
    (mine,), (theirs,) = await cases(denied), await cases(denied, reader=OTHER)
    again = await mark(denied, member_id="ana")

    assert (mine["hits"], mine["read"], mine["read_by"]) == (2, False, [])
    assert theirs["read"] is False
    assert again["marked"] == 1
    assert (await cases(denied))[0]["read"] is True


async def test_marks_by_id_by_member_and_up_to_a_moment(denied):
    """Each selects what it says; unread takes marks off again."""
    await refuse(denied, "ana", "ben")
    first, second = await cases(denied, "?order=asc")
    await refuse(denied, "cleo")

    by_id = await mark(denied, ids=[first["id"], first["id"]])
    up_to = await mark(denied, up_to=second["last_at"])
    states = {case["member_id"]: case["read"] for case in await cases(denied)}
    off = await mark(denied, member_id="ana", read=False)
    off_again = await mark(denied, member_id="ana", read=False)

    assert [each["marked"] for each in (by_id, up_to, off, off_again)] == [1, 1, 1, 0]
    assert states == {"ana": True, "ben": True, "cleo": False}
    assert [case["member_id"] for case in await cases(denied, "?read=true")] == ["ben"]
    assert [case["member_id"] for case in await cases(denied, "?read=false&order=asc")] == ["ana", "cleo"]


@pytest.mark.parametrize(
    "selected",
    [{}, {"member_id": "ana", "up_to": "2030-01-01T00:00:00Z"}, {"ids": None, "member_id": None}],
    ids=["none", "two", "nulls"],
)
async def test_a_mark_says_exactly_which(denied, selected):
    """Or nothing is marked."""
    await refuse(denied, "ana")

    answer = await mark(denied, **selected)

    assert answer.status == 400
    assert (await cases(denied))[0]["read"] is False


async def test_filters_show_what_they_say(denied):
    """By member, rule, code, resolution and time of the last hit."""
    rule = await denied.rule("session_limit", "log", max=1)
    await denied.login("ana", user_agent=CHROME.format(1))
    await denied.login("ana", user_agent=FIREFOX)
    await refuse(denied, "ben")
    newest, oldest = await cases(denied)
    patch = {"resolution": "confirmed", "note": "sharing", "reason": "called"}
    await denied.call("PATCH", f"/v1/violations/{oldest['id']}", patch, role="supervisor")

    async def codes(query: str) -> list[str]:
        return [case["code"] for case in await cases(denied, query)]

    assert await codes("?member_id=ana") == ["session_limit"]
    assert await codes(f"?rule_id={rule['id']}") == ["session_limit"]
    assert await codes("?code=ip_denied") == ["ip_denied"]
    assert await codes("?resolution=confirmed") == ["session_limit"]
    assert await codes(f"?from={newest['last_at']}") == ["ip_denied"]
    assert await codes(f"?to={newest['last_at']}") == ["session_limit"]
    assert await codes("?code=ip_denied&member_id=ana") == []


async def test_a_resolution_is_everybodys_and_stays_when_the_case_goes_on(denied):
    """Unlike a mark; and it decides nothing."""
    await refuse(denied, "ana")
    (case,) = await cases(denied)
    path = f"/v1/violations/{case['id']}"

    resolved = await denied.call("PATCH", path, {"resolution": "false_alarm", "note": "VPN"}, role="supervisor")
    noted = await denied.call("PATCH", path, {"note": "school's VPN"}, role="supervisor")
    await refuse(denied, "ana")

    (again,) = await cases(denied, reader=OTHER)
    assert (resolved["resolution"], resolved["note"]) == ("false_alarm", "VPN")
    assert (noted["resolution"], noted["note"]) == ("false_alarm", "school's VPN")
    assert (again["hits"], again["resolution"], again["note"]) == (2, "false_alarm", "school's VPN")


async def test_the_summary_counts_for_who_asks(denied):
    """Unread is personal, open is not; per code and per member."""
    login = await denied.login("ana")
    await denied.device("ana", login["device"]["id"], access="blocked")
    await denied.check(login)
    await refuse(denied, "ana", "ben")
    await mark(denied, member_id="ben")
    (bens,) = await cases(denied, "?member_id=ben")
    await denied.call("PATCH", f"/v1/violations/{bens['id']}", {"resolution": "confirmed"}, role="supervisor")

    mine = await denied.see("/v1/violations/summary", subject=ONE)
    theirs = await denied.see("/v1/violations/summary", subject=OTHER)

    assert (mine["unread"], mine["open"], theirs["unread"], theirs["open"]) == (2, 2, 3, 2)
    assert {(each["code"], each["unread"], each["open"]) for each in mine["by_code"]} == {
        ("ip_denied", 1, 1),
        ("device_blocked", 1, 1),
    }
    assert {(each["member_id"], each["unread"], each["open"]) for each in mine["by_member"]} == {
        ("ana", 2, 2),
        ("ben", 0, 0),
    }


async def test_what_an_exempt_member_does_is_recorded_and_bothers_nobody(denied):
    """A case with its effect, not among the unread."""
    await denied.login("ana")
    await denied.call("PATCH", "/v1/members/ana", {"checks_enabled": False}, role="supervisor")

    allowed = await denied.login("ana", ip="192.0.2.1")

    (case,) = await cases(denied)
    summary = await denied.see("/v1/violations/summary", subject=ONE)
    card = await denied.see("/v1/members/ana")
    assert (allowed["decision"], allowed["exempt"], allowed["violations"]) == ("allow", True, [case["id"]])
    assert (case["effect"], case["mode"]) == ("exempt", "enforce")
    assert (summary["unread"], card["unread_violations"], card["latest_violation"]) == (0, 0, None)


async def test_a_case_tells_what_was_counted_and_under_which_version(tenant):
    """Enough to explain it to a student a month later, when the rule is another."""
    rule = await tenant.rule("session_limit", "deny_new", max=1)
    first = await tenant.login("ana")
    refused = await tenant.login("ana", user_agent=FIREFOX)
    body = {"kind": "session_limit", "mode": "enforce", "action": "deny_new", "params": {"max": 5}}
    await tenant.call("PUT", f"/v1/rules/{rule['id']}", body, role="administrator")

    (case,) = await cases(tenant)

    assert refused["violations"] == [case["id"]]
    assert (case["rule_id"], case["rule_version"], case["effect"]) == (rule["id"], 1, "denied")
    assert case["details"] == {"limit": 1, "counted": 2, "sessions": [first["session"]["id"]]}
    assert (case["device_id"], case["ip"]) == (refused["device"]["id"], "203.0.113.9")


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_of_cases_hold_each_once(denied, order):
    """Over many pages, with cases of one instant."""
    denied.service.clock.stop()
    await asyncio.gather(*(denied.login(f"m{each}", ip="192.0.2.1") for each in range(11)))
    denied.service.clock._stopped_ms = None
    seen: list[str] = []
    cursor, pages = "", 0
    while cursor or not pages:
        page = await denied.see(f"/v1/violations?limit=3&order={order}{cursor}")
        seen += [case["member_id"] for case in items(page)]
        cursor, pages = page["next_cursor"] and f"&cursor={page['next_cursor']}", pages + 1

    assert sorted(seen) == sorted(f"m{each}" for each in range(11))
    assert pages == 4


@pytest.mark.parametrize(("order", "read"), [("desc", "false"), ("asc", "true"), ("desc", "true"), ("asc", "false")])
async def test_a_page_of_what_is_read_looks_at_a_bounded_number_of_cases_and_leads_on(denied, monkeypatch, order, read):
    """Where it would go through all that a reader has read, it ends early; pages and files hold each once, several of one instant among them."""
    denied.service.clock.stop()
    await refuse(denied, *(f"old{each}" for each in range(4)))
    denied.service.clock._stopped_ms = None
    await refuse(denied, *(f"new{each}" for each in range(7)))
    for each in range(7):
        await mark(denied, member_id=f"new{each}")
    monkeypatch.setattr(store, "AS_FAR", msgspec.structs.replace(store.AS_FAR, order=f"{store.ORDER} OFFSET 2"))
    asked = f"read={read}&order={order}"

    seen, pages, cursor = list[str](), list[int](), ""
    while cursor or not pages:
        page = await denied.see(f"/v1/violations?limit=5&{asked}{cursor}", subject=ONE)
        seen += [case["member_id"] for case in items(page)]
        pages.append(len(page["items"]))
        cursor = page["next_cursor"] and f"&cursor={page['next_cursor']}"
    file = await denied.see(f"/v1/violations?{asked}", subject=ONE, headers={"Accept": "text/csv"})

    expected = [f"old{each}" for each in range(4)] if read == "false" else [f"new{each}" for each in range(7)]
    assert sorted(seen) == expected
    assert len(pages) > 2
    assert min(pages[:-1]) < 5
    assert len(file.body.splitlines()) == 1 + len(expected)


async def test_two_operators_at_one_instant_keep_both_marks(denied):
    """And one operator's second window does no harm."""
    await refuse(denied, "ana")

    marks = await asyncio.gather(*(mark(denied, reader, member_id="ana") for reader in (ONE, OTHER) * 5))

    assert {answer.status for answer in marks} == {200}
    assert sum(answer["marked"] for answer in marks) == 2
    assert (await cases(denied))[0]["read_by"] == [ONE, OTHER]


async def test_marks_up_to_a_moment_go_on_from_portion_to_portion(denied, monkeypatch):
    """With more cases than one statement takes, each is marked once, and each mark taken off again."""
    monkeypatch.setattr(marks, "PORTION", 2)
    await refuse(denied, "ana", "ben", "cleo", "dan", "eva")
    newest = (await cases(denied))[0]

    marked = [await mark(denied, up_to=newest["last_at"]) for _ in range(2)]
    read = [case["read"] for case in await cases(denied)]
    off = await mark(denied, up_to=newest["last_at"], read=False)

    assert [each["marked"] for each in marked] == [5, 0]
    assert read == [True] * 5
    assert off["marked"] == 5
    assert [case["read"] for case in await cases(denied)] == [False] * 5


async def test_a_summary_of_many_cases_is_counted_now_and_then(denied, monkeypatch):
    """What others do shows later; what this operator marks, and what is resolved, at once."""
    monkeypatch.setattr(summaries, "MANY", 2)
    await refuse(denied, "ana", "ben")

    async def unread() -> tuple[int, int]:
        told = await denied.see("/v1/violations/summary", subject=ONE)
        return told["unread"], told["open"]

    first = await unread()
    await refuse(denied, "cleo")
    held = await unread()
    await mark(denied, member_id="ana")
    marked = await unread()
    (case,) = await cases(denied, "?member_id=ben")
    await denied.call("PATCH", f"/v1/violations/{case['id']}", {"resolution": "confirmed"}, role="supervisor")
    resolved = await unread()

    assert (first, held, marked, resolved) == ((2, 2), (2, 2), (2, 3), (2, 2))
