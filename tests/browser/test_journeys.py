"""What operators do, in a real browser: by mouse, by keyboard, without script."""

from __future__ import annotations

import re
from typing import Final

import pytest
from markupsafe import escape
from playwright.async_api import Browser, Page, Route, expect

from accessguard.console.shield import POLICY
from tests.browser.stage import Window, admit, window
from tests.service import FIREFOX, Tenant, items, token

pytestmark = pytest.mark.slow

HOSTILE: Final = '<script>window.ran = 1</script>"\'><img src=x onerror="window.ran = 1"><svg onload=window.ran=1>'


async def refused_device(tenant: Tenant, member: str, name: str = "") -> str:
    """A member with one device that is in and one that was refused; the session that is in."""
    await tenant.call("PUT", f"/v1/members/{member}", {"name": name or member.title()})
    first = await tenant.login(member)
    refused = await tenant.login(member, user_agent=FIREFOX)
    assert (first["decision"], refused["decision"]) == ("allow", "deny")
    session: str = first["session"]["id"]
    return session


async def titled(page: Page, text: str) -> None:
    """Wait for the page whose heading says this."""
    await expect(page.get_by_role("heading", level=1)).to_have_text(text)


async def unread(page: Page) -> int:
    """How many of the cases on the page are unread."""
    return await page.locator(".case.unread").count()


async def test_an_operator_signs_in_by_link_and_by_token_and_out(chromium: Browser, tenant: Tenant) -> None:
    """Both ways lead to where one wanted to go; the cookie is kept from scripts, and gone after signing out."""
    link = (await tenant.call("POST", "/v1/console/links", role="supervisor", subject="eva"))["path"]
    async with window(chromium, tenant) as tab:
        page = tab.page

        await tab.open(link + "&next=/console/account")
        await page.get_by_role("button").click()
        await titled(page, "Your account")
        (cookie,) = await page.context.cookies()
        assert (cookie["name"], cookie["httpOnly"], cookie["secure"], cookie["sameSite"]) == (
            "__Host-ag_console",
            True,
            True,
            "Strict",
        )
        await page.get_by_role("button", name="Sign out", exact=True).click()
        await titled(page, "Sign in")
        assert await page.context.cookies() == []

        await tab.open("/console/rules")
        await page.get_by_label("Token", exact=True).fill(token(tenant.name, "administrator", "ugo"))
        await page.get_by_role("button", name="Sign in").click()
        await titled(page, "Rules")
        assert tab.faults == []


async def test_a_student_is_found_as_one_types_and_a_blocked_device_is_refused(
    chromium: Browser, tenant: Tenant
) -> None:
    """The list follows the letters and the address follows the list; the next check hears of the block."""
    await tenant.rule("device_limit", "deny_new", max=1)
    session = await refused_device(tenant, "kim", "Kim Ødegård")
    await tenant.call("PUT", "/v1/members/bo", {"name": "Bo"})
    async with window(chromium, tenant) as tab:
        page = tab.page
        await admit(page.context, tenant, "supervisor")
        await tab.open("/console/contacts")
        await expect(page.get_by_role("link", name="Bo")).to_be_visible()

        await page.get_by_role("searchbox").press_sequentially("degard")
        await expect(page.get_by_role("link", name="Bo")).to_have_count(0)
        await page.get_by_role("link", name="Kim Ødegård").click()
        assert (await tenant.check(session))["decision"] == "allow"
        await page.get_by_role("link", name=re.compile("Devices")).click()
        device = page.locator(".cards > li", has=page.get_by_role("heading", name=re.compile("Chrome")))
        await device.locator("summary", has_text="Block").click()
        await device.get_by_label("Why").first.fill("lent to a friend")
        await device.get_by_role("button", name="Block this device").click()

        await expect(page.get_by_role("status")).to_have_text("The device is blocked.")
        assert (await tenant.check(session))["reason"]["code"] == "device_blocked"
        assert tab.faults == []


