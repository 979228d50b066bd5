"""What the rule engine is told and what it answers. Plain values, no I/O; the one door to its words and parameters."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

import msgspec

from accessguard.rules.networks import Address
from accessguard.rules.params import (
    EVERYBODY,
    AddressList,
    AsnList,
    CopiedSession,
    CountryList,
    DeviceChurn,
    DeviceLimit,
    EnrolmentNeeded,
    Escalation,
    ImpossibleTravel,
    LoginFailures,
    NetworkLimit,
    Params,
    Rule,
    Scope,
    SessionLimit,
    Swaps,
)
from accessguard.rules.words import (
    Access,
    Action,
    Activity,
    Code,
    Effect,
    EnrolmentStatus,
    FailurePer,
    Grade,
    Kind,
    Lapse,
    Mode,
    Outcome,
    Per,
    Signal,
    Stage,
    Unit,
)

__all__ = [
    "EVERYBODY",
    "Access",
    "Action",
    "Activity",
    "AddressList",
    "AsnList",
    "CaseFact",
    "Code",
    "CopiedSession",
    "Count",
    "CountryList",
    "Decision",
    "DeviceChurn",
    "DeviceFact",
    "DeviceLimit",
    "Effect",
    "EnrolmentFact",
    "EnrolmentNeeded",
    "EnrolmentStatus",
    "Escalation",
    "Facts",
    "FailureFact",
    "FailurePer",
    "Finding",
    "Grade",
    "ImpossibleTravel",
    "Kind",
    "Lapse",
    "LoginFailures",
    "Mode",
    "NetworkFact",
    "NetworkLimit",
    "Outcome",
    "Params",
    "Per",
    "Place",
    "Rule",
    "Scope",
    "SessionFact",
    "SessionLimit",
    "Settled",
    "Signal",
    "Stage",
    "Step",
    "Swaps",
    "TokenFact",
    "Unit",
]


class Place(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the geographic files say of an address; None is unknown.

    `country` is ISO 3166-1 alpha-2, upper case; `latitude` and `longitude` are
    degrees of the centre of what is known.
    """

    country: str | None = None
    asn: int | None = None
    city: str | None = None
    latitude: float | None = None
    longitude: float | None = None


class SessionFact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One session of the member, as far as rules care.

    `last_activity` is the later of its start and its last counted
    interaction, both aware UTC; `last_kind` is that interaction's, None when
    there was none. Sessions by impersonation are left out.
    """

    id: str
    device_id: UUID | None
    started_at: datetime
    last_activity: datetime
    app: str | None = None
    device_class: str = "unknown"
    last_kind: Activity | None = None

    @property
    def rank(self) -> tuple[datetime, str]:
        """By age: the greater, the newer; ties are broken by id."""
        return (self.started_at, self.id)

    @property
    def idle_rank(self) -> tuple[datetime, datetime, str]:
        """By use: the smaller, the longer idle; then the older; then by id."""
        return (self.last_activity, self.started_at, self.id)


class DeviceFact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One device of the member; `admitted_at` is when it took its place, None while it holds none.

    `first_admitted_at` is when it did so for the first time (None: as
    `admitted_at`); `forgotten` devices hold no place and are told of for
    churn alone. `new` is one that this very login makes. `browser` and `os`
    are its families as stored, None when unknown.
    """

    id: UUID
    access: Access
    admitted_at: datetime | None
    last_seen: datetime
    device_class: str = "unknown"
    first_admitted_at: datetime | None = None
    forgotten: bool = False
    new: bool = False
    browser: str | None = None
    os: str | None = None

    def rank(self, otherwise: datetime) -> tuple[datetime, str]:
        """By admission: the smaller, the longer it has its place."""
        return (self.admitted_at or otherwise, str(self.id))

    @property
    def first(self) -> datetime | None:
        """When it was admitted for the first time; None: never."""
        return self.first_admitted_at or self.admitted_at


class NetworkFact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One address that one session of the member was used from, as it stood before this question.

    `admitted_at` is when it took its place, None when it was refused and holds
    none; `last_at` does not move while it is refused.
    """

    address: Address
    place: Place | None
    session_id: str | None
    device_id: UUID | None
    first_at: datetime
    last_at: datetime
    admitted_at: datetime | None


class FailureFact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One failed login that was not itself refused by a limit.

    `device_id` is the device of the member whose token was shown, None when
    it was none of his. `own` is whether the login was for the member asked
    about; others stand here for the sake of the address.
    """

    at: datetime
    address: Address | None
    device_id: UUID | None
    own: bool = True


