"""The audit log: who changed what, when, why; written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.listing import Listing


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One act of an operator; `before` and `after` hold what it changed."""

    id: UUID
    at: datetime
    actor: str
    role: str
    action: str
    target_kind: str
    target_id: str
    before: Any
    after: Any
    reason: str | None


class AuditFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries a list shows; None means whatever."""

    actor: str | None = None
    action: str | None = None
    target_kind: str | None = None
    target_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None


ADD: Final = """
    INSERT INTO audit (tenant, id, at, actor, role, action, target_kind, target_id, before, after, reason)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
"""

LISTED: Final = Listing(
    select="SELECT * FROM audit WHERE tenant = $1",
    fixed=1,
    filters=(
        ("actor", "actor = ?"),
        ("action", "action = ?"),
        ("target_kind", "target_kind = ?"),
        ("target_id", "target_id = ?"),
        ("since", "at >= ?::timestamptz"),
        ("until", "at < ?::timestamptz"),
    ),
    place="(at, id) <after> (?::timestamptz, ?::uuid)",
    order="at <order>, id <order>",
)


class AuditStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, tenant: str, entry: Entry) -> None:
        """Append one entry."""
        e = entry
        await self._db.row(
            ADD, tenant, e.id, e.at, e.actor, e.role, e.action, e.target_kind, e.target_id, e.before, e.after, e.reason
        )

    async def listed(
        self,
        tenant: str,
        asked: AuditFilter,
        *,
        after: tuple[datetime, UUID] | None,
        limit: int,
        descending: bool = True,
    ) -> Sequence[Entry]:
        """One page of entries, by time."""
        statement, values = LISTED.page(
            tenant, filters=msgspec.structs.asdict(asked), after=after, descending=descending, limit=limit
        )
        rows = await self._db.fetch(statement, *values)
        return [
            Entry(
                id=row["id"],
                at=row["at"],
                actor=row["actor"],
                role=row["role"],
                action=row["action"],
                target_kind=row["target_kind"],
                target_id=row["target_id"],
                before=_plain(row["before"]),
                after=_plain(row["after"]),
                reason=row["reason"],
            )
            for row in rows
        ]


def _plain(stored: msgspec.Raw | None) -> Any:
    return None if stored is None else msgspec.json.decode(stored)
