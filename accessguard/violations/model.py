"""A violation as it is found and as operators see it."""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.rules.model import Code, Effect, Mode

QUIET: Final = timedelta(hours=24)
"""A case that was silent for a day is over; what happens then is a new one."""


class Resolution(StrEnum):
    """What the operators together think of a case."""

    OPEN = "open"
    CONFIRMED = "confirmed"
    FALSE_ALARM = "false_alarm"
    CONTACTED = "contacted"


class Found(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One finding on its way to the log.

    `cause` and `subject` name the case that it is folded into: the rule (or
    the code, when no rule made it) and the device, session or network.
    """

    id: UUID
    cause: str
    subject: str
    code: Code
    rule_id: UUID | None
    rule_version: int | None
    mode: Mode
    effect: Effect
    member_id: str
    session_id: str | None
    device_id: UUID | None
    ip: str | None
    at: datetime
    hits: int
    details: dict[str, Any]

    @property
    def case(self) -> tuple[str, str, str]:
        """What makes two findings one case, within a tenant."""
        return (self.member_id, self.cause, self.subject)


class StudentWords(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message that a student wrote about a case: plain text, 500 characters at most."""

    at: datetime
    text: str


class Violation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One case; `read` and `read_by` are about the present number of hits.

    `summary` says in a few words what it was, for the operator who reads,
    `student_words` what the student wrote about it, three times at most.
    """

    id: UUID
    code: str
    rule_id: UUID | None
    rule_version: int | None
    mode: str
    effect: str
    member_id: str
    session_id: str | None
    device_id: UUID | None
    ip: str | None
    country: str | None
    first_at: datetime
    last_at: datetime
    hits: int
    details: dict[str, Any]
    read: bool
    read_by: tuple[str, ...]
    resolution: Resolution
    note: str
    retained_until: datetime
    summary: str = ""
    student_words: tuple[StudentWords, ...] = ()


class ViolationFilter(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Which cases a list shows; None means whatever. Times are compared with the last hit."""

    read: bool | None = None
    member_id: str | None = None
    rule_id: UUID | None = None
    code: str | None = None
    resolution: Resolution | None = None
    since: datetime | None = None
    until: datetime | None = None


class CodeCount(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Unread and open cases of one code."""

    code: str
    unread: int
    open: int


class MemberCount(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Unread and open cases of one member."""

    member_id: str
    unread: int
    open: int


class Summary(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Unread and open cases in all, per code, and per member (the 100 with most unread), as of a moment."""

    unread: int
    open: int
    by_code: tuple[CodeCount, ...]
    by_member: tuple[MemberCount, ...]
    as_of: datetime
