"""Two members that are one student, over HTTP."""

from __future__ import annotations

import asyncio

from accessguard.database import Database
from accessguard.members.union import LEFT, MOVED
from accessguard.rules.model import Code
from tests.journeys.test_card import opened, rebuilt
from tests.members.test_imports import enrolment, imported, member
from tests.service import CHROME, FIREFOX, Answer, Tenant, items

OWNED = """
    SELECT c.table_name FROM information_schema.columns c JOIN information_schema.tables t USING (table_schema, table_name)
     WHERE c.table_schema = 'public' AND c.column_name = 'member_id' AND t.table_type = 'BASE TABLE'
       AND NOT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = c.table_name::regclass)
"""


async def merge(tenant: Tenant, old: str, into: str, **fields) -> Answer:
    """A supervisor's word."""
    asked = {"into": into} | fields
    while (answer := await tenant.call("POST", f"/v1/members/{old}/merge", asked, role="supervisor")).status == 409:
        await asyncio.sleep(0.05)  # what another test has left waiting is written first
    return answer


async def test_everything_of_the_one_is_the_other_s(tenant):
    """Sessions go on, devices, logins, cases and marks are there, and the old id is nobody's but finds the other one."""
    await imported(
        tenant,
        member("old", name="Ana R.", email="old@example.com", tags=["vip"], staff=False),
        member("ana", name="Ana", email="ana@example.com", tags=["x"]),
        enrolment("old", "a", ends_at="2099-01-01T00:00:00Z"),
        enrolment("ana", "a", ends_at="2098-01-01T00:00:00Z"),
        enrolment("old", "b", status="deactivated"),
        enrolment("ana", "b"),
    )
    await tenant.rule("ip_deny", "deny", networks=["198.51.100.7"])
    moved, own = await tenant.login("old"), await tenant.login("ana", user_agent=FIREFOX)
    refused = await tenant.check(moved, ip="198.51.100.7")
    await tenant.call("POST", "/v1/violations/mark", {"member_id": "old", "read": True}, role="supervisor")
    await tenant.call("PATCH", "/v1/members/old", {"checks_enabled": False, "note": "rings"}, role="supervisor")
    before = await tenant.check(moved)

    report = await merge(tenant, "old", "ana", reason="twice")

    after = await tenant.check(moved)
    card = await tenant.see("/v1/members/ana")
    cases = (await tenant.see("/v1/members/ana/violations"))["items"]
    found = (await tenant.see("/v1/members?q=old@example.com"))["items"]
    audit = (await tenant.call("GET", "/v1/audit?action=member.merge", role="administrator"))["items"]
    assert refused["decision"] == "deny"
    assert (report.status, report["sessions"], report["devices"], report["logins"], report["violations"]) == (
        200,
        1,
        1,
        1,
        1,
    )
    assert (report["read_marks"], report["exemption"], report["enrolments"]) == (1, "dropped", ["a"])
    assert (before["member_id"], before["exempt"]) == ("old", True)
    assert (after["decision"], after["member_id"], after["exempt"]) == ("allow", "ana", False)
    assert (card["name"], card["tags"], card["note"], card["active_sessions"]) == ("Ana", ["x", "vip"], "rings", 2)
    assert {each["product_id"]: (each["status"], each["ends_at"]) for each in card["enrolments"]} == {
        "a": ("active", "2099-01-01T00:00:00.000Z"),
        "b": ("active", None),
    }
    assert [each["read"] for each in cases] == [True]
    assert [each["member_id"] for each in found] == ["ana"]
    assert {each["target_id"] for each in audit} == {"old", "ana"}
    assert audit[0]["reason"] == "twice"
    assert (await tenant.see("/v1/members/old")).status == 404
    assert (await tenant.check(own))["decision"] == "allow"
    assert (await merge(tenant, "old", "ana")).body == report.body


async def test_what_was_written_and_opened_comes_over_too(tenant):
    """Comments, notices, history, pages, runs and access of both are the survivor's: of two times the first and the last."""
    await imported(tenant, member("old", email="only@old.example", country="BR", city="Recife"), member("ana"))
    for each, day in (("ana", "02"), ("old", "01")):
        notice = {"version": "v1", "shown_at": f"2026-11-{day}T10:00:00.000Z"}
        await tenant.call("PUT", f"/v1/members/{each}/notice", notice)
        await tenant.call("POST", f"/v1/members/{each}/comments", {"text": f"of {each}"}, role="supervisor")
        await tenant.call("PATCH", f"/v1/members/{each}", {"note": f"n {each}"}, role="supervisor")
    ana, old = await tenant.login("ana"), await tenant.login("old", user_agent=FIREFOX)
    for session in (old, ana, old):
        await opened(tenant, session, "webinar:7?run=1", product_id="course")
    await opened(tenant, old, "lesson:1", product_id="other")
    await rebuilt(tenant)
    lines = [
        line for each in ("old", "ana") for line in items(await tenant.see(f"/v1/reports/access?member_id={each}"))
    ]
    runs = [(await tenant.see(f"/v1/members/{each}"))["runs"][0]["first_at"] for each in ("old", "ana")]

    await merge(tenant, "old", "ana")

    card = await tenant.see("/v1/members/ana")
    access = {each["product_id"]: each for each in items(await tenant.see("/v1/reports/access?member_id=ana"))}
    history = [each["target_id"] for each in items(await tenant.see("/v1/members/ana/history?kind=member.change"))]
    notices = (await tenant.see("/v1/members/ana/notices"))["items"]
    found = list(items(await tenant.see("/v1/members?q=only@old")))
    course = [each for each in lines if each["product_id"] == "course"]
    assert {each["text"] for each in card["comments"]} == {"of old", "of ana"}
    assert [(each["version"], each["shown_at"]) for each in notices] == [("v1", "2026-11-01T10:00:00.000Z")]
    assert {"old", "ana"} <= set(history)
    assert [each["resource"] for each in card["last_pages"]["items"]] == ["lesson:1", "webinar:7?run=1"]
    assert [each["first_at"] for each in card["runs"]] == [min(runs)]
    assert set(access) == {"course", "other"}
    assert access["course"]["first_access_at"] == min(each["first_access_at"] for each in course)
    assert access["course"]["last_access_at"] == max(each["last_access_at"] for each in course)
    assert (card["whereabouts"]["profile_city"], [each["member_id"] for each in found]) == ("Recife", ["ana"])


