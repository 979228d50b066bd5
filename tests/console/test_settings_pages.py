"""The settings in the console: the same truth as `PUT /v1/settings`, one subject at a time."""

from __future__ import annotations

import re
from html import unescape
from typing import Any

import pytest

from accessguard.console.document import SECTIONS
from accessguard.console.names import HINTS, SETTING_CHOICES, SETTINGS, WRONG
from tests.console.test_console import HOSTILE, Browser, Page, signed_in
from tests.service import Tenant

HOST = "one.example"
ALL: dict[str, Any] = {
    "name": "Scuola",
    "support_email": "help@school.example",
    "time_zone": "Europe/Rome",
    "languages": ["it", "en"],
    "failure_mode": "closed",
    "brand": {"color_one": "#123456", "color_two": None, "logo_url": None, "favicon_url": None, "copyright": HOSTILE},
    "hosts": [{"host": HOST, "primary": True, "status": "active"}],
    "cookie": {"prefix": "__Host-", "domain": None, "same_site": "None", "partitioned": True},
    "messages": {"device_limit": {"it": {"text": "Ciao {limit}", "state": "enabled"}}},
    "proxy": {
        "identity": "cookie",
        "jwt": None,
        "cookie": None,
        "login_url": "/login",
        "activities": [
            {
                "path": "/c/{id}",
                "kind": "course_open",
                "methods": ["GET", "POST"],
                "resource": "course:{id}",
                "product": "id",
            }
        ],
        "polling": ["/ping", "/live/**"],
        "hosts": [{"host": HOST, "identity": "cookie", "jwt": None, "cookie": "other", "login_url": "/enter"}],
    },
}


def fields(page: Page) -> dict[str, Any]:
    """What a browser would send of the page's settings form, unchanged."""
    form = page.text.partition('class="rule')[2].partition("</form>")[0]
    sent: dict[str, Any] = {}
    for tag in re.findall(r"<input [^>]*>", form):
        found = {name: unescape(value) for name, value in re.findall(r'(\w+)="([^"]*)"', tag)}
        if found.get("type") not in ("checkbox", "radio") or " checked" in tag:
            sent.setdefault(found["name"], []).append(found.get("value", ""))
    for name, text in re.findall(r'<textarea name="([^"]+)"[^>]*>(.*?)</textarea>', form, re.DOTALL):
        sent[name] = unescape(text)
    for name, options in re.findall(r'<select name="([^"]+)"[^>]*>(.*?)</select>', form, re.DOTALL):
        sent[name] = unescape((re.findall(r'value="([^"]*)" selected', options) or [""])[0])
    return {name: value[0] if isinstance(value, list) and len(value) == 1 else value for name, value in sent.items()}


def everything(tenant: Tenant) -> dict[str, Any]:
    """Settings with something of each subject; the host is this tenant's alone."""
    host = f"{tenant.name}.example"
    return ALL | {
        "hosts": [ALL["hosts"][0] | {"host": host}],
        "proxy": ALL["proxy"] | {"hosts": [ALL["proxy"]["hosts"][0] | {"host": host}]},
    }


async def stored(tenant: Tenant) -> Any:
    """The settings by the API."""
    return (await tenant.call("GET", "/v1/settings", role="administrator")).body


async def saved(browser: Browser, section: str, **changes: Any) -> Page:
    """Open a page of the settings, change some fields, save it."""
    path = f"/console/settings/{section}"
    return await browser.post(path, fields(await browser.get(path)) | changes)


async def test_a_page_that_is_saved_as_it_is_changes_nothing(tenant: Tenant):
    """Every subject keeps what it shows and what it does not; nothing of it is markup."""
    assert (await tenant.call("PUT", "/v1/settings", everything(tenant), role="administrator")).status == 200
    before, browser = await stored(tenant), await signed_in(tenant, "administrator")

    for section in SECTIONS:
        page = await browser.get(f"/console/settings/{section}")
        assert HOSTILE not in page.text
        answer = await saved(browser, section)
        assert (answer.status, answer.headers["Location"]) == (303, f"/console/settings/{section}?done=settings")

    assert await stored(tenant) == before
    assert {name: before[name] for name in ALL} == everything(tenant)


