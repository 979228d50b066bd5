"""The pictures of the README: made anew with `make pictures`, which says where they go; else not at all."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest
from playwright.async_api import Browser
from rich.console import Console

from accessguard.demo import Tokens
from accessguard.demo.day import play
from accessguard.demo.plan import make
from tests.browser.stage import Window, admit, window
from tests.service import FIREFOX, Service, Tenant, items, token

FOLDER: Final = os.environ.get("ACCESSGUARD_PICTURES")
MOST_BYTES: Final = 150_000
STUDENTS: Final = 120
BRAND: Final = {"color_one": "#0b6b57", "color_two": "#f2b705", "copyright": "Harbour Language School"}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(FOLDER is None, reason="pictures are made by `make pictures`"),
]


@pytest.fixture(scope="module")
async def school(service: Service) -> Tenant:
    """A school after a day, with a name and colours."""
    tenant = service.tenant()
    tokens = Tokens(**{role: token(tenant.name, role) for role in ("platform", "supervisor", "administrator")})
    await play(service.url, tokens, make(members=STUDENTS, seed=8), day_s=0, jar=None, console=Console(quiet=True))
    said = (await tenant.call("GET", "/v1/settings", role="administrator")).body
    said |= {"name": "Harbour Language School", "support_email": "help@harbour.example", "brand": BRAND}
    saved = await tenant.call("PUT", "/v1/settings", said, role="administrator")
    assert saved.status == 200, saved.body
    return tenant


@pytest.fixture
async def tab(chromium: Browser, school: Tenant) -> AsyncIterator[Window]:
    """An operator's browser, as high as a picture should be."""
    async with window(chromium, school, viewport={"width": 1200, "height": 760}) as tab:
        await admit(tab.page.context, school, subject="nora@harbour.example")
        yield tab


async def kept(tab: Window, name: str) -> None:
    """Keep what the window shows."""
    path = Path(FOLDER or "") / f"{name}.png"
    await tab.page.screenshot(path=path, animations="disabled")
    assert path.stat().st_size < MOST_BYTES, path


async def test_the_operators_pages(tab: Window, school: Tenant) -> None:
    """Contacts, a contact, restrictions."""
    first = next(items(await school.see("/v1/members?sort=unread&order=desc&limit=1")))

    await tab.open("/console/contacts?sort=unread&order=desc")
    await kept(tab, "contacts")
    await tab.open(f"/console/contacts/~{quote(first['member_id'], safe='')}/devices")
    await kept(tab, "card")
    await tab.open("/console/restrictions")
    await kept(tab, "restrictions")


async def test_a_rule_with_its_trial(tab: Window) -> None:
    """What it does in a sentence, and who would have been stopped."""
    await tab.open("/console/rules/new?kind=device_limit")
    await tab.page.get_by_label("Name", exact=True).fill("One device each")
    await tab.page.get_by_label("At most", exact=True).fill("1")
    await tab.page.get_by_role("button", name="Try it on the last 30 days").click()
    await tab.page.locator(".big").wait_for()
    await kept(tab, "rule")


async def test_the_students_page(chromium: Browser, school: Tenant) -> None:
    """On a telephone, in the school's colours."""
    for rule in items(await school.call("GET", "/v1/rules", role="administrator")):
        await school.call("DELETE", f"/v1/rules/{rule['id']}", role="administrator")
    await school.rule("device_limit", "challenge", max=1, swaps={"max": 1, "window_days": 30})
    await school.call("PUT", "/v1/members/mira", {"name": "Mira", "locale": "en", "time_zone": "Europe/Lisbon"})
    await school.login("mira")
    refused = await school.login("mira", user_agent=FIREFOX)
    async with window(chromium, school, viewport={"width": 420, "height": 900}, user_agent=FIREFOX) as tab:
        await tab.open("/restricted" + refused["reason"]["page_url"].partition("/restricted")[2])
        await kept(tab, "student")
