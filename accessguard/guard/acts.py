"""One act of an operator on its way to the audit log, written in the transaction of the act itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.events.audit import AuditStore, Entry
from accessguard.guard.model import Actor

OF_MEMBERS: Final = frozenset({"member", "members", "sessions"})
"""Kinds of things whose id is a member's."""


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """By whom, on what, why, when; `action` begins with the kind of thing that `target` names.

    `member_id` is whom it is about, where the target is not the member itself.
    """

    tenant: str
    actor: Actor
    action: str
    target: str
    reason: str | None
    at: datetime
    member_id: str | None = None


async def log(tx: Database, act: Act, before: Any, after: Any, *, entry_id: UUID) -> None:
    """Write the act's line, with what it changed: `before` None, it is new; `after` None, it is gone."""
    entry = Entry(
        id=entry_id,
        at=act.at,
        actor=act.actor.subject,
        role=act.actor.role,
        action=act.action,
        target_kind=act.action.partition(".")[0],
        target_id=act.target,
        before=before,
        after=after,
        reason=act.reason,
    )
    await AuditStore(tx).add(act.tenant, entry, member_id=act.member_id or _member(act))


def _member(act: Act) -> str | None:
    return act.target if act.action.partition(".")[0] in OF_MEMBERS else None


def fields(of: msgspec.Struct | None, names: Sequence[str]) -> Mapping[str, Any] | None:
    """What an act is about, out of all there is."""
    return None if of is None else {name: getattr(of, name) for name in names}