async def test_restrictions_are_gone_through_by_the_keyboard(chromium: Browser, tenant: Tenant) -> None:
    """By j and k one goes, x chooses, r marks, / searches, ? shows the sheet; what was marked is read for this operator."""
    await tenant.rule("device_limit", "deny_new", max=1)
    for member in ("ana", "bo", "cy"):
        await refused_device(tenant, member)
    async with window(chromium, tenant) as tab:
        page, keys = tab.page, tab.page.keyboard
        await admit(page.context, tenant, "supervisor")
        await tab.open("/console/restrictions?show=all")
        before = await unread(page)

        await keys.press("?")
        await expect(page.get_by_role("dialog")).to_be_visible()
        await keys.press("Escape")
        await expect(page.get_by_role("dialog")).to_be_hidden()
        await keys.press("/")
        await expect(page.get_by_role("searchbox")).to_be_focused()
        await page.get_by_role("searchbox").blur()
        for key in "jjkx":
            await keys.press(key)
        await expect(page.locator(".case").first).to_be_focused()
        await expect(page.locator(".case").first.get_by_role("checkbox")).to_be_checked()
        await keys.press("r")
        await expect(page.get_by_role("status")).to_have_text("Marked as read.")
        after = await unread(page)

        assert (before, after) == (3, 2)
        summary = await tenant.call("GET", "/v1/violations/summary", role="supervisor", subject="eva")
        assert summary["unread"] == 2
        assert tab.faults == []


async def test_a_rule_is_tried_on_what_was_and_then_saved(chromium: Browser, tenant: Tenant) -> None:
    """Trying says who would have been stopped and saves nothing; saving is in force."""
    for agent in (FIREFOX, FIREFOX.replace("Windows NT 10.0; Win64; x64", "X11; Linux x86_64")):
        await tenant.login("ana", user_agent=agent)
    async with window(chromium, tenant) as tab:
        page = tab.page
        await admit(page.context, tenant)
        await tab.open("/console/rules/new?kind=device_limit")

        await page.get_by_label("At most", exact=True).fill("1")
        await page.get_by_role("button", name="Try it on the last 30 days").click()
        await expect(page.locator(".big")).to_have_text("Would have been stopped: 1 of 1 contacts. Refusals: 1.")
        await expect(page.locator("svg.chart rect")).to_have_count(1)
        assert list(items(await tenant.call("GET", "/v1/rules", role="administrator"))) == []
        await page.get_by_role("button", name="Save and enforce").click()

        await expect(page.get_by_role("status")).to_have_text("Saved.")
        await expect(page.get_by_role("main")).to_contain_text("At most 1 device within 30 days")
        (rule,) = items(await tenant.call("GET", "/v1/rules", role="administrator"))
        assert (rule["kind"], rule["mode"], rule["params"]["max"]) == ("device_limit", "enforce", 1)
        assert tab.faults == []


async def test_many_contacts_get_a_tag_at_once(chromium: Browser, tenant: Tenant) -> None:
    """Chosen on the list, asked what to do, told how far it is; those who were not chosen stay as they are."""
    for member in ("ana", "bo", "cy"):
        await tenant.call("PUT", f"/v1/members/{member}", {"name": member.title()})
    async with window(chromium, tenant) as tab:
        page = tab.page
        await admit(page.context, tenant, "supervisor")
        await tab.open("/console/contacts?sort=name&order=asc")

        for name in ("Ana", "Bo"):
            await page.get_by_role("row", name=name).get_by_role("checkbox").check()
        await page.get_by_role("button", name="With the chosen …").click()
        await titled(page, "What to do with 2 contacts?")
        await page.get_by_label("Tags, one a line").first.fill("evening")
        await page.get_by_role("button", name="Give tags").click()
        await expect(page.get_by_role("main")).to_contain_text("2 contacts were changed.")

        found = items(await tenant.see("/v1/members?tag=evening"))
        assert sorted(each["member_id"] for each in found) == ["ana", "bo"]
        assert tab.faults == []


