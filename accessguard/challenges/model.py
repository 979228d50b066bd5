"""A challenge as it is put and settled."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from uuid import UUID

import msgspec

from accessguard.rules.model import Stage


class Answer(StrEnum):
    """How a challenge was settled, once and for all."""

    PASSED = "passed"
    FAILED = "failed"


class Freed(msgspec.Struct, frozen=True, kw_only=True):
    """What a member did to free a place, exactly one of the three: closed, given up, or said to be the device that asks."""

    session_id: str | None = None
    device_id: UUID | None = None
    merged_id: UUID | None = None


class Challenge(msgspec.Struct, frozen=True, kw_only=True):
    """One challenge: what a rule found of `subject`, and what became of it.

    `asked` is what a login needs to be finished, as JSON; None at a check. It
    can be settled before `expires_at`; passed, the finding is not enforced
    before `good_until`. `outcome` None: not settled.
    """

    id: UUID
    member_id: str
    session_id: str | None
    device_id: UUID | None
    rule_id: UUID
    rule_version: int
    subject: str
    violation_id: UUID | None
    stage: Stage
    asked: msgspec.Raw | None
    created_at: datetime
    expires_at: datetime
    outcome: Answer | None = None
    settled_at: datetime | None = None
    settled_by: str | None = None
    freed: Freed | None = None
    good_until: datetime | None = None

    def open(self, now: datetime) -> bool:
        """Whether it can still be settled."""
        return self.outcome is None and now < self.expires_at


class Settlement(msgspec.Struct, frozen=True, kw_only=True):
    """How a challenge is settled: by whom, at what time, and what was freed for it."""

    outcome: Answer
    at: datetime
    by: str
    freed: Freed | None = None
    good_until: datetime | None = None
