"""The audit log: who changed what, when, why; written in the transaction of the change itself."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.database import Database, Row, both_ways
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
    INSERT INTO audit (tenant, id, at, actor, role, action, target_kind, target_id, before, after, reason, member_id)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
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

# In the form of its index. What the release before wrote names the member alone, where that is what was changed.
OF_MEMBER: Final = both_ways("""
    SELECT * FROM audit
     WHERE tenant = $1 AND coalesce(member_id, target_id) = $2 AND (member_id IS NOT NULL OR target_kind IN ('member', 'sessions'))
       AND ($3::text IS NULL OR actor = $3) AND ($4::text IS NULL OR action = $4 OR target_kind = $4)
       AND ($5::timestamptz IS NULL OR at >= $5) AND ($6::timestamptz IS NULL OR at < $6)
       AND ($7::timestamptz IS NULL OR (at, id) <after> ($7, $8::uuid))
     ORDER BY at <order>, id <order> LIMIT $9
""")


class HistoryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which changes of a member a list shows; None means whatever. `kind` is an action, or the kind of thing changed."""

    actor: str | None = None
    kind: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class AuditStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, tenant: str, entry: Entry, *, member_id: str | None = None) -> None:
        """Append one entry; `member_id` is whom it is about, if anybody."""
        e = entry
        await self._db.row(
            ADD,
            tenant,
            e.id,
            e.at,
            e.actor,
            e.role,
            e.action,
            e.target_kind,
            e.target_id,
            e.before,
            e.after,
            e.reason,
            member_id,
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
        return [_entry(row) for row in rows]

    async def of_member(
        self,
        tenant: str,
        member_id: str,
        asked: HistoryFilter,
        *,
        after: tuple[datetime, UUID] | None,
        limit: int,
        descending: bool = True,
    ) -> Sequence[Entry]:
        """One page of what operators changed about a member, by time."""
        a = asked
        rows = await self._db.fetch(
            OF_MEMBER[descending],
            tenant,
            member_id,
            a.actor,
            a.kind,
            a.since,
            a.until,
            *(after or (None, None)),
            limit,
        )
        return [_entry(row) for row in rows]


def _entry(row: Row) -> Entry:
    plain = [name for name in Entry.__struct_fields__ if name not in {"before", "after"}]
    return Entry(before=_plain(row["before"]), after=_plain(row["after"]), **{name: row[name] for name in plain})


def _plain(stored: msgspec.Raw | None) -> Any:
    return None if stored is None else msgspec.json.decode(stored)
