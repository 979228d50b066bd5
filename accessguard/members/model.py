"""A member as operators see it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec


class MemberSort(StrEnum):
    """What a list of members is sorted by."""

    LAST_ACTIVITY = "last_activity"
    FIRST_ACCESS = "first_access"
    LAST_ACCESS = "last_access"
    NAME = "name"
    UNREAD = "unread"


class LastActivity(msgspec.Struct, frozen=True, kw_only=True):
    """The last counted interaction: when, which of the six, in which session."""

    at: datetime
    kind: str
    session_id: str


class LatestViolation(msgspec.Struct, frozen=True, kw_only=True):
    """The newest case of a member, and the session it leads to."""

    id: UUID
    session_id: str | None
    code: str
    at: datetime


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One student with what a list shows; `unread_violations` are those of the operator who asks."""

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


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """What the platform knows of a student; None where it does not say."""

    name: str
    email: str | None
    phone: str | None
    tags: tuple[str, ...]
    locale: str | None
    time_zone: str | None
    staff: bool


class MemberFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which members a list shows; None and False mean "whatever"."""

    q: str | None = None
    status: str | None = None
    tag: str | None = None
    unread: bool = False
    restricted: bool = False
    product_id: str | None = None


class Checks(msgspec.Struct, frozen=True, kw_only=True):
    """Whether rules are enforced for one member, until when not, and why."""

    enabled: bool
    disabled_until: datetime | None
    reason: str | None