class EnrolmentFact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One enrolment of the member; `ends_at` is None for ever, `reopens_at` when a frozen one thaws by itself."""

    product_id: str
    starts_at: datetime
    ends_at: datetime | None = None
    status: EnrolmentStatus = EnrolmentStatus.ACTIVE
    reopens_at: datetime | None = None


class CaseFact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A case of the member that a rule opened `at`; false alarms are left out."""

    rule_id: UUID
    at: datetime


class TokenFact(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A genuine device token that is no longer the one its device holds.

    `lost`: its successor has not been shown by anybody yet, so it may never
    have arrived.
    """

    device_id: UUID
    grade: Grade
    lost: bool = False


class Settled(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A challenge that was passed: what that rule finds of that subject is not enforced before `until`."""

    rule_id: UUID
    subject: str
    until: datetime


class Facts(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Everything a verdict depends on, gathered before it is judged.

    `session` and `device` are the ones asked about; `others` and
    `other_devices` are the rest of the member's, in any order, as every tuple
    here. `address` is None when it is unknown, so is `place`; `browser` and
    `os` are the families as seen now. `activity` is the counted interaction
    that is asked for. `enrolments` is None when they were not read.
    `succeeded_at` is the last successful login on the same counter as this one:
    from this device when it is known, else from any that was not known before.
    `extra_sessions` and `extra_devices` are slots by live passes, of which,
    or of a suspension of checks, the first ends at `changes_at`. `swaps_used`
    is, by rule, how often the member freed a place within that rule's window.
    `token` is there when an old device token was shown; `watched`: what no
    rule finds of copied tokens and browsers is recorded all the same.
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
    place: Place | None = None
    browser: str | None = None
    os: str | None = None
    activity: Activity | None = None
    networks: tuple[NetworkFact, ...] = ()
    failures: tuple[FailureFact, ...] = ()
    succeeded_at: datetime | None = None
    enrolments: tuple[EnrolmentFact, ...] | None = None
    cases: tuple[CaseFact, ...] = ()
    settled: tuple[Settled, ...] = ()
    extra_sessions: int = 0
    extra_devices: int = 0
    changes_at: datetime | None = None
    swaps_used: tuple[tuple[UUID, int], ...] = ()
    token: TokenFact | None = None
    watched: bool = False


class Finding(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A rule's wrong, found: what it allows, what was counted, and which sessions, devices or networks those are.

    `subject` names what the case is about, so that a repeated refusal is one
    case. `evict` are the sessions to end, in that order. `retry_at` is when a
    place frees by itself, None when it does not. `seen` and `before` are what
    does not fit together: a browser or place as seen now and as known. `grade`
    is how old a token is that gave a copy away.
    """

    code: Code
    subject: str
    limit: int | None = None
    counted: int | None = None
    retry_at: datetime | None = None
    sessions: tuple[str, ...] = ()
    devices: tuple[UUID, ...] = ()
    evict: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    times: tuple[datetime, ...] = ()
    seen: str | None = None
    before: str | None = None
    distance_km: int | None = None
    speed_kmh: int | None = None
    lapse: Lapse | None = None
    grade: Grade | None = None


class Count(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a rule counted, whether or not it is too much: for an explanation; the one asked about is included."""

    limit: int | None = None
    counted: int | None = None
    sessions: tuple[str, ...] = ()
    devices: tuple[UUID, ...] = ()
    networks: tuple[str, ...] = ()
    times: tuple[datetime, ...] = ()
    seen: str | None = None


class Step(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One rule looked at: what it found and what became of it (None: nothing found, or not looked at).

    `action` is the rule's own or what it escalated to; `settled` says that a
    passed challenge stood in its way. `count` is there only in an explanation.
    """

    rule: Rule
    finding: Finding | None
    effect: Effect | None
    skipped: str | None = None
    action: Action | None = None
    settled: bool = False
    count: Count | None = None


class Decision(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The verdict, the step that made it, and every step on the way.

    `swaps_left` is how often the member may still free a place by himself, 0
    where the deciding rule gives no such right.
    """

    outcome: Outcome
    code: Code | None = None
    step: Step | None = None
    steps: tuple[Step, ...] = ()
    exempt: bool = False
    degraded: bool = False
    swaps_left: int = 0

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

    @property
    def ends(self) -> bool:
        """Whether the session asked about is to be ended."""
        return self.step is not None and self.step.effect is Effect.ENDED

    @property
    def settles(self) -> tuple[UUID, str] | None:
        """Of a challenge, the rule and the subject that passing it settles."""
        if self.outcome is not Outcome.CHALLENGE or self.step is None or self.step.finding is None:
            return None
        return (self.step.rule.id, self.step.finding.subject)
