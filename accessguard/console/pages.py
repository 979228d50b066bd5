"""Every path of the console, in one table: the view, and the call of the API whose roles may see or do it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeAlias

import msgspec
from aiohttp import web

from accessguard.api.context import asking, context
from accessguard.api.reply import STATUS
from accessguard.api.routing import segments
from accessguard.console import (
    activity,
    bulk,
    card,
    contacts,
    door,
    jobs,
    kin,
    language,
    live,
    operators,
    overview,
    restrictions,
    rules,
    saved,
    settings,
    versions,
    webhooks,
)
from accessguard.console.files import files, serve
from accessguard.console.pen import UNREAD, page, set_up
from accessguard.console.rights import CALLS, may
from accessguard.console.shield import shielded
from accessguard.errors import ErrorCode, GuardError

View: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

BULK: Final = "POST /v1/members/bulk"
KEEP: Final = "PUT /v1/preferences/{name}"
SUMMARY: Final = "GET /v1/violations/summary"
MEMBER: Final = "/v1/members/{member_id}"
CONTACT: Final = "/console/contacts/~{member_id}"
"""The sign before the id keeps browsers from taking `..` for a step up."""
HOOK: Final = "/console/webhooks/{webhook_id}"
REDELIVER: Final = "POST /v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver"
RULE: Final = "/console/rules/{rule_id}"
MESSAGE: Final = "/console/settings/messages/{code}/{language}"


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


PAGES: Final[tuple[Page, ...]] = (
    _get("/console/sign-in", door.sign_in_page, None),
    _post("/console/sign-in", door.sign_in, None),
    _get("/console/enter", door.enter_page, None),
    _post("/console/enter", door.enter, None),
    _get("/console/", home, "GET /v1/members"),
    _get("/console/account", operators.account, "GET /v1/members"),
    _post("/console/language", language.choose, "PUT /v1/preferences/{name}"),
    _post("/console/account/sessions/{session_id}/end", operators.end_own, "GET /v1/members"),
    _get("/console/operators", operators.listed, "GET /v1/audit"),
    _post("/console/operators/end", operators.show_out, "GET /v1/audit"),
    _get("/console/webhooks", webhooks.listed, "GET /v1/webhooks"),
    _post("/console/webhooks", webhooks.create, "POST /v1/webhooks"),
    _get(HOOK, webhooks.deliveries, "GET /v1/webhooks/{webhook_id}/deliveries"),
    _post(HOOK + "/delete", webhooks.delete, "DELETE /v1/webhooks/{webhook_id}"),
    _post(HOOK + "/deliveries/{delivery_id}", webhooks.redeliver, REDELIVER),
    _post("/console/sign-out", door.sign_out, "GET /v1/members"),
    _get("/console/contacts", contacts.listed, "GET /v1/members"),
    _get("/console/contacts.csv", contacts.exported, "GET /v1/members"),
    _post("/console/contacts/filters", saved.save, KEEP),
    _post("/console/contacts/filters/drop", saved.drop, KEEP),
    _post("/console/contacts/bulk", bulk.chosen, BULK),
    _post("/console/contacts/bulk/begin", bulk.begin, BULK),
    _post("/console/contacts/bulk/confirm", bulk.confirm, BULK),
    _get("/console/jobs/{job_id}", jobs.progress, "GET /v1/jobs/{job_id}"),
    _get(CONTACT, card.history, f"GET {MEMBER}"),
    _get(CONTACT + "/sessions", card.sessions, f"GET {MEMBER}/sessions"),
    _get(CONTACT + "/devices", card.devices, f"GET {MEMBER}/devices"),
    _get(CONTACT + "/restrictions", card.restrictions, f"GET {MEMBER}/violations"),
    _get(CONTACT + "/notes", card.notes, f"GET {MEMBER}/history"),
    _post(CONTACT + "/notes", kin.remember, KEEP),
    _get(CONTACT + "/related", kin.related, f"GET {MEMBER}/related"),
    _post(CONTACT + "/merge", kin.merge, f"POST {MEMBER}/merge"),
    _get(CONTACT + "/bundle", kin.bundle, f"GET {MEMBER}/bundle"),
    _get(CONTACT + "/bundle.txt", kin.bundle_file, f"GET {MEMBER}/bundle"),
    _get(CONTACT + "/devices/{device_id}/users", kin.users, f"GET {MEMBER}/devices"),
    _post(CONTACT + "/checks", card.switch_checks, f"PATCH {MEMBER}"),
    _post(CONTACT + "/note", card.write_note, f"PATCH {MEMBER}"),
    _post(CONTACT + "/comments", card.write_comment, f"POST {MEMBER}/comments"),
    _post(CONTACT + "/passes", card.give_pass, f"POST {MEMBER}/passes"),
    _post(CONTACT + "/sessions/end", card.end_sessions, f"POST {MEMBER}/sessions/end"),
    _post(CONTACT + "/sessions/~{session_id}/end", card.end_session, "POST /v1/sessions/{session_id}/end"),
    _post(CONTACT + "/devices/{device_id}", card.change_device, f"PATCH {MEMBER}/devices/{{device_id}}"),
    _post(CONTACT + "/devices/{device_id}/forget", card.forget_device, f"DELETE {MEMBER}/devices/{{device_id}}"),
    _post(CONTACT + "/devices/{device_id}/merge", card.merge_device, f"POST {MEMBER}/devices/{{device_id}}/merge"),
    _get("/console/activity", activity.listed, "GET /v1/audit"),
    _get("/console/activity.csv", activity.exported, "GET /v1/audit"),
    _get("/console/live", live.listed, f"GET {MEMBER}/sessions"),
    _get("/console/live/events", live.followed, f"GET {MEMBER}/sessions"),
    _get("/console/restrictions", restrictions.listed, "GET /v1/violations"),
    _get("/console/restrictions.csv", restrictions.exported, "GET /v1/violations"),
    _post("/console/restrictions/mark", restrictions.mark, "POST /v1/violations/mark"),
    _post("/console/restrictions/{violation_id}", restrictions.resolve, "PATCH /v1/violations/{violation_id}"),
    _get("/console/overview", overview.shown, "GET /v1/reports/logins"),
    _get("/console/rules", rules.listed, "GET /v1/rules"),
    _get("/console/rules/new", rules.new, "POST /v1/rules"),
    _post("/console/rules/new", rules.saved, "POST /v1/rules"),
    _post("/console/rules/new/try", rules.tried, "POST /v1/rules/simulate"),
    _post("/console/rules/new/say", rules.said, "POST /v1/rules"),
    _get("/console/rules/presets", versions.offered, "POST /v1/rules"),
    _post("/console/rules/presets/{name}", versions.begun, "POST /v1/rules"),
    _get("/console/rules/presets/{name}/{at}", versions.one_offered, "POST /v1/rules"),
    _get(RULE, rules.one, "GET /v1/rules/{rule_id}"),
    _post(RULE, rules.saved, "PUT /v1/rules/{rule_id}"),
    _post(RULE + "/try", rules.tried, "POST /v1/rules/simulate"),
    _post(RULE + "/say", rules.said, "PUT /v1/rules/{rule_id}"),
    _post(RULE + "/mode", rules.switched, "PUT /v1/rules/{rule_id}"),
    _post(RULE + "/delete", rules.deleted, "DELETE /v1/rules/{rule_id}"),
    _get("/console/settings", settings.home, "GET /v1/settings"),
    _get("/console/settings/messages", settings.messages, "GET /v1/settings"),
    _get(MESSAGE, settings.message, "GET /v1/settings"),
    _post(MESSAGE, settings.message_saved, "PUT /v1/settings"),
    _get(MESSAGE + "/preview", settings.preview, "GET /v1/settings"),
    _post(MESSAGE + "/preview", settings.preview, "GET /v1/settings"),
    _get("/console/settings/{section}", settings.shown, "GET /v1/settings"),
    _post("/console/settings/{section}", settings.saved, "PUT /v1/settings"),
    _get(RULE + "/versions", versions.listed, "GET /v1/rules/{rule_id}/versions"),
    _get(RULE + "/versions/{version}/again", versions.again, "POST /v1/rules"),
)


def add_console(app: web.Application) -> None:
    """Put the table on an application; each view runs only for who its call of the API admits."""
    set_up(app)
    app[live.WATCHERS] = live.Watchers()
    files()
    for each in PAGES:
        if each.like is not None and each.like not in CALLS:
            raise ValueError(f"there is no call {each.like}")
        app.router.add_route(each.method, segments(each.path), _guarded(each))
        if each.method == "GET" and each.view is not live.followed:  # which has no head until it ends
            app.router.add_route("HEAD", segments(each.path), _guarded(each))
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
    with await door.in_turn(request, lasting=asked.view is live.followed):
        return await _shown(request, asked)


async def _shown(request: web.Request, asked: Page) -> web.StreamResponse:
    if asked.method == "POST":
        await door.asked_here(request)
    if may(asking(request).caller.role, SUMMARY):
        await _count_unread(request)
    return await asked.view(request)


def _refusal(request: web.Request, error: GuardError) -> web.Response:
    status = STATUS[error.code]
    shown = {"status": status, "message": error.message, "problems": error.problems}
    response = page(request, "refusal.html", shown, status=status)
    response.headers.update(error.headers)
    if error.code is ErrorCode.UNAVAILABLE:
        response.headers["Retry-After"] = "1"
    return response


async def _count_unread(request: web.Request) -> None:
    who = asking(request)
    request[UNREAD] = await context(request).violations.unread(who.tenant, who.caller.subject) or 0


async def _nowhere(request: web.Request) -> web.StreamResponse:
    raise GuardError(ErrorCode.NOT_FOUND, "There is nothing here.")
