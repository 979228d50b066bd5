"""A member as operators see it, with what it is granted."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.rules.enrolment import opens_at
from accessguard.rules.model import EnrolmentFact, EnrolmentStatus


class MemberSort(StrEnum):
    """What a list of members is sorted by."""

    LAST_ACTIVITY = "last_activity"
    FIRST_ACCESS = "first_access"
    LAST_ACCESS = "last_access"
    NAME = "name"
    UNREAD = "unread"


class Standing(StrEnum):
    """Why a member is inactive; with several enrolments the one that is nearest to being active says so."""

    EXPIRED = "expired"
    DEACTIVATED = "deactivated"
    NOT_STARTED = "not_started"
    FROZEN = "frozen"
    NEVER_ENROLLED = "never_enrolled"


class Turn(StrEnum):
    """What became of an enrolment by one change of it."""

    ENROLLED = "enrolled"
    DEACTIVATED = "deactivated"
    FROZEN = "frozen"
    REACTIVATED = "reactivated"
    CHANGED = "changed"
    WITHDRAWN = "withdrawn"


class PassKind(StrEnum):
    """What a pass is for: one more device, one more session, or checks switched off."""

    EXTRA_DEVICE = "extra_device"
    EXTRA_SESSION = "extra_session"
    SUSPEND_CHECKS = "suspend_checks"


class LastActivity(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The last counted interaction: when, which of the six, in which session."""

    at: datetime
    kind: str
    session_id: str


class LatestViolation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The newest case of a member, and the session it leads to."""

    id: UUID
    session_id: str | None
    code: str
    at: datetime


class Member(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One student with what a list shows; `unread_violations` are those of the operator who asks.

    `opens_at` is when an inactive member becomes active by itself; None: not by itself.
    """

    member_id: str
    name: str
    email: str | None
    phone: str | None
    tags: tuple[str, ...]
    locale: str | None
    time_zone: str | None
    staff: bool
    note: str
    status: str
    status_reason: str | None
    checks_enabled: bool
    checks_disabled_until: datetime | None
    checks_reason: str | None
    first_access_at: datetime | None
    last_access_at: datetime | None
    last_activity: LastActivity | None
    active_sessions: int
    devices: int
    unread_violations: int
    latest_violation: LatestViolation | None
    created_at: datetime
    opens_at: datetime | None = None
    country: str | None = None
    city: str | None = None


class Enrolment(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One course or product of a member: from `starts_at` until `ends_at` (None: without an end).

    A frozen one is active again from `reopens_at` on (None: not by itself).
    """

    product_id: str
    starts_at: datetime
    ends_at: datetime | None
    purchased_at: datetime | None
    status: EnrolmentStatus
    reopens_at: datetime | None
    updated_at: datetime


class EnrolmentChange(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One change of an enrolment; `before` None: it was new, `after` None: it was taken away."""

    product_id: str
    at: datetime
    actor: str
    reason: str | None
    before: Enrolment | None
    after: Enrolment | None

    @property
    def turn(self) -> Turn:
        """What it came to."""
        if self.after is None:
            return Turn.WITHDRAWN
        if self.before is None:
            return Turn.ENROLLED
        return TURNS[self.after.status] if self.before.status is not self.after.status else Turn.CHANGED


TURNS: Final = {
    EnrolmentStatus.ACTIVE: Turn.REACTIVATED,
    EnrolmentStatus.DEACTIVATED: Turn.DEACTIVATED,
    EnrolmentStatus.FROZEN: Turn.FROZEN,
}


class EnrolmentEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One line of an enrolment's history: what was done, when, by whom and why; how it was before and after."""

    change: Turn
    at: datetime
    actor: str
    reason: str | None
    before: Enrolment | None
    after: Enrolment | None


class EnrolmentLine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One enrolment as it stands now, with its history, the newest first (the last 100 changes).

    `standing` says why it gives no access; None: it does, or was withdrawn.
    `opens_at` is when it does again by itself. One that was withdrawn says
    what it was until `withdrawn_at`.
    """

    product_id: str
    active: bool
    standing: Standing | None
    opens_at: datetime | None
    starts_at: datetime
    ends_at: datetime | None
    purchased_at: datetime | None
    status: EnrolmentStatus
    reopens_at: datetime | None
    updated_at: datetime
    withdrawn_at: datetime | None
    history: tuple[EnrolmentEvent, ...]


def line(
    enrolment: Enrolment, changes: Sequence[EnrolmentChange], *, withdrawn_at: datetime | None, now: datetime
) -> EnrolmentLine:
    """An enrolment at `now`, with its changes, the newest first."""
    why = None if withdrawn_at else standing(enrolment, now)
    fact = EnrolmentFact(
        product_id=enrolment.product_id,
        starts_at=enrolment.starts_at,
        ends_at=enrolment.ends_at,
        status=enrolment.status,
        reopens_at=enrolment.reopens_at,
    )
    return EnrolmentLine(
        active=why is None and withdrawn_at is None,
        standing=why,
        opens_at=opens_at(fact, now) if why else None,
        withdrawn_at=withdrawn_at,
        history=tuple(EnrolmentEvent(change=each.turn, **_event(each)) for each in changes),
        **{name: getattr(enrolment, name) for name in Enrolment.__struct_fields__},
    )


def _event(change: EnrolmentChange) -> dict[str, Any]:
    return {name: getattr(change, name) for name in EnrolmentChange.__struct_fields__ if name != "product_id"}


def standing(enrolment: Enrolment, now: datetime) -> Standing | None:
    """Why an enrolment gives no access at `now`; None when it does."""
    if enrolment.status is EnrolmentStatus.DEACTIVATED:
        return Standing.DEACTIVATED
    if enrolment.ends_at is not None and enrolment.ends_at <= now:
        return Standing.EXPIRED
    if enrolment.status is EnrolmentStatus.FROZEN and (enrolment.reopens_at is None or enrolment.reopens_at > now):
        return Standing.FROZEN
    return Standing.NOT_STARTED if enrolment.starts_at > now else None


class Pass(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Something a member may have until `until`, when it ends by itself; `own`: the member took it, on its own budget."""

    id: UUID
    kind: PassKind
    until: datetime
    reason: str | None
    own: bool
    created_at: datetime
    created_by: str


class Notice(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A version of the notice on monitoring, and when the member was first shown it."""

    version: str
    shown_at: datetime


class Card(Member, frozen=True, kw_only=True):
    """All that the page of one member shows; `passes` are those that have not ended."""

    enrolments: tuple[Enrolment, ...]
    passes: tuple[Pass, ...]


def card(member: Member, *, enrolments: Sequence[Enrolment], passes: Sequence[Pass]) -> Card:
    """The member with what it is granted."""
    return Card(**msgspec.structs.asdict(member), enrolments=tuple(enrolments), passes=tuple(passes))


class Profile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the platform knows of a student; None where it does not say. `phone_e164` is `phone` written one way."""

    name: str
    email: str | None
    phone: str | None
    tags: tuple[str, ...]
    locale: str | None
    time_zone: str | None
    staff: bool
    phone_e164: str | None = None
    country: str | None = None
    city: str | None = None


class MemberFilter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Which members a list shows; None and False mean "whatever"."""

    q: str | None = None
    status: str | None = None
    tag: str | None = None
    unread: bool = False
    restricted: bool = False
    product_id: str | None = None


class Checks(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whether rules are enforced for one member, until when not, and why."""

    enabled: bool
    disabled_until: datetime | None
    reason: str | None
