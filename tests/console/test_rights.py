"""Who may see which page: every path of the console for every role, and no path of the service that no table names."""

from __future__ import annotations

import re
from uuid import uuid4

import pytest

from accessguard.api.routes import ROUTES
from accessguard.app import admin
from accessguard.app import service as application
from accessguard.console.pages import PAGES, Page
from tests.api.test_access import ROLES, TABLE
from tests.console.test_console import Browser, signed_in
from tests.service import Service, Tenant

OPERATORS = tuple(role for role in ROLES if role != "platform")
MAY = {f"{method} {path}": roles for method, path, roles in TABLE}
WITHOUT_SIGNING_IN = {"/console/sign-in", "/console/enter"}
OF_THE_SYSTEM = {"/healthz", "/readyz", "/openapi.json", "/docs"}
ENDLESS = "/console/live/events"


def filled(path: str) -> str:
    """The path with an id of nobody in each of its places."""
    return re.sub(r"\{(\w+)\}", lambda found: str(uuid4()) if found[1].endswith("_id") else "nobody", path)


async def test_every_path_of_the_service_is_in_a_table(service: Service) -> None:
    """What answers is a call of the API, a page of the console, or one of the few of the system, on either port."""
    tables = {route.path for route in ROUTES} | {page.path for page in PAGES} | OF_THE_SYSTEM
    app = application(service.context, body_limit_bytes=1_024)

    there = {route.resource.canonical for route in app.router.routes() if route.resource is not None}
    inside = {
        route.resource.canonical for route in admin(service.context).router.routes() if route.resource is not None
    }

    assert there - tables == {"/console", "/console/static/{name}", "/console/{rest}"}
    assert tables - there == set()
    assert inside == {"/healthz", "/readyz", "/metrics"}


async def asked(browser: Browser, page: Page) -> int:
    """The status of a page, asked as the console's own pages ask."""
    if page.method == "GET":
        return (await browser.get(filled(page.path))).status
    return (await browser.post(filled(page.path))).status


@pytest.mark.parametrize("role", OPERATORS)
async def test_an_operator_sees_the_pages_of_the_role_and_no_others(tenant: Tenant, role: str) -> None:
    """403 for every page whose call of the API is another role's; the others are judged like the call."""
    browser = await signed_in(tenant, role)
    await browser.get("/console/account")
    wrong = []
    for page in PAGES:
        if page.like is None or page.path in {ENDLESS, "/console/sign-out"}:
            continue
        status = await asked(browser, page)
        if (status == 403) is (role in MAY[page.like]):
            wrong.append((page.method, page.path, status))

    assert wrong == []


async def test_nobody_sees_a_page_without_signing_in(tenant: Tenant) -> None:
    """Every page sends to where one signs in, but that page itself; a form changes nothing."""
    browser = Browser(tenant.service)
    answers = [
        (page, await (browser.get(filled(page.path)) if page.method == "GET" else browser.post(filled(page.path))))
        for page in PAGES
    ]

    sent = {page.path for page, answer in answers if answer.headers.get("Location", "").startswith("/console/sign-in")}

    assert {page.path for page in PAGES} - sent == WITHOUT_SIGNING_IN
