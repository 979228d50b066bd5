"""What operators do on the console's pages besides looking: many contacts at once, filters, files, who is on, rules, webhooks."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import AsyncIterator
from html import unescape
from typing import Any

import msgspec
import pytest
from aiohttp import ClientResponse

from accessguard.console import live
from tests.console.test_console import HOSTILE, RTL, STRANGE, Browser, Page, contact, signed_in
from tests.service import Tenant

HIDDEN = re.compile(r'name="(\w+)" value="([^"]*)"')


def rows(page: Page) -> list[dict[str, str]]:
    """A file as its rows."""
    return list(csv.DictReader(io.StringIO(page.text)))


def hidden(page: Page) -> dict[str, str]:
    """What the last form of a page carries besides what is typed."""
    return {name: unescape(value) for name, value in HIDDEN.findall(page.text.rpartition("<form")[2])}


async def over(browser: Browser, page: Page) -> Page:
    """The page of a job when it has come to its end."""
    assert page.status == 303, page.text
    found = await browser.get(page.headers["Location"])
    while "data-again" in found.text:
        found = await browser.get(page.headers["Location"])
    assert found.status == 200
    return found


async def test_a_file_holds_every_contact_that_the_filters_find(tenant: Tenant) -> None:
    """All pages of them, whatever their ids; nobody else; and a browser keeps it as a file."""
    for number in range(60):
        await tenant.call("PUT", f"/v1/members/m{number:02}", {"name": f"Ann {number:02}", "tags": ["a"]})
    await tenant.call("PUT", "/v1/members/other", {"name": "Bob"})
    browser = await signed_in(tenant)

    file = await browser.get("/console/contacts.csv?tag=a&sort=name")

    assert [each["member_id"] for each in rows(file)] == sorted(f"m{number:02}" for number in range(60))
    assert file.headers["Content-Disposition"] == 'attachment; filename="contacts.csv"'
    assert file.headers["Cache-Control"] == "no-store"


async def test_a_filter_that_is_kept_is_there_at_the_next_login_and_for_nobody_else(tenant: Tenant) -> None:
    """It leads to its contacts, whatever its name says; forgotten, it is gone."""
    browser = await signed_in(tenant)
    await browser.get("/console/contacts?status=active")
    saved = {"name": HOSTILE[:60], "query": f"tag={RTL}&status=active&cursor=x"}
    assert (await browser.post("/console/contacts/filters", saved)).status == 303

    again, other = await signed_in(tenant), await signed_in(tenant, subject="other")
    page, theirs = await again.get("/console/contacts"), await other.get("/console/contacts")

    link = unescape(re.search(r'class="chip" href="([^"]+)"', page.text)[1])  # type: ignore[index]
    assert "cursor" not in link
    assert "<img src=x" not in page.text
    assert 'class="chip"' not in theirs.text
    assert (await again.get(link)).status == 200
    await again.post("/console/contacts/filters/drop", {"name": saved["name"]})
    assert 'class="chip"' not in (await again.get("/console/contacts")).text


async def test_tags_go_to_those_who_are_chosen(tenant: Tenant) -> None:
    """By their ids, strange ones too; the page of the job says how many were changed."""
    for member in (STRANGE, RTL, "third"):
        await tenant.login(member)
    browser = await signed_in(tenant)
    await browser.get("/console/contacts")

    page = await browser.post("/console/contacts/bulk", {"whom": "chosen", "ids": [STRANGE, RTL]})
    begun = await browser.post("/console/contacts/bulk/begin", hidden(page) | {"action": "tag", "tags": "one\ntwo"})
    done = await over(browser, begun)

    assert "2 contacts were changed" in done.text
    found = rows(await browser.get("/console/contacts.csv?tag=two"))
    assert sorted(each["member_id"] for each in found) == sorted([STRANGE, RTL])


async def test_what_cannot_be_undone_is_asked_twice(tenant: Tenant) -> None:
    """The first time nobody is erased; the second time exactly who was shown; a supervisor is refused."""
    await tenant.call("PUT", "/v1/members/gone", {"name": "Gone", "tags": ["left"]})
    await tenant.call("PUT", "/v1/members/stays", {"name": "Stays"})
    browser, lesser = await signed_in(tenant, "administrator"), await signed_in(tenant)
    await browser.get("/console/contacts?tag=left")
    whom = await browser.post("/console/contacts/bulk", {"whom": "found", "query": "tag=left"})
    asked = hidden(whom) | {"action": "erase", "mode": "erase", "reason": HOSTILE}

    sure = await browser.post("/console/contacts/bulk/begin", asked)
    before = await browser.get(contact("gone"))
    await lesser.get("/console/contacts")
    refused = await lesser.post("/console/contacts/bulk/begin", {**asked, "form": lesser.form})
    done = await over(browser, await browser.post("/console/contacts/bulk/confirm", hidden(sure)))

    assert (sure.status, before.status, refused.status) == (200, 200, 403)
    assert "<img src=x" not in sure.text
    assert "1 contact was changed" in done.text
    assert (await browser.get(contact("gone"))).status == 404
    assert (await browser.get(contact("stays"))).status == 200


async def test_the_restrictions_are_a_file_too(tenant: Tenant) -> None:
    """With what each was in words; the filters of the page hold for it."""
    await tenant.rule("device_limit", "deny_new", max=1)
    for member in ("ana", "ben"):
        await tenant.login(member)
        await tenant.login(member, user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0")
    browser = await signed_in(tenant)
    page = await browser.get("/console/restrictions?member_id=ana")
    link = unescape(re.search(r'href="(/console/restrictions\.csv[^"]*)"', page.text)[1])  # type: ignore[index]

    file: list[dict[str, Any]] = rows(await browser.get(link))

    assert [(each["member_id"], each["code"]) for each in file] == [("ana", "device_limit")]
    assert "2 devices in use" in file[0]["summary"]


async def frames(answer: ClientResponse) -> AsyncIterator[str]:
    """What the pages' stream shows, one list after the other."""
    async for line in answer.content:
        if line.startswith(b"data: "):
            yield msgspec.json.decode(line[6:])["html"]


