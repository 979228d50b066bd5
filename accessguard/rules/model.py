"""The words of the rule engine: what it is told, what it answers. Plain values, no I/O."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias
from uuid import UUID

import msgspec

from accessguard.rules.networks import Address, Networks


class Outcome(StrEnum):
    """The answer to a check or a login."""

    ALLOW = "allow"
    DENY = "deny"
    CHALLENGE = "challenge"


class Code(StrEnum):
    """Why something was refused, or would have been."""

    UNKNOWN_SESSION = "unknown_session"
    SESSION_ENDED = "session_ended"
    SESSION_EXPIRED = "session_expired"
    DEVICE_BLOCKED = "device_blocked"
    IP_DENIED = "ip_denied"
    IP_NOT_ALLOWED = "ip_not_allowed"
    SESSION_LIMIT = "session_limit"
    DEVICE_LIMIT = "device_limit"
    UNDECIDED = "undecided"


class Mode(StrEnum):
    """Off: not looked at. Observe: counts and logs as if, never denies. Enforce."""

    OFF = "off"
    OBSERVE = "observe"
    ENFORCE = "enforce"


class Action(StrEnum):
    """What an enforced rule does with what it finds."""

    DENY = "deny"
    DENY_NEW = "deny_new"
    EVICT_OLDEST = "evict_oldest"
    EVICT_IDLE = "evict_idle"
    EVICT_OTHERS = "evict_others"
    LOG = "log"


class Kind(StrEnum):
    """The rules there are, in their order of precedence."""

    IP_DENY = "ip_deny"
    IP_ALLOW_ONLY = "ip_allow_only"
    SESSION_LIMIT = "session_limit"
    DEVICE_LIMIT = "device_limit"


class Effect(StrEnum):
    """What became of a finding; kept on the violation."""

    DENIED = "denied"
    EVICTED = "evicted"
    LOGGED = "logged"
    EXEMPT = "exempt"


class Access(StrEnum):
    """What an operator said about one device."""

    DEFAULT = "default"
    ALLOWED = "allowed"
    BLOCKED = "blocked"


class Per(StrEnum):
    """What a limit is counted within."""

    MEMBER = "member"
    DEVICE_CLASS = "device_class"
    APP = "app"


class Stage(StrEnum):
    """At a login the session does not exist yet and takes the newest place."""

    LOGIN = "login"
    CHECK = "check"


class Activity(StrEnum):
    """The six interactions that count as activity."""

    COURSE_OPEN = "course_open"
    LESSON_OPEN = "lesson_open"
    OFFER_OPEN = "offer_open"
    PAYMENT_OPEN = "payment_open"
    VIDEO_WATCH = "video_watch"
    ASSIGNMENT_COMPLETE = "assignment_complete"


class AddressList(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Parameters of `ip_deny` and `ip_allow_only`."""

    networks: Networks


class SessionLimit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """At most `max` (1 or more) sessions active within `window`, counted `per` member, device class or app."""

    max: int
    window: timedelta = timedelta(seconds=1800)
    per: Per = Per.MEMBER


class DeviceLimit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """At most `max` (1 or more) devices used within `window`; None counts them for ever."""

    max: int
    window: timedelta | None = timedelta(days=30)
    per: Per = Per.MEMBER


Params: TypeAlias = AddressList | SessionLimit | DeviceLimit


class Scope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whom a rule is about; an empty set means all."""

    tags: frozenset[str] = frozenset()
    except_tags: frozenset[str] = frozenset()
    products: frozenset[str] = frozenset()
    apps: frozenset[str] = frozenset()
    device_classes: frozenset[str] = frozenset()


class Rule(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One restriction as the engine sees it, parameters parsed."""

    id: UUID
    version: int
    kind: Kind
    mode: Mode
    action: Action
    params: Params
    scope: Scope = Scope()
    priority: int = 0
    message: str | None = None


class SessionFact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One session of the member, as far as rules care.

    `last_activity` is the later of its start and its last counted
    interaction, both aware UTC. Sessions by impersonation are left out.
    """

    id: str
    device_id: UUID | None
    started_at: datetime
    last_activity: datetime
    app: str | None = None
    device_class: str = "unknown"

    @property
    def rank(self) -> tuple[datetime, str]:
        """By age: the greater, the newer; ties are broken by id."""
        return (self.started_at, self.id)

    @property
    def idle_rank(self) -> tuple[datetime, datetime, str]:
        """By use: the smaller, the longer idle; then the older; then by id."""
        return (self.last_activity, self.started_at, self.id)


class DeviceFact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One device of the member; `admitted_at` is when it took its place, None while it holds none."""

    id: UUID
    access: Access
    admitted_at: datetime | None
    last_seen: datetime
    device_class: str = "unknown"

    def rank(self, otherwise: datetime) -> tuple[datetime, str]:
        """By admission: the smaller, the longer it has its place."""
        return (self.admitted_at or otherwise, str(self.id))


class Facts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything a verdict depends on, gathered before it is judged.

    `session` and `device` are the ones asked about; `others` and
    `other_devices` are the rest of the member's, in any order. `address` is
    None when it is unknown. `ended` carries the end reason of an ended session.
    """

    now: datetime
    stage: Stage
    session: SessionFact
    device: DeviceFact | None
    address: Address | None
    others: tuple[SessionFact, ...] = ()
    other_devices: tuple[DeviceFact, ...] = ()
    tags: frozenset[str] = frozenset()
    product_id: str | None = None
    staff: bool = False
    exempt: bool = False


class Finding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A rule's wrong, found: what it allows, what was counted, and which sessions or devices those are.

    `subject` names what the case is about, so that a repeated refusal is one
    case. `evict` are the sessions to end, in that order. `retry_at` is when a
    place frees by itself, None when it does not.
    """

    code: Code
    subject: str
    limit: int | None = None
    counted: int | None = None
    retry_at: datetime | None = None
    sessions: tuple[str, ...] = ()
    devices: tuple[UUID, ...] = ()
    evict: tuple[str, ...] = ()


class Step(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One rule looked at: what it found and what became of it (None: nothing found, or not looked at)."""

    rule: Rule
    finding: Finding | None
    effect: Effect | None
    skipped: str | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The verdict, the step that made it, and every step on the way."""

    outcome: Outcome
    code: Code | None = None
    step: Step | None = None
    steps: tuple[Step, ...] = ()
    exempt: bool = False
    degraded: bool = False

    @property
    def fired(self) -> tuple[Step, ...]:
        """The steps that found something; each becomes a violation."""
        return tuple(step for step in self.steps if step.finding is not None)

    @property
    def evict(self) -> tuple[str, ...]:
        """Sessions to end, in order, each once."""
        ids = (
            sid for step in self.steps if step.effect is Effect.EVICTED and step.finding for sid in step.finding.evict
        )
        return tuple(dict.fromkeys(ids))