@pytest.mark.parametrize(
    ("section", "changes", "pointer"),
    [
        pytest.param("school", {"brand/color_one": "red"}, "brand/color_one", id="no colour"),
        pytest.param("school", {"brand/logo_url": "http://a.example/l.png"}, "brand/logo_url", id="no TLS"),
        pytest.param("school", {"brand/logo_url": "https://a.example;x/"}, "brand/logo_url", id="ends a directive"),
        pytest.param("school", {"time_zone": "Mars/Olympus"}, "time_zone", id="no zone"),
        pytest.param("data", {"retention/logins_days": "many"}, "retention/logins_days", id="no number"),
        pytest.param("data", {"retention/logins_days": "0"}, "retention/logins_days", id="nothing kept"),
        pytest.param("sessions", {"cookie/domain": "a.example"}, "cookie/domain", id="domain and prefix"),
        pytest.param("hosts", {"hosts/0/host": "a.example:80", "primary": "0"}, "hosts/0/host", id="a port"),
        pytest.param("proxy", {"proxy/activities/0/path": "/a/**/b"}, "proxy/activities/0/path", id="no pattern"),
        pytest.param("proxy", {"proxy/jwt": "{"}, "proxy/jwt", id="no JSON"),
    ],
)
async def test_what_the_api_refuses_is_refused_beside_its_field(tenant: Tenant, section, changes, pointer):
    """With what was typed still there; nothing is saved."""
    await tenant.login()
    before, browser = await stored(tenant), await signed_in(tenant, "administrator")

    page = await saved(browser, section, **changes)

    assert page.status == 400, page.text
    assert f'id="wrong-{pointer}"' in page.text
    assert next(iter(changes.values())) in unescape(page.text)
    assert await stored(tenant) == before


async def test_the_first_of_the_languages_can_be_another_one(tenant: Tenant):
    """It is the one that students get whose own is not there; the others stay in their order."""
    assert (await tenant.call("PUT", "/v1/settings", everything(tenant), role="administrator")).status == 200
    browser = await signed_in(tenant, "administrator")

    answer = await saved(browser, "school", languages=["it", "en", "uk"], **{"languages:first": "uk"})

    assert (answer.status, (await stored(tenant))["languages"]) == (303, ["uk", "it", "en"])


async def test_who_has_not_seen_the_last_change_overwrites_nothing(tenant: Tenant):
    """The second of two who opened the page at once is told, and what the first one saved stays."""
    await tenant.login()
    one, two = await signed_in(tenant, "administrator", "eva"), await signed_in(tenant, "administrator", "bo")
    seen = fields(await two.get("/console/settings/school"))

    first = await saved(one, "school", name="First")
    second = await two.post("/console/settings/school", seen | {"name": "Second"})

    assert (first.status, second.status) == (303, 409)
    assert "Somebody else has changed the settings" in second.text
    assert (await stored(tenant))["name"] == "First"


async def test_a_message_is_seen_on_the_student_s_page_before_it_is_enabled(tenant: Tenant):
    """Framed by the console alone; a text that could not be filled in is refused; an empty one is taken away."""
    await tenant.login()
    browser, there = await signed_in(tenant, "administrator"), "/console/settings/messages/device_limit/pt-BR"
    page = await browser.get(there)
    said = fields(page) | {"text": "Até {limit}! " + HOSTILE}

    shown = await browser.post(there + "/preview", said)
    refused = await browser.post(there, said | {"text": "{name}", "state": "enabled"})
    kept = await browser.post(there, said | {"state": "enabled"})
    listed = await browser.get("/console/settings/messages")
    emptied = await browser.post(there, fields(await browser.get(there)) | {"text": " "})

    assert "frame-src 'self'" in page.headers["Content-Security-Policy"]
    assert ("Até 2!" in shown.text, HOSTILE in shown.text) == (True, False)
    assert "frame-ancestors 'self'" in shown.headers["Content-Security-Policy"]
    assert (refused.status, "is not known" in refused.text) == (400, True)
    assert (kept.status, "Own text" in listed.text, emptied.status) == (303, True, 303)
    assert (await stored(tenant))["messages"] == {"device_limit": {}}


async def test_the_settings_are_the_administrators_(tenant: Tenant):
    """Not shown to others, and refused."""
    await tenant.login()
    browser = await signed_in(tenant, "supervisor")

    answers = [
        await browser.get("/console/settings/school"),
        await browser.post("/console/settings/school", {"name": "Mine"}),
        await browser.post("/console/settings/messages/device_limit/en/preview", {"text": "x"}),
    ]

    assert [each.status for each in answers] == [403, 403, 403]
    assert "/console/settings" not in (await browser.get("/console/contacts")).text
    assert (await stored(tenant))["name"] != "Mine"


def test_every_field_has_its_words():
    """And no words are left over from fields that are gone."""
    names = {each.name for settings in SECTIONS.values() for each in settings}

    assert set(SETTINGS) == names
    assert set(HINTS) <= names
    assert {each.removeprefix("/") for each in WRONG} <= names
    assert all(option in SETTING_CHOICES for option in ("open", "closed", "log", "off", "draft", "enabled"))


@pytest.mark.parametrize(("name", "value"), [("brand", {"color_one": "#abc\n"}), ("country", "IT\n")])
async def test_a_line_s_end_is_no_part_of_a_colour_or_a_country(tenant: Tenant, name: str, value: object):
    """Nor of what is drawn with it: the student's page could not be."""
    answer = await tenant.call("PUT", "/v1/settings", {name: value}, role="administrator")

    assert answer.status == 400
    assert answer["errors"][0]["pointer"].startswith(f"/{name}")