async def test_who_is_on_is_seen_without_a_reload(chromium: Browser, tenant: Tenant) -> None:
    """Who opens a lesson appears on the open page; ending its session there makes it go, and the next check is refused."""
    async with window(chromium, tenant) as tab:
        page = tab.page
        await admit(page.context, tenant, "supervisor")
        await tab.open("/console/live")
        await expect(page.get_by_role("main")).to_contain_text("Nobody is on.")

        login = await tenant.login("kim")
        session = login["session"]["id"]
        await tenant.check(login, activity="lesson_open")
        await expect(page.get_by_role("link", name="kim")).to_be_visible()
        await page.get_by_role("button", name="Pause").click()
        await page.get_by_role("button", name="End").click()
        await expect(page.get_by_role("status").filter(has_text="The session was ended.")).to_be_visible()

        assert (await tenant.check(session))["reason"]["code"] == "session_ended"
        assert tab.faults == []


async def test_a_refused_student_frees_a_place_and_writes_to_support(chromium: Browser, tenant: Tenant) -> None:
    """The page says why, in the student's language; the device that is given up goes, and the next login is let in; all without script."""
    await tenant.rule("device_limit", "challenge", max=1, swaps={"max": 1, "window_days": 30})
    await tenant.call("PUT", "/v1/members/kim", {"name": "Kim", "locale": "es"})
    await tenant.login("kim")
    refused = await tenant.login("kim", user_agent=FIREFOX)
    there = refused["reason"]["page_url"].partition("/restricted")[2]
    async with window(chromium, tenant, java_script_enabled=False, viewport={"width": 390, "height": 844}) as tab:
        page = tab.page
        await tab.open("/restricted" + there)
        await expect(page.locator("html")).to_have_attribute("lang", "es")

        await page.get_by_role("textbox").fill(HOSTILE)
        await page.locator("form[action*=words] button").click()
        await expect(page.get_by_role("status")).to_be_visible()
        await page.locator("form[action*=place] button").click()
        await expect(page.locator("form[action*=place]")).to_have_count(0)

        assert (await tenant.login("kim", user_agent=FIREFOX))["decision"] == "allow"
        (case, *_) = items(await tenant.see("/v1/violations"))
        assert [each["text"] for each in case["student_words"]] == [HOSTILE]
        assert tab.faults == []


async def test_a_school_writes_its_own_words_and_sees_them_as_its_students_will(
    chromium: Browser, tenant: Tenant
) -> None:
    """The page beside the text follows what is typed; saved and enabled, students read it."""
    async with window(chromium, tenant) as tab:
        page = tab.page
        await admit(page.context, tenant)
        await tab.open("/console/settings/messages/device_limit/en")

        await page.get_by_label("What students read").fill("Two devices are enough for {support_email}.")
        beside = page.frame_locator("iframe")
        await page.get_by_label("What students read").fill("Two devices are enough.")
        await expect(beside.get_by_text("Two devices are enough.")).to_be_visible()
        await page.get_by_label("Enabled").check()
        await page.get_by_role("button", name="Save").click()
        await expect(page.get_by_role("status")).to_have_text("The settings were saved.")

        saved = await tenant.call("GET", "/v1/settings", role="administrator")
        assert saved["messages"]["device_limit"]["en"] == {"text": "Two devices are enough.", "state": "enabled"}
        assert tab.faults == []


