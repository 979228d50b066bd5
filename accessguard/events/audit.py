"""The audit log: who changed what, when, why; written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.database import Database, both_ways


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

LISTED: Final = both_ways("""
    SELECT * FROM audit
     WHERE tenant = $1 AND ($2::text IS NULL OR actor = $2) AND ($3::text IS NULL OR action = $3)
       AND ($4::text IS NULL OR target_kind = $4) AND ($5::text IS NULL OR target_id = $5)
       AND ($6::timestamptz IS NULL OR at >= $6) AND ($7::timestamptz IS NULL OR at < $7)
       AND ($8::timestamptz IS NULL OR (at, id) <after> ($8, $9::uuid))
     ORDER BY at <order>, id <order> LIMIT $10
""")


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
        a = asked
        rows = await self._db.fetch(
            LISTED[descending],
            tenant,
            a.actor,
            a.action,
            a.target_kind,
            a.target_id,
            a.since,
            a.until,
            *(after or (None, None)),
            limit,
        )
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
