"""The shapes of requests and answers. They decode the calls and they make the OpenAPI document."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from accessguard.api.read import Paging
from accessguard.api.speech import ANYBODY, Listener, spoken
from accessguard.challenges.model import Answer
from accessguard.events.keys import Jwk
from accessguard.events.webhooks import Digest, Webhook, WebhookEvent, WebhookFormat
from accessguard.guard.bulk import BulkAction, ErasureMode
from accessguard.guard.model import (
    Check,
    Choice,
    EndedSession,
    LoginDevice,
    LoginVerdict,
    Opaque,
    OpenedSession,
    TraceStep,
    Verdict,
)
from accessguard.members.model import MemberSort, Notice, PassKind
from accessguard.policies.model import AppliesTo, RuleBody, RuleRecord, Settings
from accessguard.policies.params import Short
from accessguard.policies.store import RuleVersion
from accessguard.policies.tenants import TenantStatus
from accessguard.rules.model import Access, Action, Code, EnrolmentStatus, Kind, Mode, Outcome
from accessguard.sessions.history import SessionItem
from accessguard.violations.model import Resolution
from accessguard.words.operator import sentence

Time: TypeAlias = Annotated[datetime, msgspec.Meta(tz=True)]
Reason: TypeAlias = Annotated[str, msgspec.Meta(max_length=1000)]
Claim: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
Order: TypeAlias = Literal["asc", "desc"]


class RefusalReason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a session or a login was refused, in a code for machines and a message for the student."""

    code: Code
    rule_id: UUID | None
    rule_version: int | None
    limit: int | None
    counted: int | None
    retry_at: datetime | None
    message: str
    language: str
    support_email: str | None
    page_url: str | None
    challenge_id: UUID | None
    choices: tuple[Choice, ...]
    end_reason: str | None


class CheckReply(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a session may go on, and why not.

    `trace` holds every rule looked at, in order; only with `explain`.
    """

    decision: Outcome
    reason: RefusalReason | None
    member_id: str | None
    session_id: str
    device_id: UUID | None
    exempt: bool
    degraded: bool
    ttl_ms: int
    violation_id: UUID | None
    trace: tuple[TraceStep, ...] | msgspec.UnsetType = msgspec.UNSET


class ChecksRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Up to 500 checks at once."""

    checks: Annotated[tuple[Check, ...], msgspec.Meta(min_length=1, max_length=500)]


class ChecksReply(msgspec.Struct, frozen=True, kw_only=True):
    """The answers, in the order of the checks."""

    results: tuple[CheckReply, ...]


class LoginReply(msgspec.Struct, frozen=True, kw_only=True):
    """What was decided on a login, and what the platform hands to the browser."""

    decision: Outcome
    reason: RefusalReason | None
    attempt_id: UUID
    exempt: bool
    degraded: bool
    session: OpenedSession | None
    device: LoginDevice | None
    ended_sessions: tuple[EndedSession, ...]
    violations: tuple[UUID, ...]


class SettleRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a challenge went, and what the student did to free a place: one session or one device of `choices`."""

    outcome: Answer
    end_session_id: Opaque | None = None
    forget_device_id: UUID | None = None
    merge_device_id: UUID | None = None


class EndRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why a session ends: `logout`, `password_changed` or a word of the platform's own."""

    reason: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[a-z][a-z0-9_]*$")] = "logout"


class EndReply(msgspec.Struct, frozen=True, kw_only=True):
    """Whether this call ended the session, and how it stands now."""

    ended: bool
    session: SessionItem


class EndAllRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why all sessions of a member are ended."""

    reason: Reason | None = None


class EndAllReply(msgspec.Struct, frozen=True, kw_only=True):
    """The sessions that this call ended."""

    ended_sessions: tuple[EndedSession, ...]


class MemberRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the platform knows of a student; what is left out is emptied."""

    name: Short = ""
    email: Annotated[str, msgspec.Meta(max_length=254)] | None = None
    phone: Annotated[str, msgspec.Meta(max_length=40)] | None = None
    tags: Annotated[tuple[Short, ...], msgspec.Meta(max_length=100)] = ()
    locale: Annotated[str, msgspec.Meta(max_length=35)] | None = None
    time_zone: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    staff: bool = False
    country: Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}$(?!\\n)")] | None = None
    city: Short | None = None


class MemberPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator says of a student; what is left out stays."""

    checks_enabled: bool | msgspec.UnsetType = msgspec.UNSET
    checks_disabled_until: Time | msgspec.UnsetType | None = msgspec.UNSET
    note: Annotated[str, msgspec.Meta(max_length=10_000)] | msgspec.UnsetType = msgspec.UNSET
    tags: Annotated[tuple[Short, ...], msgspec.Meta(max_length=100)] | msgspec.UnsetType = msgspec.UNSET
    reason: Reason | None = None


class EnrolmentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the platform knows of an enrolment; what is left out is emptied."""

    starts_at: Time
    ends_at: Time | None = None
    purchased_at: Time | None = None
    status: EnrolmentStatus = EnrolmentStatus.ACTIVE
    reopens_at: Time | None = None
    reason: Reason | None = None


class PassRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Something extra for a member, for a year at most."""

    kind: PassKind
    until: Time
    reason: Reason | None = None


class DevicePatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator says of a device; what is left out stays."""

    access: Access | msgspec.UnsetType = msgspec.UNSET
    name: Short | msgspec.UnsetType | None = msgspec.UNSET
    reason: Reason | None = None


class MergeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The device that another one turned out to be."""

    into: UUID
    reason: Reason | None = None


class MembersQuery(Paging, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Filters and order of the list of members."""

    q: Annotated[str, msgspec.Meta(max_length=254)] | None = None
    status: Literal["active", "inactive"] | None = None
    tag: Short | None = None
    unread: bool = False
    restricted: bool = False
    product_id: Opaque | None = None
    sort: MemberSort = MemberSort.LAST_ACTIVITY
    order: Order | None = None


class MemberMergeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The member that another one turned out to be."""

    into: Opaque
    reason: Reason | None = None


class BulkFilter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The filters of the list of members; without any, everybody."""

    q: Annotated[str, msgspec.Meta(max_length=254)] | None = None
    status: Literal["active", "inactive"] | None = None
    tag: Short | None = None
    unread: bool = False
    restricted: bool = False
    product_id: Opaque | None = None


class BulkRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One action, and whom it is for: either `ids` or a `filter`."""

    action: BulkAction
    ids: Annotated[tuple[Opaque, ...], msgspec.Meta(min_length=1, max_length=10_000)] | None = None
    filter: BulkFilter | None = None
    tags: Annotated[tuple[Short, ...], msgspec.Meta(max_length=100)] = ()
    until: Time | None = None
    product_id: Opaque | None = None
    mode: ErasureMode | None = None
    reason: Reason | None = None
    confirmation: Annotated[str, msgspec.Meta(max_length=2000)] | None = None


class ErasureRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to erase: either `ids` or a `filter`."""

    ids: Annotated[tuple[Opaque, ...], msgspec.Meta(min_length=1, max_length=10_000)] | None = None
    filter: BulkFilter | None = None
    mode: ErasureMode = ErasureMode.ERASE
    reason: Reason | None = None
    confirmation: Annotated[str, msgspec.Meta(max_length=2000)] | None = None


class ListQuery(Paging, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paging of a list that has one order, by time."""

    order: Order = "desc"


class RelatedQuery(Paging, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paging of a list that has one order, the strongest first."""


class EnrolmentsQuery(Paging, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Paging of a list that has one order, by product."""


class ViolationsQuery(
    Paging, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}
):
    """Filters of the restriction history; times are compared with the last hit."""

    read: bool | None = None
    member_id: Opaque | None = None
    rule_id: UUID | None = None
    code: Code | None = None
    resolution: Resolution | None = None
    since: Time | None = None
    until: Time | None = None
    order: Order = "desc"


class SharingQuery(
    Paging, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}
):
    """The period of the report, and its order."""

    since: Time | None = None
    until: Time | None = None
    sort: Literal["score", "last_at"] = "score"
    order: Order = "desc"


class DaysQuery(Paging, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}):
    """The days of a report, `to` itself not included, and their order."""

    since: date | None = None
    until: date | None = None
    order: Order = "desc"


class AccessQuery(Paging, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Filters of the report on access."""

    product_id: Opaque | None = None
    member_id: Opaque | None = None


class ReportRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}
):
    """A report to be written as CSV; `from` and `to` are for reports by day and `sharing`, the two ids for `access`."""

    report: Literal["access", "sharing", "activity", "logins", "devices", "refusals"]
    since: date | None = None
    until: date | None = None
    product_id: Opaque | None = None
    member_id: Opaque | None = None


class HistoryQuery(
    Paging, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}
):
    """Filters of what operators changed about a member."""

    actor: Annotated[str, msgspec.Meta(max_length=255)] | None = None
    kind: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    since: Time | None = None
    until: Time | None = None
    order: Order = "desc"
    remembered: bool = False


class CommentRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A comment to write; it can be neither edited nor deleted."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=10_000, pattern=r"\S")]


class PreferenceRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to keep, in the place of what was kept: an object of 8 KiB at most."""

    value: dict[str, Any]


class AuditQuery(
    Paging, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}
):
    """Filters of the audit log."""

    actor: Annotated[str, msgspec.Meta(max_length=255)] | None = None
    action: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    target_kind: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    target_id: Annotated[str, msgspec.Meta(max_length=128)] | None = None
    since: Time | None = None
    until: Time | None = None
    order: Order = "desc"


class MarkRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which cases to mark for the operator who asks: exactly one of `ids`, `member_id`, `up_to`."""

    read: bool
    ids: Annotated[tuple[UUID, ...], msgspec.Meta(min_length=1, max_length=1000)] | None = None
    member_id: Opaque | None = None
    up_to: Time | None = None


class MarkReply(msgspec.Struct, frozen=True, kw_only=True):
    """How many marks this call changed."""

    marked: int


class ResolutionPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a case turned out to be; what is left out stays."""

    resolution: Resolution | None = None
    note: Annotated[str, msgspec.Meta(max_length=10_000)] | None = None
    reason: Reason | None = None


class RuleRequest(RuleBody, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A rule to save; `id` and `version`, as a read rule has them, are ignored, and so are `updated_at` and `summary`."""

    id: UUID | None = None
    version: Annotated[int, msgspec.Meta(ge=0, le=2_147_483_647)] | None = None
    updated_at: datetime | None = None
    summary: str | None = None
    reason: Reason | None = None
    confirm_lockout: bool = False

    def body(self) -> RuleBody:
        """The rule itself, as it is stored."""
        return RuleBody(**{name: getattr(self, name) for name in RuleBody.__struct_fields__})


class SimulateRequest(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename={"since": "from", "until": "to"}
):
    """A rule to try, and the period to try it on: from `from` on, before `to`."""

    rule: RuleRequest
    since: Time
    until: Time


class RuleReply(msgspec.Struct, frozen=True, kw_only=True):
    """A rule as it is in force (or off)."""

    id: UUID
    version: int
    kind: Kind
    name: str
    mode: Mode
    action: Action | None
    params: dict[str, Any]
    applies_to: AppliesTo
    message: str | None
    priority: int
    updated_at: datetime
    summary: str


class RuleVersionReply(msgspec.Struct, frozen=True, kw_only=True):
    """A rule as it was from `at` on, by whom and why; `deleted` when that took it out of force."""

    version: int
    at: datetime
    actor: str
    reason: str | None
    deleted: bool
    rule: RuleBody


