"""What the use cases are asked and what they answer."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, TypeAlias
from uuid import UUID

import msgspec

from accessguard.rules.model import Action, Activity, Code, Effect, Grade, Kind, Mode, Outcome

Opaque: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Text: TypeAlias = Annotated[str, msgspec.Meta(max_length=512)]


class Check(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """May this session go on? Only `session_id` and `ip` are required; an `ip` that is no address is unknown."""

    session_id: Opaque
    ip: Annotated[str, msgspec.Meta(max_length=256)]
    user_agent: str | None = None
    device_token: str | None = None
    activity: Activity | None = None
    resource: Text | None = None
    product_id: Opaque | None = None
    explain: bool = False


class LoginOutcome(StrEnum):
    """What the platform's own check of the credentials said."""

    SUCCESS = "success"
    FAILURE = "failure"


class Method(StrEnum):
    """How the member logged in; a login by impersonation is never counted and never restricted."""

    PASSWORD = "password"  # noqa: S105 - a method, not a secret
    SSO = "sso"
    SOCIAL = "social"
    MAGIC_LINK = "magic_link"
    CODE = "code"
    TOKEN = "token"  # noqa: S105 - a method, not a secret
    IMPERSONATION = "impersonation"


class Login(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One login attempt; `attempt_id` is the caller's, to make a retry safe."""

    outcome: LoginOutcome
    ip: Annotated[str, msgspec.Meta(max_length=256)]
    member_id: Opaque | None = None
    identifier: Text | None = None
    failure_reason: Annotated[str, msgspec.Meta(max_length=200)] | None = None
    method: Method = Method.PASSWORD
    app: Opaque | None = None
    host: Annotated[str, msgspec.Meta(max_length=253)] | None = None
    user_agent: str | None = None
    client_hints: dict[str, str] | None = None
    device_token: str | None = None
    session_id: Opaque | None = None
    attempt_id: UUID | None = None


class Choice(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something that takes up a place and could be closed: a `device` or a `session`.

    `same`: the device that asks seems to be this one without its cookie.
    """

    kind: str
    id: str
    label: str
    last_activity_at: datetime
    same: bool = False


class TraceStep(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One rule that was looked at: what it counted, and what it did or would have done.

    `action` is what the rule has come to, where it escalates. `times` belong
    to what is counted, in the same order. `seen` and `before` are what a rule
    compared, `grade` how old a device token is; `settled` says that a passed
    challenge stood in its way.
    """

    rule_id: UUID
    rule_version: int
    kind: Kind
    mode: Mode
    action: Action
    skipped: str | None
    code: Code | None = None
    effect: Effect | None = None
    limit: int | None = None
    counted: int | None = None
    retry_at: datetime | None = None
    sessions: tuple[str, ...] = ()
    devices: tuple[UUID, ...] = ()
    networks: tuple[str, ...] = ()
    times: tuple[datetime, ...] = ()
    seen: str | None = None
    before: str | None = None
    settled: bool = False
    would_end: tuple[str, ...] = ()
    grade: Grade | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer to a check, before it is written as JSON.

    `device_id` is None where no device is known. `challenge_id` names the
    challenge that was put. `choices` are what counts against the limit that refused. `locale` chooses the message's language,
    `time_zone` is the student's; `message` is the rule's own text. `lapse` is
    why no enrolment is active. `trace` is there only when asked for.
    """

    outcome: Outcome
    session_id: str | None
    code: Code | None = None
    member_id: str | None = None
    device_id: UUID | None = None
    exempt: bool = False
    degraded: bool = False
    ttl_ms: int = 0
    rule_id: UUID | None = None
    rule_version: int | None = None
    limit: int | None = None
    counted: int | None = None
    retry_at: datetime | None = None
    message: str | None = None
    end_reason: str | None = None
    violation_id: UUID | None = None
    challenge_id: UUID | None = None
    choices: tuple[Choice, ...] = ()
    lapse: str | None = None
    locale: str | None = None
    time_zone: str | None = None
    support_email: str | None = None
    trace: tuple[TraceStep, ...] = ()


class OpenedSession(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The session that a login got."""

    id: str
    token: str
    expires_at: datetime


class CookieParts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The device cookie in parts and as a ready `Set-Cookie` value; the platform sets it, so it is first-party."""

    name: str
    value: str
    max_age_s: int
    header: str


class LoginDevice(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The device that a login came from, with its new token."""

    id: UUID
    new: bool
    token: str
    cookie: CookieParts


class EndedSession(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A session that ended because of this login, and why."""

    id: str
    reason: str


class LoginVerdict(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer to a login, before it is written as JSON."""

    outcome: Outcome
    attempt_id: UUID
    exempt: bool
    degraded: bool
    session: OpenedSession | None
    device: LoginDevice | None
    ended_sessions: tuple[EndedSession, ...]
    violations: tuple[UUID, ...]
    refusal: Verdict | None


class Actor(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The operator (or platform) who acts: by subject and role, never by name."""

    subject: str
    role: str