async def test_who_is_on_is_listed_by_the_newest_activity_page_after_page(tenant: Tenant) -> None:
    """Those who have logged out since are not; the pages together hold everybody once."""
    members = [f"m{number:02}" for number in range(33)]
    for member in members:
        session = await tenant.login(member)
        await tenant.check(session, activity="lesson_open", resource=HOSTILE)
        tenant.service.clock.forward(1_000)
    gone = await tenant.login("gone")
    await tenant.check(gone, activity="lesson_open")
    await tenant.call("POST", f"/v1/sessions/{gone['session']['id']}/end", {"reason": "logout"})
    browser = await signed_in(tenant)

    first = await browser.get("/console/live")
    second = await browser.get(unescape(re.search(r'href="([^"]+)" rel="next"', first.text)[1]))  # type: ignore[index]

    assert "33 contacts are on." in first.text
    assert "<img src=x" not in first.text
    found = [re.findall(r'id="m-(\w+)"', page.text) for page in (first, second)]
    assert found[0] + found[1] == members[::-1]
    assert "data-stream" not in second.text
    assert (await (await signed_in(tenant, "attendant")).get("/console/live")).status == 403


async def test_a_session_that_is_ended_leaves_the_list_of_those_who_look_on(
    tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list is sent anew without a reload; when the operator signs out, the stream ends."""
    monkeypatch.setattr(live, "REST_S", 0.1)
    monkeypatch.setattr(live, "LOOK_S", 0.5)
    session = await tenant.login("ana")
    await tenant.check(session, activity="video_watch")
    browser = await signed_in(tenant)
    await browser.get("/console/live")
    address = f"{tenant.service.url}/console/live/events?within=30"
    cookie = {"Cookie": f"__Host-ag_console={browser.cookie}"}

    async with tenant.service.http.get(address, headers=cookie) as answer:
        shown = frames(answer)
        before = await anext(shown)
        path = f"{contact('ana')}/sessions/~{session['session']['id']}/end"
        ended = await browser.post(path, {"back": "/console/live?within=30"})
        after = await anext(shown)
        await browser.post("/console/sign-out")
        rest = [each async for each in shown]

    assert (answer.content_type, ended.headers["Location"]) == (
        "text/event-stream",
        "/console/live?within=30&done=session",
    )
    assert "~ana" in before
    assert "~ana" not in after
    assert not rest


async def rules(tenant: Tenant) -> list[dict[str, Any]]:
    """The rules as the API reads them."""
    found: list[dict[str, Any]] = (await tenant.call("GET", "/v1/rules", role="administrator"))["items"]
    return found


async def test_a_form_says_for_whom_a_rule_is_how_it_grows_and_whether_places_may_be_freed(tenant: Tenant) -> None:
    """What is left empty is not there; what is no number is said beside the form, and nothing is saved."""
    for each in await rules(tenant):
        await tenant.call("DELETE", f"/v1/rules/{each['id']}", role="administrator")
    browser = await signed_in(tenant, "administrator")
    await browser.get("/console/rules/new?kind=device_limit")
    said = {
        "kind": "device_limit", "name": HOSTILE, "mode": "observe", "action": "deny_new", "max": "3", "window_days": "",
        "per": "member", "priority": "7", "message": "", "escalation.asked": "yes", "escalation.challenge_after": "",
        "escalation.deny_after": "5", "escalation.days": "14", "swaps.asked": "yes", "swaps.max": "", "swaps.window_days": "30",
        "only.tags": f"{RTL}\n\n{RTL}\nvip", "only.except_tags": "", "only.products": "a/b", "only.apps": "",
        "only.device_classes": ["mobile"],
    }  # fmt: skip

    wrong = await browser.post("/console/rules/new/say", said | {"max": "many"})
    right = await browser.post("/console/rules/new/say", said)
    saved = await browser.post("/console/rules/new", said)

    assert "/params/max" in wrong.text
    assert "At most 3 devices in all" in right.text
    assert saved.status == 303, saved.text
    (made,) = await rules(tenant)
    assert made["params"]["escalation"] == {"days": 14, "challenge_after": None, "deny_after": 5}
    assert not made["params"].get("swaps")
    assert (made["priority"], made["params"]["window_days"]) == (7, None)
    assert made["applies_to"] == {
        "tags": [RTL, "vip"], "except_tags": [], "products": ["a/b"], "apps": [], "device_classes": ["mobile"],
    }  # fmt: skip
    assert "<img src=x" not in (await browser.get(f"/console/rules/{made['id']}")).text


async def test_versions_are_told_apart_in_words_and_an_old_one_can_be_the_newest(tenant: Tenant) -> None:
    """Each says what changed by it; the form of an old one saves its values as the next version; so does one that is deleted."""
    rule = (await tenant.rule("ip_deny", networks=["203.0.113.0/24", "198.51.100.7"], mode="observe"))["id"]
    changed = {"kind": "ip_deny", "mode": "off", "params": {"networks": ["198.51.100.7", "192.0.2.1"]}, "name": HOSTILE}
    await tenant.call("PUT", f"/v1/rules/{rule}", changed, role="administrator")
    browser = await signed_in(tenant, "administrator")

    versions = await browser.get(f"/console/rules/{rule}/versions")
    old = await browser.get(unescape(re.search(r'href="([^"]+\?version=1)"', versions.text)[1]))  # type: ignore[index]

    words = re.sub(r"<[^>]+>|\s+", " ", versions.text)
    assert re.search(r"Mode: +Observe: count and record, refuse nobody +→ +Off", words)
    assert re.search(r"Networks, one a line: +203\.0\.113\.0/24 +→ +192\.0\.2\.1 ", words)
    assert "<img src=x" not in versions.text
    assert "203.0.113.0/24" in old.text
    sent = {"mode": "observe", "action": "deny", "networks": "203.0.113.0/24\n198.51.100.7"}
    assert (await browser.post(f"/console/rules/{rule}", sent)).status == 303
    assert next(each for each in await rules(tenant) if each["id"] == rule)["version"] == 3
    await browser.post(f"/console/rules/{rule}/delete")
    assert (await browser.get(f"/console/rules/{rule}/versions/1/again")).status == 200


async def test_a_set_of_rules_is_observed_until_it_is_enforced(tenant: Tenant) -> None:
    """Beginning with it refuses nobody; one button enforces a rule that was observed, and leaves the rest of it as it was."""
    for each in await rules(tenant):
        await tenant.call("DELETE", f"/v1/rules/{each['id']}", role="administrator")
    browser = await signed_in(tenant, "administrator")
    await browser.get("/console/rules/presets")

    begun = await browser.post("/console/rules/presets/kwiga-like")
    before = await rules(tenant)
    shown = await browser.get(f"/console/rules/{before[1]['id']}")
    switched = await browser.post(f"/console/rules/{before[1]['id']}/mode", {"mode": "enforce"})
    after = await rules(tenant)

    assert (begun.status, switched.status) == (303, 303)
    assert {each["mode"] for each in before} == {"observe"}
    assert "found something 0 times" in shown.text
    assert [each["mode"] for each in after].count("enforce") == 1
    assert after[1]["params"] == before[1]["params"]
    assert (await browser.post("/console/rules/presets/none")).status == 404


async def test_a_secret_of_a_webhook_is_shown_once(tenant: Tenant) -> None:
    """On the page that made it and on no other; what is wrong is said beside the form; deleted, it is gone; a supervisor sees none."""
    browser = await signed_in(tenant, "administrator")
    await browser.get("/console/webhooks")

    wrong = await browser.post("/console/webhooks", {"url": "gopher://x", "events": ["violation"]})
    made = await browser.post("/console/webhooks", {"url": "https://hook.example/", "events": ["violation"]})
    said = {"url": "https://hook.example/t", "events": ["session_ended"], "format": "caep", "audience": "school<>"}
    digest = await browser.post("/console/webhooks", said | {"digest": "day"})
    tokens = await browser.post("/console/webhooks", said)
    again = await browser.get("/console/webhooks")

    assert (wrong.status, made.status, digest.status, tokens.status) == (400, 200, 400, 200)
    assert '<option value="caep" selected>' in digest.text
    assert "school&lt;&gt;" in again.text
    assert "whsec_" in made.text
    assert "whsec_" not in again.text
    one = re.search(r"/console/webhooks/[0-9a-f-]{36}", again.text)
    assert one is not None
    assert (await browser.get(one[0])).status == 200
    assert (await browser.post(f"{one[0]}/delete")).status == 303
    assert (await browser.get(one[0])).status == 404
    assert (await (await signed_in(tenant)).get("/console/webhooks")).status == 403


async def test_operators_are_signed_out_by_themselves_and_by_administrators(tenant: Tenant) -> None:
    """One of one's browsers, or another operator's all; it is in the activity of operators, found by its filters and in the file."""
    here, there = await signed_in(tenant), await signed_in(tenant)
    administrator = await signed_in(tenant, "administrator", "boss")
    page = await here.get("/console/account")
    ways = re.findall(r"/console/account/sessions/[^\"]+/end", page.text)

    assert len(ways) == 1
    assert (await here.post(ways[0])).status == 303
    assert (await there.get("/console/account")).status == 303
    await administrator.get("/console/operators")
    await administrator.post("/console/operators/end", {"operator": "eva", "reason": HOSTILE})
    assert (await here.get("/console/account")).status == 303
    found = await administrator.get("/console/activity?action=console.show_out&actor=boss&from=2020-01-01")
    assert "Operator signed out everywhere" in found.text
    assert "<img src=x" not in found.text
    assert (
        "Operator signed out"
        not in (await administrator.get("/console/activity?to=2020-01-01")).text.partition("<table")[2]
    )
    (row,) = rows(await administrator.get("/console/activity.csv?action=console.show_out"))
    assert (row["target_id"], row["actor"]) == ("eva", "boss")


async def test_a_card_says_who_else_uses_a_device_and_makes_two_contacts_one(tenant: Tenant) -> None:
    """Those with the same browser are named; two are one only for who says so twice; the bundle is a text."""
    first = await tenant.login(STRANGE)
    await tenant.login("twin", device_token=first["device"]["token"])
    browser = await signed_in(tenant)
    device = first["device"]["id"]

    users = await browser.get(f"{contact(STRANGE)}/devices/{device}/users")
    related = await browser.get(f"{contact(STRANGE)}/related")
    bundle = await browser.get(f"{contact(STRANGE)}/bundle.txt")
    unsure = await browser.post(f"{contact('twin')}/merge", {"into": STRANGE})
    merged = await browser.post(f"{contact('twin')}/merge", {"into": STRANGE, "sure": "yes"})

    assert "~twin" in users.text
    assert "Same browser" in related.text
    assert "SUPPORT BUNDLE" in bundle.text
    assert bundle.headers["Content-Disposition"] == 'attachment; filename="bundle.txt"'
    assert (unsure.status, merged.status) == (400, 303)
    assert (await browser.get(contact("twin"))).status == 404
    assert (await browser.get(merged.headers["Location"])).status == 200


async def test_what_an_operator_wants_to_see_of_changes_is_remembered(tenant: Tenant) -> None:
    """The kind that was chosen on one card holds on the next one, and says what was changed from what to what."""
    for member in ("ana", "ben"):
        device = (await tenant.login(member))["device"]["id"]
        await tenant.device(member, device, access="blocked", reason=HOSTILE)
        await tenant.call("PATCH", f"/v1/members/{member}", {"note": "seen"}, role="supervisor")
    browser = await signed_in(tenant)
    await browser.get(f"{contact('ana')}/notes")

    await browser.post(f"{contact('ana')}/notes", {"kind": "device"})
    page = await browser.get(f"{contact('ben')}/notes")

    table = page.text.partition("<table")[2]
    assert "Device changed" in table
    assert "Contact changed" not in table
    assert "blocked" in table
    assert "<img src=x" not in page.text