async def test_a_survivor_of_whom_nothing_else_changed_is_found_by_the_other_id(tenant):
    """The directory takes it in anew for its aliases alone."""
    await imported(tenant, member("former-id"), member("ana", email="a@example.com"))
    assert len((await tenant.see("/v1/members?q=former"))["items"]) == 1

    await merge(tenant, "former-id", "ana")

    assert [each["member_id"] for each in items(await tenant.see("/v1/members?q=former"))] == ["ana"]


async def test_what_exceeds_a_limit_is_ended(tenant):
    """As it would have been, had they been one from the beginning: the newest keep their place."""
    await tenant.rule("session_limit", "evict_oldest", max=1)
    older, newer = await tenant.login("old"), await tenant.login("ana", user_agent=FIREFOX)

    report = await merge(tenant, "old", "ana")

    assert report["ended_sessions"] == [older["session"]["id"]]
    assert (await tenant.check(older))["reason"]["code"] == "session_ended"
    assert (await tenant.check(newer))["decision"] == "allow"


async def test_one_browser_of_both_is_one_device(tenant):
    """It was the same laptop all the time."""
    first = await tenant.login("old")
    token = first["device"]["token"]
    second = await tenant.login("ana", device_token=token)

    report = await merge(tenant, "old", "ana")

    devices = (await tenant.see("/v1/members/ana/devices"))["items"]
    again = await tenant.login("ana", device_token=second["device"]["token"])
    assert report["same_devices"] == 1
    assert len(devices) == 1
    assert again["device"]["new"] is False


async def test_who_is_barred_by_a_merge_is_told_to_those_who_cannot_ask(tenant, service):
    """A session that becomes one of a blocked device, and one for which there is no room."""
    first = await tenant.login("old")
    token = first["device"]["token"]
    second = await tenant.login("ana", device_token=token)
    await tenant.device("old", first["device"]["id"], access="blocked")
    bars = service.context.changes.bars

    await merge(tenant, "old", "ana")
    await tenant.rule("session_limit", "evict_oldest", max=1)
    one, _ = await tenant.login("eva"), await tenant.login("kim")
    report = await merge(tenant, "eva", "kim")

    assert bars.here(tenant.name, second["session"]["id"]) is Code.DEVICE_BLOCKED
    assert report["ended_sessions"] == [one["session"]["id"]]
    assert bars.here(tenant.name, one["session"]["id"]) is Code.SESSION_ENDED


async def test_logins_and_merges_at_once_leave_everybody_somewhere(tenant):
    """Two that are merged into each other, while both log in: no deadlock, and each session is somebody's."""
    await tenant.login("ana")
    await tenant.login("bea")

    calls = [merge(tenant, "ana", "bea"), merge(tenant, "bea", "ana")]
    logins = [tenant.login(name, user_agent=CHROME.format(100 + n)) for n in range(5) for name in ("ana", "bea")]
    answers = await asyncio.gather(*calls, *logins)

    assert {each.status for each in answers[2:]} == {200}
    assert {each.status for each in answers[:2]} <= {200, 404}
    checks = [await tenant.check(each) for each in answers[2:] if each["session"]]
    assert {each["decision"] for each in checks} <= {"allow", "deny"}
    assert {each["reason"]["code"] for each in checks if each["reason"]} <= {"session_ended"}


async def test_who_is_not_there_is_not_merged(tenant):
    """Nor anybody into itself."""
    await imported(tenant, member("ana"))

    answers = [await merge(tenant, "ana", "ana"), await merge(tenant, "ana", "no"), await merge(tenant, "no", "ana")]

    assert [each.status for each in answers] == [400, 404, 404]


async def test_no_table_of_a_member_is_forgotten(service, database_url):
    """Whatever names a member is moved, gathered anew, or the log; whoever adds a table is told here."""
    db = await Database.connect(database_url, size=1)

    tables = {row["table_name"] for row in await db.fetch(OWNED)}

    await db.close()
    assert tables <= set(MOVED) | LEFT
