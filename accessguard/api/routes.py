"""Every path of the API, in one table: who may call it, what it takes, what it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import msgspec
from aiohttp import web

from accessguard.api import (
    addresses,
    authzen,
    authzen_wire,
    bulk,
    card,
    challenges,
    checks,
    devices,
    entrance,
    grants,
    imports,
    jobs,
    lists,
    logins,
    members,
    preferences,
    privacy,
    proxy,
    reports,
    restricted,
    revocations,
    rules,
    sessions,
    simulate,
    stream,
    tenants,
    violations,
    webhooks,
    wire,
    written,
)
from accessguard.api.keys import Role
from accessguard.api.read import Paging
from accessguard.api.restricted_wire import PlaceRequest, RestrictedPage, RestrictedQuery, WordsRequest
from accessguard.devices.model import Device
from accessguard.events.preferences import Preference
from accessguard.events.revoked import Revocation
from accessguard.events.webhooks import Delivery
from accessguard.guard.addresses import AddressUse
from accessguard.guard.bundle import Bundle
from accessguard.guard.card import MemberCard
from accessguard.guard.erasure import Receipt
from accessguard.guard.lines import ImportedEnrolment, ImportedMember
from accessguard.guard.model import Check, Login
from accessguard.guard.selecting import Preview
from accessguard.guard.simulation import Simulation
from accessguard.guard.union import UnionReport
from accessguard.jobs.model import Job, Refusal
from accessguard.members.comments import Comment
from accessguard.members.model import Enrolment, Member, Notice, Pass
from accessguard.policies.model import Settings
from accessguard.sessions.history import SessionItem
from accessguard.violations.model import Summary, Violation

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


NOBODY: Final[frozenset[Role]] = frozenset()
PLATFORM: Final = frozenset({Role.PLATFORM})
ROOT: Final = frozenset({Role.ROOT})
ADMINISTRATORS: Final = ROOT | {Role.ADMINISTRATOR}
SUPERVISORS: Final = ADMINISTRATORS | {Role.SUPERVISOR}
ATTENDANTS: Final = SUPERVISORS | {Role.ATTENDANT}


class Route(msgspec.Struct, frozen=True, kw_only=True):
    """One call: `roles` may make it; the structs are those that decode and encode it.

    `reply` None means an answer without a body. `listing` marks lists, which
    are also given as CSV, `text` what is also given as plain text, `media`
    the type of an answer that is no JSON. A call of the whole `installation` names no tenant; in one that may be about
    `everywhere`, a token for all tenants need not.
    `later` is what a call that takes long answers instead, with 202. `stream`
    is what each line of a body says that is a file; `lines`: so is the answer,
    of which `reply` is one line. `open`: no
    role is asked for, as the handler itself finds out who asks. `bare`:
    errors come without a body; `browsers` get a redirect (302) or a page; `page`: what JSON says is a page for people.
    """

    method: str
    path: str
    handler: Handler
    roles: frozenset[Role]
    body: Any = None
    body_required: bool = True
    query: Any = None
    reply: Any = None
    status: int = 200
    later: Any = None
    stream: Any = None
    lines: bool = False
    errors: tuple[int, ...] = ()
    listing: bool = False
    text: bool = False
    media: str | None = None
    creates: bool = False
    installation: bool = False
    everywhere: bool = False
    open: bool = False
    bare: bool = False
    browsers: bool = False
    page: bool = False


def _get(path: str, handler: Handler, roles: frozenset[Role], reply: Any, **more: Any) -> Route:
    return Route(method="GET", path=path, handler=handler, roles=roles, reply=reply, **more)


def _list(path: str, handler: Handler, roles: frozenset[Role], query: Any, reply: Any, **more: Any) -> Route:
    return _get(path, handler, roles, reply, query=query, listing=True, **more)


def _send(call: str, handler: Handler, roles: frozenset[Role], body: Any, reply: Any, **more: Any) -> Route:
    method, _, path = call.partition(" ")
    return Route(method=method, path=path, handler=handler, roles=roles, body=body, reply=reply, **more)


def _gate(call: str, handler: Handler, *, status: int = 204, bare: bool = False) -> Route:
    method, _, path = call.partition(" ")
    return Route(
        method=method,
        path=path,
        handler=handler,
        roles=NOBODY,
        status=status,
        installation=True,
        open=True,
        bare=bare,
        browsers=not bare,
    )


UUIDS: Final = frozenset(
    {"device_id", "rule_id", "violation_id", "job_id", "challenge_id", "webhook_id", "delivery_id", "revocation_id"}
)
MEMBER: Final = "/v1/members/{member_id}"
ENROLMENT: Final = MEMBER + "/enrolments/{product_id}"
DEVICE: Final = MEMBER + "/devices/{device_id}"
RULE: Final = "/v1/rules/{rule_id}"
WEBHOOK: Final = "/v1/webhooks/{webhook_id}"
TENANT: Final = "/v1/tenants/{tenant}"

ROUTES: Final[tuple[Route, ...]] = (
    _send("POST /v1/logins", logins.record, PLATFORM, Login, wire.LoginReply, errors=(404, 409), creates=True),
    _send("POST /v1/check", checks.check, PLATFORM, Check, wire.CheckReply),
    _send("POST /v1/checks", checks.checks, PLATFORM, wire.ChecksRequest, wire.ChecksReply),
    _send(
        "POST /v1/challenges/{challenge_id}",
        challenges.settle,
        PLATFORM,
        wire.SettleRequest,
        wire.LoginReply,
        errors=(404, 409),
    ),
    _get("/v1/sessions/{session_id}", sessions.get, PLATFORM | SUPERVISORS, SessionItem, errors=(404,)),
    _send(
        "POST /v1/sessions/{session_id}/end",
        sessions.end,
        PLATFORM | SUPERVISORS,
        wire.EndRequest,
        wire.EndReply,
        errors=(404,),
        body_required=False,
    ),
    _send(f"PUT {MEMBER}", members.put, PLATFORM, wire.MemberRequest, Member, errors=(404,)),
    _list("/v1/members", members.listed, ATTENDANTS, wire.MembersQuery, lists.MembersPage),
    _send(
        "POST /v1/members/bulk",
        bulk.bulk,
        SUPERVISORS,
        wire.BulkRequest,
        Preview,
        errors=(409,),
        later=Job,
        creates=True,
    ),
    _send(
        "POST /v1/members/erase",
        bulk.erase,
        ADMINISTRATORS,
        wire.ErasureRequest,
        Preview,
        errors=(409,),
        later=Job,
        creates=True,
    ),
    _get(MEMBER, card.get, ATTENDANTS, MemberCard, errors=(404,)),
    _get(MEMBER + "/bundle", card.bundle, SUPERVISORS, Bundle, errors=(404,), text=True),
    _list(MEMBER + "/comments", card.comments, SUPERVISORS, wire.ListQuery, lists.CommentsPage, errors=(404,)),
    _send(
        f"POST {MEMBER}/comments",
        card.comment,
        SUPERVISORS,
        wire.CommentRequest,
        Comment,
        status=201,
        errors=(404, 409),
        creates=True,
    ),
    _list(MEMBER + "/history", card.history, SUPERVISORS, wire.HistoryQuery, lists.AuditPage, errors=(404,)),
    _get("/v1/preferences/{name}", preferences.get, ATTENDANTS, Preference, errors=(404,)),
    _send(
        "PUT /v1/preferences/{name}",
        preferences.put,
        ATTENDANTS,
        wire.PreferenceRequest,
        Preference,
        errors=(404, 409),
    ),
    Route(
        method="DELETE",
        path=MEMBER,
        handler=privacy.erase,
        roles=ADMINISTRATORS,
        query=wire.EraseQuery,
        reply=Receipt,
        errors=(404,),
    ),
    _get(
        MEMBER + "/export",
        privacy.export,
        ADMINISTRATORS,
        None,
        query=wire.ExportQuery,
        media=privacy.ZIP,
        errors=(404,),
    ),
    _send(f"PUT {MEMBER}/notice", privacy.notice, PLATFORM, wire.NoticeRequest, Notice, errors=(404,)),
    _get(MEMBER + "/notices", privacy.notices, SUPERVISORS, wire.NoticesReply, errors=(404,)),
    _send(f"PATCH {MEMBER}", members.patch, SUPERVISORS, wire.MemberPatch, Member, errors=(404,)),
    _list(MEMBER + "/logins", members.logins, SUPERVISORS, wire.ListQuery, lists.LoginsPage, errors=(404,)),
    _list(MEMBER + "/sessions", members.sessions, SUPERVISORS, wire.ListQuery, lists.SessionsPage, errors=(404,)),
    _list(MEMBER + "/activity", members.activity, SUPERVISORS, wire.ListQuery, lists.ActivityPage, errors=(404,)),
    _list(MEMBER + "/devices", devices.listed, SUPERVISORS, wire.ListQuery, lists.DevicesPage, errors=(404,)),
    _list(MEMBER + "/related", members.related, SUPERVISORS, wire.RelatedQuery, lists.RelatedPage, errors=(404,)),
    _list(MEMBER + "/violations", members.violations, SUPERVISORS, wire.ListQuery, lists.ViolationsPage, errors=(404,)),
    _send(f"PATCH {DEVICE}", devices.patch, SUPERVISORS, wire.DevicePatch, Device, errors=(404,)),
    Route(
        method="DELETE",
        path=DEVICE,
        handler=devices.forget,
        roles=SUPERVISORS,
        query=wire.DeleteQuery,
        status=204,
        errors=(404,),
    ),
    _send(f"POST {DEVICE}/merge", devices.merge, SUPERVISORS, wire.MergeRequest, Device, errors=(404, 409)),
    _send(f"POST {MEMBER}/merge", members.merge, SUPERVISORS, wire.MemberMergeRequest, UnionReport, errors=(404, 409)),
    _send(
        f"POST {MEMBER}/sessions/end",
        members.end_sessions,
        PLATFORM | SUPERVISORS,
        wire.EndAllRequest,
        wire.EndAllReply,
        errors=(404,),
        body_required=False,
    ),
    _list(
        MEMBER + "/enrolments",
        grants.enrolments,
        PLATFORM | ATTENDANTS,
        wire.EnrolmentsQuery,
        lists.EnrolmentsPage,
        errors=(404,),
    ),
    _send(f"PUT {ENROLMENT}", grants.enrol, PLATFORM, wire.EnrolmentRequest, Enrolment),
    Route(
        method="DELETE",
        path=ENROLMENT,
        handler=grants.withdraw,
        roles=PLATFORM,
        query=wire.DeleteQuery,
        status=204,
        errors=(404,),
    ),
    _send(
        f"POST {MEMBER}/passes",
        grants.give_pass,
        SUPERVISORS,
        wire.PassRequest,
        Pass,
        status=201,
        errors=(404, 409),
        creates=True,
    ),
    _list("/v1/reports/sharing", reports.sharing, SUPERVISORS, wire.SharingQuery, lists.SharingPage),
    _list("/v1/reports/access", reports.access, ATTENDANTS, wire.AccessQuery, lists.AccessPage),
    _list("/v1/reports/activity", reports.activity, SUPERVISORS, wire.DaysQuery, lists.ActivityDaysPage),
    _list("/v1/reports/logins", reports.logins, SUPERVISORS, wire.DaysQuery, lists.LoginDaysPage),
    _list("/v1/reports/devices", reports.devices, SUPERVISORS, wire.DaysQuery, lists.DeviceDaysPage),
    _list("/v1/reports/refusals", reports.refusals, SUPERVISORS, wire.DaysQuery, lists.RefusalDaysPage),
    _send(
        "POST /v1/reports",
        written.write,
        SUPERVISORS,
        wire.ReportRequest,
        Job,
        status=202,
        errors=(409,),
        creates=True,
    ),
    _get("/v1/addresses/{ip}", addresses.get, SUPERVISORS, AddressUse, errors=(404,)),
    Route(
        method="POST",
        path="/v1/imports",
        handler=imports.create,
        roles=PLATFORM | ADMINISTRATORS,
        stream=(ImportedMember, ImportedEnrolment),
        reply=Job,
        status=202,
        errors=(400, 409, 413, 415),
        creates=True,
    ),
    _get("/v1/jobs/{job_id}/refused", imports.refused, PLATFORM | ADMINISTRATORS, Refusal, errors=(404,), lines=True),
    _get("/v1/jobs/{job_id}", jobs.get, PLATFORM | SUPERVISORS, Job, errors=(404,)),
    _get("/v1/jobs/{job_id}/result", jobs.result, SUPERVISORS, None, errors=(404, 409), media="text/csv"),
    _list("/v1/violations", violations.listed, SUPERVISORS, wire.ViolationsQuery, lists.ViolationsPage),
    _get("/v1/violations/summary", violations.summary, SUPERVISORS, Summary),
    _send("POST /v1/violations/mark", violations.mark, SUPERVISORS, wire.MarkRequest, wire.MarkReply),
    _send(
        "PATCH /v1/violations/{violation_id}",
        violations.patch,
        SUPERVISORS,
        wire.ResolutionPatch,
        Violation,
        errors=(404,),
    ),
    _get("/v1/rules", rules.listed, ADMINISTRATORS, lists.RulesPage),
    _send(
        "POST /v1/rules",
        rules.create,
        ADMINISTRATORS,
        wire.RuleRequest,
        wire.RuleReply,
        status=201,
        errors=(409, 422),
        creates=True,
    ),
    _send(
        "POST /v1/rules/simulate",
        simulate.simulate,
        ADMINISTRATORS,
        wire.SimulateRequest,
        Simulation,
        errors=(404, 409),
        later=Job,
    ),
    _get(RULE, rules.get, ADMINISTRATORS, wire.RuleReply, errors=(404,)),
    _send(f"PUT {RULE}", rules.replace, ADMINISTRATORS, wire.RuleRequest, wire.RuleReply, errors=(404, 409)),
    Route(
        method="DELETE",
        path=RULE,
        handler=rules.delete,
        roles=ADMINISTRATORS,
        query=wire.DeleteQuery,
        status=204,
        errors=(404,),
    ),
    _get(RULE + "/versions", rules.versions, ADMINISTRATORS, lists.RuleVersionsPage, errors=(404,)),
    _get("/v1/settings", rules.settings, ADMINISTRATORS, Settings),
    _send("PUT /v1/settings", rules.save_settings, ADMINISTRATORS, wire.SettingsRequest, Settings),
    _get("/v1/stream", stream.stream, PLATFORM, None, media=stream.EVENT_STREAM),
    _get("/v1/webhooks", webhooks.listed, ADMINISTRATORS, lists.WebhooksPage),
    _send(
        "POST /v1/webhooks",
        webhooks.create,
        ADMINISTRATORS,
        wire.WebhookRequest,
        wire.WebhookMade,
        status=201,
        errors=(409,),
        creates=True,
    ),
    Route(
        method="DELETE",
        path=WEBHOOK,
        handler=webhooks.delete,
        roles=ADMINISTRATORS,
        query=wire.DeleteQuery,
        status=204,
        errors=(404,),
    ),
    _list(WEBHOOK + "/deliveries", webhooks.deliveries, ADMINISTRATORS, Paging, lists.DeliveriesPage, errors=(404,)),
    _send(
        f"POST {WEBHOOK}/deliveries/{{delivery_id}}/redeliver",
        webhooks.redeliver,
        ADMINISTRATORS,
        None,
        Delivery,
        errors=(404,),
    ),
    _list(
        "/v1/revocations", revocations.listed, ADMINISTRATORS, wire.ListQuery, lists.RevocationsPage, everywhere=True
    ),
    _send(
        "POST /v1/revocations",
        revocations.create,
        ADMINISTRATORS,
        wire.RevocationRequest,
        Revocation,
        status=201,
        errors=(409,),
        creates=True,
        everywhere=True,
    ),
    Route(
        method="DELETE",
        path="/v1/revocations/{revocation_id}",
        handler=revocations.delete,
        roles=ADMINISTRATORS,
        query=wire.DeleteQuery,
        status=204,
        errors=(404,),
        everywhere=True,
    ),
    _list("/v1/audit", rules.audit, ADMINISTRATORS, wire.AuditQuery, lists.AuditPage),
    Route(
        method="POST",
        path="/v1/console/links",
        handler=entrance.link,
        roles=ATTENDANTS,
        reply=wire.ConsoleLinkReply,
        errors=(409,),
    ),
    _list("/v1/tenants", tenants.listed, ADMINISTRATORS, Paging, lists.TenantsPage, installation=True),
    _send(
        "POST /v1/tenants",
        tenants.create,
        ROOT,
        wire.TenantRequest,
        wire.TenantReply,
        status=201,
        errors=(409,),
        creates=True,
        installation=True,
    ),
    _get(TENANT, tenants.get, ROOT, wire.TenantReply, errors=(404,), installation=True),
    _send(
        f"PATCH {TENANT}", tenants.patch, ROOT, wire.TenantPatch, wire.TenantReply, errors=(404, 409), installation=True
    ),
    Route(
        method="DELETE",
        path=TENANT,
        handler=tenants.delete,
        roles=ROOT,
        query=wire.TenantDeleteQuery,
        reply=wire.TenantDeletion,
        later=wire.TenantReply,
        errors=(404, 409),
        installation=True,
    ),
    _send(
        "POST /access/v1/evaluation",
        authzen.evaluation,
        PLATFORM,
        authzen_wire.EvaluationRequest,
        authzen_wire.EvaluationReply,
    ),
    _send(
        "POST /access/v1/evaluations",
        authzen.evaluations,
        PLATFORM,
        authzen_wire.EvaluationsRequest,
        authzen_wire.EvaluationsReply,
    ),
    _get(
        "/.well-known/authzen-configuration",
        authzen.metadata,
        NOBODY,
        authzen_wire.PdpMetadata,
        installation=True,
        open=True,
    ),
    _get("/.well-known/jwks.json", webhooks.keys, NOBODY, wire.PublishedKeys, installation=True, open=True),
    _get(
        "/.well-known/ssf-configuration",
        webhooks.transmitter,
        NOBODY,
        wire.Transmitter,
        errors=(404,),
        installation=True,
        open=True,
    ),
    Route(
        method="GET",
        path="/restricted",
        handler=restricted.show,
        roles=NOBODY,
        query=RestrictedQuery,
        reply=RestrictedPage,
        errors=(404,),
        installation=True,
        open=True,
        page=True,
    ),
    _send(
        "POST /restricted/place",
        restricted.free,
        NOBODY,
        PlaceRequest,
        RestrictedPage,
        errors=(404, 409),
        installation=True,
        open=True,
        page=True,
    ),
    _send(
        "POST /restricted/words",
        restricted.write,
        NOBODY,
        WordsRequest,
        RestrictedPage,
        errors=(404, 409),
        installation=True,
        open=True,
        page=True,
    ),
    _gate("GET /auth/nginx", proxy.nginx, bare=True),
    _gate("GET /auth/traefik", proxy.traefik),
    _gate("GET /auth/caddy", proxy.caddy),
    _gate("* /auth/envoy/{path}", proxy.envoy, status=200),
)
