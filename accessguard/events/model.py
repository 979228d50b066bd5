"""What happened, as others are told of it."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec


class EventKind(StrEnum):
    """What a stream tells; stored names, never renamed."""

    SESSION_ENDED = "session_ended"
    DEVICE_CHANGED = "device_changed"
    MEMBER_CHANGED = "member_changed"
    POLICY_CHANGED = "policy_changed"
    VIOLATION = "violation"


class Position(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """A place in a tenant's events: the transaction that wrote one, and its number therein.

    Everything up to here has been seen, and nothing will ever come before it.
    """

    xact: int
    id: int = 0

    @property
    def text(self) -> str:
        """As a reader is given it, to be shown again."""
        return f"{self.xact}-{self.id}"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that happened; `member_id` None: to somebody who is not named any more, or to nobody in particular."""

    tenant: str
    position: Position
    at: datetime
    kind: EventKind
    member_id: str | None
    body: dict[str, Any]


def position(text: str) -> Position | None:
    """The place that a text of ours names; None for any other text."""
    xact, dash, number = text.partition("-")
    parts = (xact, number)
    if not dash or not all(each.isascii() and each.isdecimal() and len(each) <= 18 for each in parts):
        return None
    return Position(xact=int(xact), id=int(number))
