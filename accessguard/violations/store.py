"""Violations and read marks in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.database import Database, Row, both_ways
from accessguard.violations.model import (
    QUIET,
    CodeCount,
    Found,
    MemberCount,
    Resolution,
    Summary,
    Violation,
    ViolationFilter,
)

# A hit that a worker still had in hand when its member was erased is nobody's; whoever is there stays until the end.
RECORD: Final = """
    WITH there AS MATERIALIZED (
        SELECT id FROM member
         WHERE tenant = $1 AND id IN (SELECT f ->> 'member_id' FROM jsonb_array_elements($2::jsonb) f)
         ORDER BY id FOR KEY SHARE
    ), found AS MATERIALIZED (
        SELECT coalesce(jsonb_agg(f), '[]') AS them FROM jsonb_array_elements($2::jsonb) f
         WHERE f ->> 'member_id' IN (SELECT id FROM there)
    )
    SELECT v.id, v.member_id, v.cause, v.subject FROM found, LATERAL record_violations($1, found.them, $3) v
"""

# By when upkeep takes a case away, at its next run; `365` is what `Retention` says for tenants that say nothing.
COLUMNS: Final = """
    SELECT v.*, host(v.ip) AS address,
           v.last_at + make_interval(days => coalesce((SELECT (settings #>> '{retention,violations_days}')::int FROM tenant WHERE id = $1), 365))
               AS retained_until,
           EXISTS (SELECT FROM read_mark r WHERE r.tenant = $1 AND r.violation_id = v.id AND r.reader = $2 AND r.hits >= v.hits)
               AS read,
           ARRAY(SELECT r.reader FROM read_mark r WHERE r.tenant = $1 AND r.violation_id = v.id AND r.hits >= v.hits
                  ORDER BY r.reader) AS read_by
      FROM violation v WHERE v.tenant = $1
"""

LISTED: Final = both_ways(
    COLUMNS
    + """
       AND ($3::text IS NULL OR v.member_id = $3)
       AND ($4::uuid IS NULL OR v.rule_id = $4)
       AND ($5::text IS NULL OR v.code = $5)
       AND ($6::text IS NULL OR v.resolution = $6)
       AND ($7::timestamptz IS NULL OR v.last_at >= $7)
       AND ($8::timestamptz IS NULL OR v.last_at < $8)
       AND ($9::boolean IS NULL OR $9 = EXISTS (
               SELECT FROM read_mark r WHERE r.tenant = $1 AND r.violation_id = v.id AND r.reader = $2 AND r.hits >= v.hits))
       AND ($10::timestamptz IS NULL OR (v.last_at, v.id) <after> ($10, $11::uuid))
     ORDER BY v.last_at <order>, v.id <order> LIMIT $12
"""
)

ONE: Final = COLUMNS + " AND v.id = $3"

MARK_READ: Final = """
    INSERT INTO read_mark (tenant, violation_id, reader, hits, read_at)
    SELECT v.tenant, v.id, $2, v.hits, $3
      FROM violation v
     WHERE v.tenant = $1 AND ($4::uuid[] IS NULL OR v.id = ANY($4)) AND ($5::text IS NULL OR v.member_id = $5)
       AND ($6::timestamptz IS NULL OR v.last_at <= $6)
     ORDER BY v.id
        ON CONFLICT (tenant, violation_id, reader) DO UPDATE
       SET hits = excluded.hits, read_at = excluded.read_at
     WHERE read_mark.hits < excluded.hits
    RETURNING violation_id
"""

MARK_UNREAD: Final = """
    DELETE FROM read_mark r
     USING violation v
     WHERE r.tenant = $1 AND r.reader = $2 AND v.tenant = r.tenant AND v.id = r.violation_id
       AND ($3::uuid[] IS NULL OR v.id = ANY($3)) AND ($4::text IS NULL OR v.member_id = $4)
       AND ($5::timestamptz IS NULL OR v.last_at <= $5)
    RETURNING violation_id
"""

RESOLVE: Final = """
    UPDATE violation SET resolution = $3, note = $4 WHERE tenant = $1 AND id = $2 RETURNING id
"""

SUMMARY: Final = """
    SELECT <group>,
           count(*) FILTER (WHERE v.effect <> 'exempt' AND NOT EXISTS (
               SELECT FROM read_mark r WHERE r.tenant = $1 AND r.violation_id = v.id AND r.reader = $2 AND r.hits >= v.hits)) AS unread,
           count(*) FILTER (WHERE v.resolution = 'open') AS open
      FROM violation v WHERE v.tenant = $1 GROUP BY <group> ORDER BY unread DESC, open DESC, <group> LIMIT 100
"""
BY_CODE: Final = SUMMARY.replace("<group>", "v.code")
BY_MEMBER: Final = SUMMARY.replace("<group>", "v.member_id")


class ViolationStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach; lists are read from `lists`, if given."""

    def __init__(self, db: Database, lists: Database | None = None) -> None:
        self._db = db
        self._lists = lists or db

    async def record(self, tenant: str, found: Sequence[Found]) -> tuple[UUID | None, ...]:
        """Open or extend the cases of `found` (each case once); their ids, in that order, None where the member is gone."""
        rows = await self._db.fetch(RECORD, tenant, found, QUIET)
        ids: dict[tuple[str, str, str], UUID] = {
            (row["member_id"], row["cause"], row["subject"]): row["id"] for row in rows
        }
        return tuple(ids.get(each.case) for each in found)

    async def listed(
        self,
        tenant: str,
        asked: ViolationFilter,
        *,
        reader: str,
        after: tuple[datetime, UUID] | None,
        limit: int,
        descending: bool = True,
    ) -> Sequence[Violation]:
        """One page of cases as `reader` sees them, by their last hit."""
        rows = await self._lists.fetch(
            LISTED[descending],
            tenant,
            reader,
            asked.member_id,
            asked.rule_id,
            asked.code,
            asked.resolution,
            asked.since,
            asked.until,
            asked.read,
            *(after or (None, None)),
            limit,
        )
        return [_violation(row) for row in rows]

    async def one(self, tenant: str, violation_id: UUID, *, reader: str) -> Violation | None:
        """One case as `reader` sees it; None when unknown."""
        row = await self._db.row(ONE, tenant, reader, violation_id)
        return None if row is None else _violation(row)

    async def mark_read(
        self,
        tenant: str,
        reader: str,
        *,
        at: datetime,
        ids: Sequence[UUID] | None,
        member_id: str | None,
        up_to: datetime | None,
    ) -> frozenset[UUID]:
        """Mark the selected cases read by `reader` with their present hits; the ids this changed.

        Unknown and already read ones are left out, so a second call returns an
        empty set. A later hit undoes the mark by itself.
        """
        rows = await self._db.fetch(MARK_READ, tenant, reader, at, ids, member_id, up_to)
        return frozenset(row["violation_id"] for row in rows)

    async def mark_unread(
        self, tenant: str, reader: str, *, ids: Sequence[UUID] | None, member_id: str | None, up_to: datetime | None
    ) -> frozenset[UUID]:
        """Take the marks of `reader` off the selected cases; the ids this changed."""
        rows = await self._db.fetch(MARK_UNREAD, tenant, reader, ids, member_id, up_to)
        return frozenset(row["violation_id"] for row in rows)

    async def resolve(self, tenant: str, violation_id: UUID, resolution: Resolution, note: str) -> bool:
        """Store what the operators think of a case; False when unknown."""
        return await self._db.row(RESOLVE, tenant, violation_id, resolution, note) is not None

    async def summary(self, tenant: str, reader: str) -> Summary:
        """Unread and open cases per code and per member, as `reader` sees them."""
        codes = [
            CodeCount(code=row["code"], unread=row["unread"], open=row["open"])
            for row in await self._lists.fetch(BY_CODE, tenant, reader)
        ]
        members = [
            MemberCount(member_id=row["member_id"], unread=row["unread"], open=row["open"])
            for row in await self._lists.fetch(BY_MEMBER, tenant, reader)
        ]
        return Summary(
            unread=sum(each.unread for each in codes),
            open=sum(each.open for each in codes),
            by_code=tuple(codes),
            by_member=tuple(members),
        )


def _violation(row: Row) -> Violation:
    details: dict[str, Any] = msgspec.json.decode(row["details"])
    return Violation(
        id=row["id"],
        code=row["code"],
        rule_id=row["rule_id"],
        rule_version=row["rule_version"],
        mode=row["mode"],
        effect=row["effect"],
        member_id=row["member_id"],
        session_id=row["session_id"],
        device_id=row["device_id"],
        ip=row["address"],
        country=None,
        first_at=row["first_at"],
        last_at=row["last_at"],
        hits=row["hits"],
        details=details,
        read=row["read"],
        read_by=tuple(row["read_by"]),
        resolution=Resolution(row["resolution"]),
        note=row["note"],
        retained_until=row["retained_until"],
    )