class SettingsRequest(Settings, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of a tenant's settings; what is left out goes back to its default."""

    reason: Reason | None = None

    def settings(self) -> Settings:
        """The settings themselves, as they are stored."""
        return Settings(**{name: getattr(self, name) for name in Settings.__struct_fields__})


class ConsoleLinkReply(msgspec.Struct, frozen=True, kw_only=True):
    """Where the operator's browser is sent, on this service's own host."""

    path: str
    expires_at: datetime


class DeleteQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why something is deleted."""

    reason: Reason | None = None


class EraseQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a member is erased, and why."""

    mode: ErasureMode
    reason: Reason | None = None


class ExportQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What goes into the archive, and why it is made."""

    ip: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    reason: Reason | None = None


class NoticeRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which notice a member was shown."""

    version: Opaque
    shown_at: Time


class NoticesReply(msgspec.Struct, frozen=True, kw_only=True):
    """Every notice that a member was shown, the newest first."""

    items: tuple[Notice, ...]
    next_cursor: str | None = None


class RevocationRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which token, or whose tokens; one of the two."""

    token_id: Claim | None = None
    caller: Claim | None = None
    expires_at: Time | None = None
    reason: Reason | None = None


class WebhookRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to tell of what."""

    url: Annotated[str, msgspec.Meta(min_length=8, max_length=2000)]
    events: Annotated[tuple[WebhookEvent, ...], msgspec.Meta(min_length=1, max_length=16)]
    format: WebhookFormat = WebhookFormat.STANDARD
    audience: Annotated[str, msgspec.Meta(min_length=1, max_length=2000)] | None = None
    digest: Digest | None = None
    reason: Reason | None = None


class WebhookMade(Webhook, frozen=True, kw_only=True):
    """A webhook that was just made, with the secret that signs what it is sent, or comes with it."""

    secret: str


class PublishedKeys(msgspec.Struct, frozen=True, kw_only=True):
    """The public keys of security event tokens, a JSON Web Key Set (RFC 7517); the one that signs comes first."""

    keys: tuple[Jwk, ...]


class Transmitter(msgspec.Struct, frozen=True, kw_only=True):
    """Who sends security event tokens (OpenID Shared Signals Framework 1.0, section 7.1)."""

    spec_version: str
    issuer: str
    jwks_uri: str
    delivery_methods_supported: tuple[str, ...]


class TenantRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant to make."""

    tenant: Opaque
    name: Short = ""
    reason: Reason | None = None


class TenantReply(msgspec.Struct, frozen=True, kw_only=True):
    """One tenant."""

    tenant: str
    name: str
    status: TenantStatus
    parent: str | None
    created_at: datetime


class TenantPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is said of a tenant; what is left out stays as it is."""

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | msgspec.UnsetType = msgspec.UNSET
    status: Literal["active", "suspended"] | msgspec.UnsetType = msgspec.UNSET
    parent: Opaque | msgspec.UnsetType | None = msgspec.UNSET
    reason: Reason | None = None


class TenantDeleteQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The token that the first call gave, and why."""

    confirmation: Annotated[str, msgspec.Meta(max_length=1000)] | None = None
    reason: Reason | None = None


class TenantDeletion(msgspec.Struct, frozen=True, kw_only=True):
    """What would go, and the token that says "yes"."""

    confirmation: str
    expires_at: datetime
    members: int


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Whether the service lives, or may serve; `parts` says which part is down, `pending` how many logins wait."""

    status: Literal["ok", "unavailable"]
    parts: dict[str, str]
    pending: int = 0


def check_reply(verdict: Verdict, *, explain: bool, listener: Listener = ANYBODY) -> CheckReply:
    """The wire form of a verdict."""
    return CheckReply(
        decision=verdict.outcome,
        reason=refusal(verdict, listener),
        member_id=verdict.member_id,
        session_id=verdict.session_id or "",
        device_id=verdict.device_id,
        exempt=verdict.exempt,
        degraded=verdict.degraded,
        ttl_ms=verdict.ttl_ms,
        violation_id=verdict.violation_id,
        trace=verdict.trace if explain else msgspec.UNSET,
    )


def login_reply(verdict: LoginVerdict, listener: Listener) -> LoginReply:
    """The wire form of what a login came to."""
    return LoginReply(
        decision=verdict.outcome,
        reason=_login_refusal(verdict, verdict.refusal, listener) if verdict.refusal else None,
        attempt_id=verdict.attempt_id,
        exempt=verdict.exempt,
        degraded=verdict.degraded,
        session=verdict.session,
        device=verdict.device,
        ended_sessions=verdict.ended_sessions,
        violations=verdict.violations,
    )


def _login_refusal(login: LoginVerdict, verdict: Verdict, listener: Listener) -> RefusalReason | None:
    """The same of a login, whose first case is the one that its student is told of."""
    case = next(iter(login.violations), None)
    return refusal(msgspec.structs.replace(verdict, violation_id=case), listener)


def refusal(verdict: Verdict, listener: Listener) -> RefusalReason | None:
    """Why it was refused, in the listener's language; None when it was not."""
    if verdict.code is None:
        return None
    message, language = spoken(verdict, verdict.code, listener)
    return RefusalReason(
        code=verdict.code,
        rule_id=verdict.rule_id,
        rule_version=verdict.rule_version,
        limit=verdict.limit,
        counted=verdict.counted,
        retry_at=verdict.retry_at,
        message=message,
        language=language,
        support_email=verdict.support_email,
        page_url=listener.page_url(verdict),
        challenge_id=verdict.challenge_id,
        choices=verdict.choices,
        end_reason=verdict.end_reason,
    )


def rule_reply(record: RuleRecord, language: str) -> RuleReply:
    """The wire form of a stored rule, summed up in one of the six languages."""
    body = record.body
    fields = {name: getattr(body, name) for name in RuleBody.__struct_fields__}
    summary = sentence(language, kind=body.kind, mode=body.mode, action=body.action, params=body.params)
    return RuleReply(id=record.id, version=record.version, updated_at=record.updated_at, summary=summary, **fields)


def rule_version_reply(version: RuleVersion) -> RuleVersionReply:
    """The wire form of one version of a rule."""
    return RuleVersionReply(
        version=version.version,
        at=version.at,
        actor=version.actor,
        reason=version.reason,
        deleted=version.deleted,
        rule=version.body,
    )
