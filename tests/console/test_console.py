"""The console by HTTP alone, as a browser without script sees it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import unescape
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
import pytest

from accessguard.policies.params import PARAMS
from accessguard.rules.model import Kind
from tests.service import Service, Tenant, items, token

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>"
RTL = "\u202e\u05e9\u05dc\u05d5\u05dd \U0001f469\u200d\U0001f393"
STRANGE = "../a b/%2e%2F?#&ø\U0001f469"
FIELD = re.compile(r'<input type="hidden" name="form" value="([^"]+)">')
INLINE = re.compile(r"<script(?![^>]*\ssrc=)|\son[a-z]+=|\sstyle=|<style|javascript:", re.IGNORECASE)


@dataclass
class Page:
    """What came back."""

    status: int
    text: str
    headers: Any


@dataclass
class Browser:
    """Keeps the cookie, follows nothing; `form` is what the last page's forms carry."""

    service: Service
    cookie: str = ""
    form: str = ""
    headers: dict[str, str] = field(default_factory=dict)

    async def get(self, path: str, **headers: str) -> Page:
        """Open a page."""
        return await self._call("GET", path, headers=headers)

    async def post(
        self, path: str, said: dict[str, Any] | None = None, *, form: str | None = None, **headers: str
    ) -> Page:
        """Send a form of the last page; a field may have several values."""
        sent = {"form": self.form if form is None else form} | (said or {})
        fields = [
            (name, each) for name, value in sent.items() for each in (value if isinstance(value, list) else [value])
        ]
        return await self._call("POST", path, data=fields, headers=headers)

    async def _call(self, method: str, path: str, *, headers: dict[str, str], **more: Any) -> Page:
        sent = {"Cookie": f"__Host-ag_console={self.cookie}"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        async with self.service.http.request(
            method, self.service.url + path, headers=sent, allow_redirects=False, **more
        ) as answer:
            text = await answer.text()
            found = FIELD.search(text)
            self.form = unescape(found[1]) if found else self.form
            for said in answer.headers.getall("Set-Cookie", []):
                assert all(each in said for each in ("HttpOnly", "Secure", "SameSite=Strict", "Path=/")), said
                self.cookie = said.split(";")[0].partition("=")[2].strip('"')
            return Page(answer.status, text, answer.headers)


async def signed_in(tenant: Tenant, role: str = "supervisor", subject: str = "eva") -> Browser:
    """Somebody who has pasted a token."""
    browser = Browser(tenant.service)
    answer = await browser.post("/console/sign-in", {"token": token(tenant.name, role, subject)})
    assert answer.status == 303, answer.text
    return browser


def contact(member: str) -> str:
    """The page of a member."""
    return f"/console/contacts/~{quote(member, safe='')}"


async def school(tenant: Tenant, member: str = "ana") -> tuple[str, str]:
    """A member with two devices, one of which was refused; the session and the device that are in."""
    await tenant.rule("device_limit", "deny_new", max=1)
    first = await tenant.login(member)
    assert first["decision"] == "allow"
    refused = await tenant.login(
        member, user_agent="Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0"
    )
    assert refused["decision"] == "deny"
    return first["session"]["id"], first["device"]["id"]


async def test_a_link_signs_in_once_and_with_the_role_of_the_token_that_asked_for_it(tenant: Tenant) -> None:
    """The second use finds nothing; the first one gives a session of that operator, role and tenant."""
    link = (await tenant.call("POST", "/v1/console/links", role="supervisor", subject="eva"))["path"]
    browser, other = Browser(tenant.service), Browser(tenant.service)
    page = await browser.get(link + "&next=/console/account")
    sent = {"t": unescape(re.search(r'name="t" value="([^"]+)"', page.text)[1]), "next": "/console/account"}  # type: ignore[index]

    first, second = await browser.post("/console/enter", sent), await other.post("/console/enter", sent)

    assert (first.status, first.headers["Location"], second.status) == (303, "/console/account", 403)
    account = await browser.get("/console/account")
    assert "eva" in account.text
    assert "Supervisor" in account.text
    assert tenant.name in account.text
    assert (await other.get("/console/account")).status == 303


async def test_a_link_is_too_old_after_two_minutes(tenant: Tenant) -> None:
    """What was not used by then is void."""
    link = (await tenant.call("POST", "/v1/console/links", role="attendant"))["path"]
    browser = Browser(tenant.service)
    tenant.service.clock.forward(121_000)

    answer = await browser.post("/console/enter", {"t": link.partition("t=")[2]})

    assert answer.status == 403
    assert not browser.cookie


@pytest.mark.parametrize(("steps", "goes_on"), [([29] * 3, True), ([31], False), ([29] * 25, False)])
async def test_a_session_ends_when_idle_and_at_the_latest_after_half_a_day(
    tenant: Tenant, steps: list[int], goes_on: bool
) -> None:
    """30 minutes without a page, or 12 hours in all."""
    browser = await signed_in(tenant)

    last = await browser.get("/console/account")
    for minutes in steps:
        tenant.service.clock.forward(minutes * 60_000)
        last = await browser.get("/console/account")

    assert last.status == (200 if goes_on else 303)


async def test_signing_out_everywhere_ends_every_session_of_the_operator_and_no_other(tenant: Tenant) -> None:
    """Two browsers of one operator, one of another."""
    one, two, other = await signed_in(tenant), await signed_in(tenant), await signed_in(tenant, subject="ugo")
    await one.get("/console/account")

    await one.post("/console/sign-out", {"everywhere": "yes"})

    assert [(await each.get("/console/account")).status for each in (two, other)] == [303, 200]


@pytest.mark.parametrize("spoilt", ["", "platform", "forged"])
async def test_who_shows_no_operators_token_is_not_signed_in(tenant: Tenant, spoilt: str) -> None:
    """The platform's own token is none; a forged cookie is no session."""
    browser = Browser(tenant.service, cookie="v1.s1.AAAA.BBBB")
    given = {"": "", "platform": token(tenant.name, "platform"), "forged": token(tenant.name, "root")[:-3] + "AAA"}

    answer = await browser.post("/console/sign-in", {"token": given[spoilt]})

    assert answer.status == 403
    assert (await browser.get("/console/contacts")).headers["Location"] == "/console/sign-in?next=%2Fconsole%2Fcontacts"


async def test_a_form_of_another_page_changes_nothing(tenant: Tenant) -> None:
    """Without this session's token, or from another site, a block is refused."""
    _, device = await school(tenant)
    browser, other = await signed_in(tenant), await signed_in(tenant)
    await other.get("/console/account")
    await browser.get(contact("ana") + "/devices")
    path, said = f"{contact('ana')}/devices/{device}", {"access": "blocked"}

    answers = [
        await browser.post(path, said, form=""),
        await browser.post(path, said, form=other.form),
        await browser.post(path, said, Sec_Fetch_Site="cross-site"),
        await browser.post(path, said, Origin="https://evil.example"),
    ]

    assert [each.status for each in answers] == [403] * 4
    shown = await tenant.see("/v1/members/ana/devices")
    assert {each["access"] for each in items(shown)} == {"default"}


@pytest.mark.parametrize(
    "wanted", ["/console/../v1/me", "/console/x/%2E%2e/..//evil.example", "//evil.example", "/console/\\\\evil"]
)
async def test_nobody_is_sent_on_to_what_is_no_page_of_the_console(tenant: Tenant, wanted: str) -> None:
    """After signing in, and after a form."""
    browser = Browser(tenant.service)

    entered = await browser.post("/console/sign-in", {"token": token(tenant.name, "supervisor", "eva"), "next": wanted})

    assert (entered.status, entered.headers["Location"]) == (303, "/console/")


async def test_the_head_of_a_page_is_the_head_of_that_page(tenant: Tenant) -> None:
    """A monitor that asks for heads alone learns what a browser does."""
    heads, browser = Browser(tenant.service), await signed_in(tenant)

    assert (await heads._call("HEAD", "/console/sign-in", headers={})).status == 200
    assert (await browser._call("HEAD", "/console/contacts", headers={})).status == 200
    assert (await heads._call("HEAD", "/console/contacts", headers={})).status == 303


@pytest.mark.parametrize("path", ["/console/restrictions", "/console/restrictions.csv", "/console/activity"])
async def test_the_last_of_all_days_is_a_day(tenant: Tenant, path: str) -> None:
    """Nothing comes after it, so that it ends nothing."""
    await tenant.login()
    browser = await signed_in(tenant, "administrator")

    assert (await browser.get(f"{path}?from=0001-01-01&to=9999-12-31&show=all")).status == 200


async def test_an_operator_blocks_a_device_and_the_next_check_is_refused(tenant: Tenant) -> None:
    """The button does what the call of the API does, and the audit log names the operator."""
    session, device = await school(tenant)
    browser = await signed_in(tenant)
    page = await browser.get(contact("ana") + "/devices")

    answer = await browser.post(f"{contact('ana')}/devices/{device}", {"access": "blocked", "reason": "shared"})

    assert "Block this device" in page.text
    assert answer.headers["Location"] == f"{contact('ana')}?done=blocked"
    assert (await tenant.check(session))["reason"]["code"] == "device_blocked"
    log = items(await tenant.call("GET", "/v1/audit?action=device.change", role="administrator"))
    assert [(each["actor"], each["reason"]) for each in log] == [("eva", "shared")]


async def test_an_operator_looks_after_a_contact(tenant: Tenant) -> None:
    """Checks off with until and why, a pass, a note, a comment, a name, an ended session: all of it is on the card."""
    session, device = await school(tenant)
    browser, there = await signed_in(tenant), contact("ana")
    await browser.get(there)

    done = [
        await browser.post(there + "/checks", {"checks_enabled": "false", "until": "", "reason": "an exam"}),
        await browser.post(there + "/passes", {"kind": "extra_device", "until": _soon(tenant)}),
        await browser.post(there + "/note", {"note": f"note {RTL}"}),
        await browser.post(there + "/comments", {"text": HOSTILE}),
        await browser.post(f"{there}/devices/{device}", {"name": "Kitchen"}),
        await browser.post(f"{there}/sessions/~{session}/end"),
    ]

    assert [each.status for each in done] == [303] * 6, [each.text for each in done if each.status != 303]
    card = (await tenant.see("/v1/members/ana")).body
    assert (card["checks_enabled"], card["checks_reason"], card["note"]) == (False, "an exam", f"note {RTL}")
    assert [each["text"] for each in card["comments"]] == [HOSTILE]
    assert len(card["passes"]) == 1
    assert card["live_sessions"] == []
    assert "Kitchen" in [each["name"] for each in card["known_devices"]]
    history = (await browser.get(there)).text
    assert all(each in history for each in ("Checks off", "Too many devices", "Firefox · Linux"))


async def test_restrictions_are_marked_one_by_one_by_selection_and_up_to_here(tenant: Tenant) -> None:
    """Each way does what it says, and the page of what is unread is empty afterwards."""
    for member in ("ana", "bo", "cy"):
        await school(tenant, member)
    browser = await signed_in(tenant)
    page = await browser.get("/console/restrictions")
    ids = re.findall(r'name="ids" value="([^"]+)"', page.text)

    await browser.post("/console/restrictions/mark", {"read": "true", "one": ids[0]})
    after_one = await browser.get("/console/restrictions")
    await browser.post("/console/restrictions/mark", {"read": "true", "ids": ids[1]})
    after_two = await browser.get("/console/restrictions")
    up_to = re.search(r'name="up_to" value="([^"]+)"', after_two.text)
    await browser.post("/console/restrictions/mark", {"read": "true", "up_to": unescape(up_to[1]) if up_to else ""})
    after_all = await browser.get("/console/restrictions")
    none = await browser.post("/console/restrictions/mark", {"read": "true"})

    left = [len(re.findall('name="ids"', each.text)) for each in (page, after_one, after_two, after_all)]
    assert (left[0] - left[1], left[1] - left[2], left[3]) == (1, 1, 0), left
    assert none.status == 400
    assert "Everything is read." in after_all.text
    await browser.post(f"/console/restrictions/{ids[0]}", {"resolution": "false_alarm", "note": "a family"})
    everything = (await browser.get("/console/restrictions?show=all")).text
    assert "False alarm" in everything
    assert "a family" in everything


async def test_what_a_role_may_not_do_is_not_shown_and_is_refused(tenant: Tenant) -> None:
    """An attendant searches contacts and sees no device, no session, no restriction."""
    _, device = await school(tenant)
    browser = await signed_in(tenant, "attendant")
    listed, card = await browser.get("/console/contacts"), await browser.get(contact("ana"))
    await browser.get("/console/account")

    refused = [
        await browser.get(contact("ana") + "/devices"),
        await browser.get("/console/restrictions"),
        await browser.post(f"{contact('ana')}/devices/{device}", {"access": "blocked"}),
        await browser.post(f"{contact('ana')}/checks", {"checks_enabled": "false"}),
    ]

    assert (listed.status, card.status) == (200, 200)
    for word in ("Restrictions", "203.0.113.9", "/devices", "Switch checks off", "unread restriction"):
        assert word not in listed.text
        assert word not in card.text
    assert [each.status for each in refused] == [403] * 4


@pytest.mark.parametrize("member", [STRANGE, "..", "x" * 128, HOSTILE[:60]])
async def test_every_page_is_whole_with_hostile_names_and_runs_nothing_inline(tenant: Tenant, member: str) -> None:
    """Names, agents and ids with markup are shown as they are; the policy allows our own files alone."""
    await school(tenant, member)
    said = {"name": HOSTILE + RTL, "email": "<b>@example.com", "tags": [HOSTILE]}
    named = await tenant.call("PUT", f"/v1/members/{quote(member, safe='')}", said)
    await tenant.login(member, user_agent=HOSTILE, outcome="failure", failure_reason="password")
    browser, there = await signed_in(tenant), contact(member)

    pages = [
        await browser.get(path)
        for path in (
            "/console/contacts",
            "/console/contacts?" + urlencode({"q": "alert", "sort": "unread", "restricted": "true"}),
            there,
            *(f"{there}/{tab}" for tab in ("sessions", "devices", "restrictions", "notes")),
            "/console/restrictions",
            "/console/overview",
            "/console/account",
        )
    ]

    assert [each.status for each in pages] == [200] * len(pages)
    for each in pages:
        assert not INLINE.search(re.sub(r">[^<]*<", "><", re.sub(r'"[^"]*"', '""', each.text))), each.text
        assert "<script>alert" not in each.text
        assert "<img src=x" not in each.text
        assert "<b>@" not in each.text
        policy = each.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert each.headers["Cache-Control"] == "no-store"
        assert each.headers["X-Content-Type-Options"] == "nosniff"
        assert "http" not in " ".join(re.findall(r'(?:src|href|action)="([^"]*)"', each.text))
    assert named.status == 404 or HOSTILE + RTL in unescape(pages[2].text)  # a client takes `/..` away by itself


async def test_pages_are_found_by_search_turned_and_missed_politely(tenant: Tenant) -> None:
    """The next page goes on where the first one ended; what is not there is a page, too."""
    for number in range(51):
        await tenant.call("PUT", f"/v1/members/m{number:02}", {"name": f"Student {number:02}"})
    browser = await signed_in(tenant)

    first = await browser.get("/console/contacts?sort=name")
    onward = re.search(r'href="([^"]+)" rel="next"', first.text)
    second = await browser.get(unescape(onward[1]) if onward else "")
    missing = [
        await browser.get(path) for path in ("/console/nothing", contact("nobody"), "/console/contacts?cursor=x")
    ]

    assert "Student 49" in first.text
    assert "Student 50" not in first.text
    assert "Student 50" in second.text
    assert [each.status for each in missing] == [404, 404, 400]
    assert all("<h1>" in each.text for each in missing)


async def test_an_administrator_tries_a_rule_sees_who_would_be_stopped_and_saves_it(tenant: Tenant) -> None:
    """Trying saves nothing; what is wrong is said beside what was typed; saving makes a version that a sentence tells."""
    for agent in (142, 143):
        await tenant.login(
            "ana", user_agent=f"Mozilla/5.0 (X11; Linux x86_64; rv:{agent}.0) Gecko/20100101 Firefox/{agent}.0"
        )
    browser, supervisor = await signed_in(tenant, "administrator"), await signed_in(tenant)
    empty = await browser.get("/console/rules/new?kind=device_limit")
    said = {
        "kind": "device_limit",
        "max": "1",
        "window_days": "30",
        "per": "member",
        "action": "deny_new",
        "mode": "enforce",
    }

    wrong = await browser.post("/console/rules/new/try", said | {"max": "none", "name": HOSTILE})
    tried = await browser.post("/console/rules/new/try", said)
    before = list(items(await tenant.call("GET", "/v1/rules", role="administrator")))
    saved = await browser.post("/console/rules/new", said)

    assert (empty.status, wrong.status, tried.status, saved.status) == (200, 400, 200, 303)
    assert "/params/max" in wrong.text
    assert HOSTILE in unescape(wrong.text)
    assert "Would have been stopped: 1 of 1 contacts. Refusals: 1." in tried.text
    assert "<rect" in tried.text
    assert before == []
    (rule,) = items(await tenant.call("GET", "/v1/rules", role="administrator"))
    assert (rule["params"]["max"], rule["mode"]) == (1, "enforce")
    page = await browser.get(f"/console/rules/{rule['id']}")
    await browser.post(f"/console/rules/{rule['id']}", said | {"max": "2", "reason": "a family"})
    versions = await browser.get(f"/console/rules/{rule['id']}/versions")
    assert "At most 1 device within 30 days" in page.text
    assert all(each in versions.text for each in ("At most 1 device", "At most 2 devices", "a family"))
    assert (await supervisor.get("/console/rules")).status == 403


async def test_the_overview_counts_what_was_let_in_and_what_was_refused(tenant: Tenant) -> None:
    """One login that got in, one that a rule refused; each chart has its table for who sees no drawing."""
    await school(tenant)
    browser = await signed_in(tenant)

    page = await browser.get("/console/overview")

    assert re.findall(r'<h2>(.*?) <span class="count plain">(\d+)', page.text) == [
        ("Logins that got in", "1"),
        ("Logins that did not", "1"),
        ("Refused by rules", "1"),
    ]
    assert page.text.count("<rect") == page.text.count("As a table") == 3
    assert "Too many devices" in page.text


@pytest.mark.parametrize("kind", list(Kind))
async def test_every_kind_of_rule_has_a_form(tenant: Tenant, kind: Kind) -> None:
    """Made from the struct that decodes its parameters, so that none is forgotten."""
    browser = await signed_in(tenant, "administrator")

    page = await browser.get(f"/console/rules/new?kind={kind}")

    assert page.status == 200
    for name in msgspec.structs.fields(PARAMS[kind]):
        assert name.name in ("escalation", "swaps") or f'name="{name.name}"' in page.text


@pytest.mark.parametrize("name", ["console.css", "console.js", "mark.svg"])
async def test_the_files_of_a_page_are_small_and_kept(tenant: Tenant, name: str) -> None:
    """All together are far below the 100 KB of a first page."""
    async with tenant.service.http.get(f"{tenant.service.url}/console/static/{name}") as answer:
        body = await answer.read()

    assert answer.status == 200
    assert "immutable" in answer.headers["Cache-Control"]
    assert 0 < len(body) < 30_000
    assert "nosniff" in answer.headers["X-Content-Type-Options"]


def _soon(tenant: Tenant) -> str:
    """An hour from now, as a `datetime-local` field of a school in UTC says it."""
    return datetime.fromtimestamp(tenant.service.clock() / 1000 + 3600, tz=UTC).strftime("%Y-%m-%dT%H:%M")


async def test_a_language_that_there_is_not_is_refused_and_the_browsers_own_can_be_had_back(tenant: Tenant) -> None:
    """Nothing is kept of it; the empty choice is what the browser asks for again."""
    browser = await signed_in(tenant)
    await browser.get("/console/account")

    answers = [(await browser.post("/console/language", {"language": each})).status for each in ("ru", "tlh", "")]
    kept = await browser.get("/console/account", Accept_Language="es")

    assert answers == [303, 400, 303]
    assert '<html lang="es">' in kept.text
