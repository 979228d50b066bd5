"""What support opens every day: one member in full, what was written about it, what operators changed."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest

from accessguard.members.pages import PageStore
from tests.service import FIREFOX, Tenant, items

HOSTILE = "a/b%2Fc?d#e " + "م" * 8 + "🦉" + "x" * 105
"""128 characters: a slash, a percent sign, right to left, an emoji."""


async def opened(tenant: Tenant, session: Any, *resources: str, **more: Any) -> None:
    """These are opened one after the other, each long enough after the one before to be counted."""
    for resource in resources:
        tenant.service.clock.forward(31_000)
        checked = await tenant.check(session, activity="lesson_open", resource=resource, **more)
        assert checked["decision"] == "allow", checked.body
    await tenant.service.context.activity.flush()


async def rebuilt(tenant: Tenant) -> None:
    """The last pages are rebuilt as upkeep does it every five minutes."""
    context = tenant.service.context
    db = context.jobs._db
    tenant.service.clock.forward(60_000)
    async with db.transaction() as tx:
        now = await tx.value("SELECT to_timestamp($1::float8 / 1000)", float(tenant.service.clock()))
        while await PageStore(tx).rebuild(now, most=200) == 200:
            pass
        await tx.row(
            "INSERT INTO upkeep (job, done_at) VALUES ('pages', $1) ON CONFLICT (job) DO UPDATE SET done_at = excluded.done_at",
            now,
        )


async def test_the_card_says_in_one_call_what_its_page_shows(tenant: Tenant):
    """Profile, time and place, sessions, devices, note, comments, pass, pages and runs of one member, and of nobody else."""
    profile = {
        "name": "Ana",
        "email": "ana@example.com",
        "time_zone": "America/Sao_Paulo",
        "country": "BR",
        "city": "Recife",
    }
    await tenant.call("PUT", "/v1/members/ana", profile)
    session = await tenant.login("ana")
    await tenant.login("bea", user_agent=FIREFOX)
    await opened(tenant, session, "course:1/lesson:1", "webinar:7?run=2026-05-01", "course:1/lesson:1")
    await rebuilt(tenant)
    await tenant.call("PATCH", "/v1/members/ana", {"note": "VIP"}, role="supervisor")
    await tenant.call("POST", "/v1/members/ana/comments", {"text": "Called her."}, role="supervisor")
    until = "2999-01-01T00:00:00Z"
    off = {"checks_enabled": False, "checks_disabled_until": until, "reason": "Travels"}
    await tenant.call("PATCH", "/v1/members/ana", off, role="supervisor")

    card = await tenant.see("/v1/members/ana")

    assert card.status == 200, card.body
    assert card["local_time"] | {"at": ""} == {"at": "", "time_zone": "America/Sao_Paulo", "source": "profile"}
    assert card["local_time"]["at"].endswith("-03:00")
    assert (card["whereabouts"]["profile_country"], card["whereabouts"]["profile_city"]) == ("BR", "Recife")
    assert card["whereabouts"]["agrees"] is None
    assert [each["id"] for each in card["live_sessions"]] == [session["session"]["id"]]
    assert [each["id"] for each in card["known_devices"]] == [session["device"]["id"]]
    assert (card["note"], [each["text"] for each in card["comments"]]) == ("VIP", ["Called her."])
    assert card["exemption"]["by"] == "operator"
    assert card["exemption"]["reason"] == "Travels"
    assert [each["resource"] for each in card["last_pages"]["items"]] == [
        "course:1/lesson:1",
        "webinar:7?run=2026-05-01",
    ]
    assert card["last_pages"]["as_of"] is not None
    assert [(each["resource"], each["run"]) for each in card["runs"]] == [("webinar:7", "2026-05-01")]


async def test_the_first_time_in_a_run_stays_however_often_it_is_entered(tenant: Tenant):
    """Another run of the same webinar has a time of its own; entering a run again moves nothing."""
    session = await tenant.login("ana")
    await opened(tenant, session, "webinar:7?run=1")
    first = (await tenant.see("/v1/members/ana"))["runs"][0]

    await opened(tenant, session, "webinar:7?room=2&run=2", "webinar:7?run=1", "webinar:7")
    runs = (await tenant.see("/v1/members/ana"))["runs"]

    assert [each["run"] for each in runs] == ["2", "1"]
    assert runs[1] == first


async def test_an_attendant_sees_no_address_device_session_or_comment(tenant: Tenant):
    """Of the card there is what a list shows; bundle, comments and history are refused."""
    session = await tenant.login("ana")
    await opened(tenant, session, "webinar:7?run=1")
    await tenant.call("POST", "/v1/members/ana/comments", {"text": "Secret."}, role="supervisor")

    card = await tenant.call("GET", "/v1/members/ana", role="attendant")
    refused = [
        await tenant.call("GET", f"/v1/members/ana/{each}", role="attendant")
        for each in ("bundle", "comments", "history")
    ]

    hidden = ("live_sessions", "known_devices", "unread_cases", "comments", "related", "runs")
    assert card.status == 200
    assert [card[name] for name in hidden] == [[]] * len(hidden)
    assert card["last_pages"] == {"as_of": None, "items": []}
    assert card["whereabouts"]["seen_country"] is None
    assert [each.status for each in refused] == [403] * 3


async def test_a_comment_is_written_once_and_can_be_neither_changed_nor_taken_away(tenant: Tenant):
    """A retry under its key answers the same comment; no other method is there; blank and huge ones are refused."""
    await tenant.login(HOSTILE)
    path = f"/v1/members/{quote(HOSTILE, safe='')}/comments"
    text = "مرحبا 🦉 =1+1"
    key = {"Idempotency-Key": f"k-{tenant.name}"}

    made = [await tenant.call("POST", path, {"text": text}, role="supervisor", headers=key) for _ in range(2)]
    other = await tenant.call("POST", path, {"text": "Another"}, role="supervisor", subject="bob")
    wrong = [
        await tenant.call("POST", path, {"text": each}, role="supervisor") for each in ("", " \n", "x" * 10_001, "a\0b")
    ]
    changed = [await tenant.call(each, path, {"text": "no"}, role="root") for each in ("PUT", "PATCH", "DELETE")]
    listed = list(items(await tenant.see(path)))

    assert [each.status for each in made] == [201, 201]
    assert made[0].body == made[1].body
    assert [each["text"] for each in listed] == ["Another", text]
    assert [each["author"] for each in listed] == ["bob", f"supervisor@{tenant.name}"]
    assert other["id"] == listed[0]["id"]
    assert [each.status for each in wrong] == [400] * 4
    assert {each.status for each in changed} == {405}


async def test_the_history_of_a_member_tells_who_changed_what_of_it(tenant: Tenant):
    """Note, device and session of this member, not of another one; by actor, by kind, and by what the operator keeps."""
    mine = await tenant.login("ana")
    theirs = await tenant.login("bea", user_agent=FIREFOX)
    await tenant.call("PATCH", "/v1/members/ana", {"note": "VIP"}, role="supervisor", subject="bob")
    await tenant.device("ana", mine["device"]["id"], name="Laptop")
    await tenant.device("bea", theirs["device"]["id"], name="Phone")
    await tenant.call("POST", f"/v1/sessions/{mine['session']['id']}/end", {}, role="supervisor")
    kept = {"value": {"kind": "device", "actor": 5}}
    await tenant.call("PUT", "/v1/preferences/member_history", kept, role="supervisor")

    async def acts(query: str = "") -> list[str]:
        return [each["action"] for each in items(await tenant.see("/v1/members/ana/history" + query))]

    assert await acts() == ["session.end", "device.change", "member.change"]
    assert await acts("?actor=bob") == ["member.change"]
    assert await acts("?kind=device") == ["device.change"]
    assert await acts("?kind=member.change") == ["member.change"]
    assert await acts("?remembered=true") == ["device.change"]
    assert await acts("?remembered=true&kind=session.end") == ["session.end"]
    assert await acts("?to=2001-01-01T00:00:00Z") == []


async def test_a_preference_is_its_operators_alone_and_bounded(tenant: Tenant):
    """Another operator finds nothing under the name; what is too long, or one too many, is refused."""
    path = "/v1/preferences/members.columns"

    kept = await tenant.call("PUT", path, {"value": {"columns": ["name"]}}, role="attendant")
    mine = await tenant.call("GET", path, role="attendant")
    other = await tenant.call("GET", path, role="attendant", subject="bob")
    long = await tenant.call("PUT", path, {"value": {"x": "y" * 9_000}}, role="attendant")
    wrong = await tenant.call("PUT", "/v1/preferences/No", {"value": {}}, role="attendant")
    more = [
        await tenant.call("PUT", f"/v1/preferences/p{number}", {"value": {}}, role="attendant") for number in range(50)
    ]

    assert kept.body == mine.body
    assert mine["value"] == {"columns": ["name"]}
    assert (other["value"], other["updated_at"]) == ({}, None)
    assert [long.status, wrong.status] == [400, 404]
    assert [each.status for each in more] == [200] * 49 + [409]


async def test_the_support_bundle_answers_what_a_help_desk_asks(tenant: Tenant):
    """Account, browser and version, address, resources and the reasons of verdicts; the same as text, a line for each."""
    await tenant.call("PUT", "/v1/members/ana", {"name": "Ana\nof the \u202eforged line", "phone": "+55 11 91234-5678"})
    session = await tenant.login("ana")
    await opened(tenant, session, "course:1/lesson:1", product_id="course-1")
    await tenant.rule("ip_deny", networks=["198.51.100.0/24"])
    denied = await tenant.login("ana", ip="198.51.100.7")

    bundle = await tenant.see("/v1/members/ana/bundle")
    text = await tenant.see("/v1/members/ana/bundle", headers={"Accept": "text/plain"})

    assert denied["decision"] == "deny"
    assert bundle["account"]["phone"] == "+55 11 91234-5678"
    device = next(each for each in bundle["devices"] if each["id"] == session["device"]["id"])
    assert (device["browser"], device["via"]) == ("Chrome", "web")
    assert device["browser_version"].startswith("142")
    assert [each["resource"] for each in bundle["resources"]] == ["course:1/lesson:1"]
    assert [each["id"] for each in bundle["sessions"]] == [session["session"]["id"]]
    reasons = {(each["entry"], each["decision"], each["code"]) for each in bundle["verdicts"]}
    assert {("login", "allow", None), ("login", "deny", "ip_denied"), ("case", "denied", "ip_denied")} <= reasons
    assert all(each["reason"] for each in bundle["verdicts"] if each["code"])
    assert text.headers["Content-Type"] == "text/plain; charset=utf-8"
    words = text.body.decode()
    assert "Name: Ana of the  forged line" in words
    assert session["session"]["id"] in words
    assert "ip_denied" in words


@pytest.mark.parametrize("path", ["", "/bundle", "/comments", "/history"])
async def test_nobody_elses_member_is_found(tenant: Tenant, path: str):
    """What is another tenant's, or nobody's, is not there."""
    other = tenant.service.tenant()
    await other.login("ana")

    answer = await tenant.see(f"/v1/members/ana{path}")

    assert answer.status == 404