async def test_without_script_the_same_is_done_by_forms_alone(chromium: Browser, tenant: Tenant) -> None:
    """Search, block, mark by choosing, try a rule: what a script makes quicker works without it."""
    await tenant.rule("device_limit", "deny_new", max=1)
    session = await refused_device(tenant, "kim")
    await refused_device(tenant, "bo")
    async with window(chromium, tenant, java_script_enabled=False) as tab:
        page = tab.page
        await admit(page.context, tenant)
        await tab.open("/console/contacts")
        await page.get_by_role("searchbox").fill("kim")
        await page.get_by_role("searchbox").press("Enter")
        await expect(page.get_by_role("link", name="Bo")).to_have_count(0)
        await page.get_by_role("link", name="Kim").click()
        await page.get_by_role("link", name=re.compile("Devices")).click()
        device = page.locator(".cards > li", has=page.get_by_role("heading", name=re.compile("Chrome")))
        await device.locator("summary", has_text="Block").click()
        await device.get_by_role("button", name="Block this device").click()
        await expect(page.get_by_role("status")).to_have_text("The device is blocked.")
        await tab.open("/console/restrictions")
        await page.locator(".case").first.get_by_role("checkbox").check()
        await page.get_by_role("button", name="Mark read").first.click()
        await expect(page.get_by_role("status")).to_have_text("Marked as read.")
        await tab.open("/console/rules/new?kind=session_limit")
        await page.get_by_label("At most", exact=True).fill("1")
        await page.get_by_role("button", name="Try it on the last 30 days").click()
        await expect(page.locator(".big")).to_contain_text("Would have been stopped")

        summary = await tenant.call("GET", "/v1/violations/summary", role="administrator", subject="eva")
        assert summary["unread"] == 1
        assert (await tenant.check(session))["reason"]["code"] == "device_blocked"
        assert tab.faults == []


async def test_a_language_that_was_chosen_is_kept_for_the_operator(chromium: Browser, tenant: Tenant) -> None:
    """In another session too, whatever the browser asks for; others are not touched, and get what the browser asks for."""
    async with window(chromium, tenant, locale="it") as tab:
        page, document = tab.page, tab.page.locator("html")
        await admit(page.context, tenant, subject="eva")
        await tab.open("/console/account")
        await expect(document).to_have_attribute("lang", "it")

        await page.locator("select[name=language]").select_option("uk")
        await page.locator("form[action*=language] button").click()
        await expect(document).to_have_attribute("lang", "uk")
        for subject, language in (("ugo", "it"), ("eva", "uk")):
            await page.context.clear_cookies()
            await admit(page.context, tenant, subject=subject)
            await tab.open("/console/contacts")
            await expect(document).to_have_attribute("lang", language)
        assert tab.faults == []


async def spoil(tab: Window, text: str) -> None:
    """From now on the pages say this text as it is, as if nobody had escaped it."""

    async def answer(route: Route) -> None:
        found = await route.fetch()
        await route.fulfill(response=found, body=(await found.text()).replace(str(escape(text)), text))

    await tab.page.route(re.compile("/console/contacts"), answer)


async def test_markup_of_others_is_text_and_the_policy_would_stop_it_if_it_were_not(
    chromium: Browser, tenant: Tenant
) -> None:
    """In names, agents, tags, notes, comments it runs nothing. Put into the pages unescaped, it is stopped and reported."""
    await tenant.rule("device_limit", "deny_new", max=1)
    await refused_device(tenant, "ana", HOSTILE)
    await tenant.call("PUT", "/v1/members/ana", {"name": HOSTILE, "email": "a@example.com", "tags": [HOSTILE]})
    await tenant.login("ana", user_agent=HOSTILE, outcome="failure", failure_reason="password")
    await tenant.call("PATCH", "/v1/members/ana", {"note": HOSTILE, "reason": HOSTILE}, role="supervisor")
    await tenant.call("POST", "/v1/members/ana/comments", {"text": HOSTILE}, role="supervisor")
    there = "/console/contacts/~ana"
    paths = (
        "/console/contacts",
        there,
        there + "/devices",
        there + "/sessions",
        there + "/notes",
        "/console/restrictions",
    )
    async with window(chromium, tenant) as tab:
        await admit(tab.page.context, tenant)

        for path in paths:
            await tab.open(path)
            assert await tab.page.evaluate("window.ran") is None, path
            if path in (there, there + "/notes", "/console/contacts"):
                assert HOSTILE in await tab.page.locator("main").inner_text(), path
        assert tab.faults == []

        await spoil(tab, HOSTILE)
        for path in ("/console/contacts", there, there + "/notes"):
            await tab.open(path)
            assert await tab.page.locator("main script").count() > 0, path
            assert await tab.page.evaluate("window.ran") is None, path
            stopped = [each for each in tab.faults if "Content Security Policy" in each]
            assert len(stopped) >= 3, tab.faults
            tab.faults.clear()
    assert "unsafe" not in POLICY
