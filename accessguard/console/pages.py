"""Every path of the console, in one table: the view, and the call of the API whose roles may see or do it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.reply import STATUS
from accessguard.console import card, contacts, door, overview, restrictions, rules
from accessguard.console.files import files, serve
from accessguard.console.pen import UNREAD, page, set_up
from accessguard.console.rights import CALLS, may
from accessguard.console.shield import shielded
from accessguard.errors import ErrorCode, GuardError

View: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

SUMMARY: Final = "GET /v1/violations/summary"
MEMBER: Final = "/v1/members/{member_id}"
CONTACT: Final = "/console/contacts/~{member_id}"
"""The sign before the id keeps browsers from taking `..` for a step up."""
RULE: Final = "/console/rules/{rule_id}"


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """One path; `like` is the call that it comes to, and None where nobody needs to be signed in."""

    method: str
    path: str
    view: View
    like: str | None


def _get(path: str, view: View, like: str | None) -> Page:
    return Page(method="GET", path=path, view=view, like=like)


def _post(path: str, view: View, like: str | None) -> Page:
    return Page(method="POST", path=path, view=view, like=like)


async def home(request: web.Request) -> web.StreamResponse:
    """Where everybody begins."""
    return door.see_other("/console/contacts")


async def account(request: web.Request) -> web.StreamResponse:
    """Who is signed in here, and the way out."""
    return page(request, "account.html", {})


PAGES: Final[tuple[Page, ...]] = (
    _get("/console/sign-in", door.sign_in_page, None),
    _post("/console/sign-in", door.sign_in, None),
    _get("/console/enter", door.enter_page, None),
    _post("/console/enter", door.enter, None),
    _get("/console/", home, "GET /v1/members"),
    _get("/console/account", account, "GET /v1/members"),
    _post("/console/sign-out", door.sign_out, "GET /v1/members"),
    _get("/console/contacts", contacts.listed, "GET /v1/members"),
    _get(CONTACT, card.history, f"GET {MEMBER}"),
    _get(CONTACT + "/sessions", card.sessions, f"GET {MEMBER}/sessions"),
    _get(CONTACT + "/devices", card.devices, f"GET {MEMBER}/devices"),
    _get(CONTACT + "/restrictions", card.restrictions, f"GET {MEMBER}/violations"),
    _get(CONTACT + "/notes", card.notes, f"GET {MEMBER}/history"),
    _post(CONTACT + "/checks", card.switch_checks, f"PATCH {MEMBER}"),
    _post(CONTACT + "/note", card.write_note, f"PATCH {MEMBER}"),
    _post(CONTACT + "/comments", card.write_comment, f"POST {MEMBER}/comments"),
    _post(CONTACT + "/passes", card.give_pass, f"POST {MEMBER}/passes"),
    _post(CONTACT + "/sessions/end", card.end_sessions, f"POST {MEMBER}/sessions/end"),
    _post(CONTACT + "/sessions/~{session_id}/end", card.end_session, "POST /v1/sessions/{session_id}/end"),
    _post(CONTACT + "/devices/{device_id}", card.change_device, f"PATCH {MEMBER}/devices/{{device_id}}"),
    _post(CONTACT + "/devices/{device_id}/forget", card.forget_device, f"DELETE {MEMBER}/devices/{{device_id}}"),
    _post(CONTACT + "/devices/{device_id}/merge", card.merge_device, f"POST {MEMBER}/devices/{{device_id}}/merge"),
    _get("/console/restrictions", restrictions.listed, "GET /v1/violations"),
    _post("/console/restrictions/mark", restrictions.mark, "POST /v1/violations/mark"),
    _post("/console/restrictions/{violation_id}", restrictions.resolve, "PATCH /v1/violations/{violation_id}"),
    _get("/console/overview", overview.shown, "GET /v1/reports/logins"),
    _get("/console/rules", rules.listed, "GET /v1/rules"),
    _get("/console/rules/new", rules.new, "POST /v1/rules"),
    _post("/console/rules/new", rules.saved, "POST /v1/rules"),
    _post("/console/rules/new/try", rules.tried, "POST /v1/rules/simulate"),
    _get(RULE, rules.one, "GET /v1/rules/{rule_id}"),
    _post(RULE, rules.saved, "PUT /v1/rules/{rule_id}"),
    _post(RULE + "/try", rules.tried, "POST /v1/rules/simulate"),
    _post(RULE + "/delete", rules.deleted, "DELETE /v1/rules/{rule_id}"),
    _get(RULE + "/versions", rules.versions, "GET /v1/rules/{rule_id}/versions"),
)


def add_console(app: web.Application) -> None:
    """Put the table on an application; each view runs only for who its call of the API admits."""
    set_up(app)
    files()
    for each in PAGES:
        if each.like is not None and each.like not in CALLS:
            raise ValueError(f"there is no call {each.like}")
        app.router.add_route(each.method, each.path, _guarded(each))
    app.router.add_get("/console", _guarded(Page(method="GET", path="/console", view=home, like="GET /v1/members")))
    app.router.add_get("/console/static/{name}", serve)
    app.router.add_get(
        "/console/{rest:.*}", _guarded(Page(method="GET", path="", view=_nowhere, like="GET /v1/members"))
    )


def _guarded(asked: Page) -> View:
    async def handle(request: web.Request) -> web.StreamResponse:
        try:
            response = await _answered(request, asked)
        except GuardError as error:
            response = _refusal(request, error)
        return response if response.prepared else shielded(response)

    return handle


async def _answered(request: web.Request, asked: Page) -> web.StreamResponse:
    if asked.like is None:
        return await asked.view(request)
    if not await door.admitted(request):
        return door.to_sign_in(request)
    if not may(asking(request).caller.role, asked.like):
        raise GuardError(ErrorCode.FORBIDDEN, "Your role does not allow this.")
    if asked.method == "POST":
        await door.asked_here(request)
    if may(asking(request).caller.role, SUMMARY):
        await _count_unread(request)
    return await asked.view(request)


def _refusal(request: web.Request, error: GuardError) -> web.Response:
    status = STATUS[error.code]
    shown = {"status": status, "message": error.message, "problems": error.problems}
    response = page(request, "refusal.html", shown, status=status)
    if error.code is ErrorCode.UNAVAILABLE:
        response.headers["Retry-After"] = "1"
    return response


async def _count_unread(request: web.Request) -> None:
    who = asking(request)
    request[UNREAD] = await context(request).violations.unread(who.tenant, who.caller.subject) or 0


async def _nowhere(request: web.Request) -> web.StreamResponse:
    raise GuardError(ErrorCode.NOT_FOUND, "There is nothing here.")
