"""Two devices made one in PostgreSQL. The member's row is held by whoever calls, so that nothing of it moves meanwhile."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database, Row
from accessguard.rules.model import Access


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """A device with all that a merge folds; `merged_into` is there when it is part of another one already."""

    id: UUID
    browser_id: UUID
    name: str | None
    label: str
    browser: str
    browser_version: str | None
    os: str
    device_class: str
    model: str | None
    screen: str | None
    access: Access
    access_reason: str | None
    access_by: str | None
    access_at: datetime | None
    first_seen_at: datetime
    last_seen_at: datetime
    last_ip: str | None
    admitted_at: datetime | None
    first_admitted_at: datetime | None
    forgotten_at: datetime | None
    merged_into: UUID | None
    merged_ids: tuple[UUID, ...]


# Those asked for, and those that they were merged into.
FIND: Final = """
    SELECT d.*, host(d.last_ip) AS address FROM device d
     WHERE d.tenant = $1 AND d.member_id = $2
       AND (d.id = ANY($3::uuid[])
            OR d.id IN (SELECT m.merged_into FROM device m WHERE m.tenant = $1 AND m.member_id = $2 AND m.id = ANY($3::uuid[])))
"""

SURVIVOR: Final = """
    SELECT coalesce(merged_into, id) FROM device WHERE tenant = $1 AND member_id = $2 AND id = $3
"""

# Whatever named the one names the other from now on. What is told in words of its own (a case's details) keeps its ids.
MOVE: Final = """
    WITH attempts AS (
        UPDATE login_attempt SET device_id = $4 WHERE tenant = $1 AND member_id = $2 AND device_id = $3
    ), networks AS (
        UPDATE member_network SET device_id = $4 WHERE tenant = $1 AND member_id = $2 AND device_id = $3
    ), cases AS (
        UPDATE violation SET device_id = $4 WHERE tenant = $1 AND member_id = $2 AND device_id = $3
    ), challenges AS (
        UPDATE challenge
           SET device_id = CASE WHEN device_id = $3 THEN $4 ELSE device_id END,
               subject = CASE WHEN subject = $3::uuid::text THEN $4::uuid::text ELSE subject END
         WHERE tenant = $1 AND member_id = $2 AND (device_id = $3 OR subject = $3::uuid::text)
    ), moved AS (
        UPDATE session SET device_id = $4 WHERE tenant = $1 AND member_id = $2 AND device_id = $3
        RETURNING id, ended_at
    )
    SELECT id FROM moved WHERE ended_at IS NULL ORDER BY id
"""

# Of two open cases of one cause the later one goes on; the other is over, and stays in the log.
CLOSE_CASES: Final = """
    DELETE FROM violation_case c
     USING violation_case o
     WHERE c.tenant = $1 AND c.member_id = $2 AND c.subject IN ($3::uuid::text, $4::uuid::text)
       AND o.tenant = $1 AND o.member_id = $2 AND o.subject IN ($3::uuid::text, $4::uuid::text)
       AND o.cause = c.cause AND o.subject <> c.subject AND (o.last_at, o.violation_id) > (c.last_at, c.violation_id)
"""

MOVE_CASES: Final = """
    UPDATE violation_case SET subject = $4::uuid::text WHERE tenant = $1 AND member_id = $2 AND subject = $3::uuid::text
"""

# One browser may serve several members, and their devices are found by it: it stays one for all of them. Rows are taken in
# the order of their keys.
SAME_BROWSER: Final = """
    WITH held AS MATERIALIZED (
        SELECT id FROM device WHERE browser_id = $2 AND tenant = $1 ORDER BY id FOR NO KEY UPDATE
    )
    UPDATE device SET browser_id = $3 WHERE tenant = $1 AND id = ANY(ARRAY(SELECT id FROM held))
"""

FOLD: Final = """
    WITH folded AS (
        UPDATE device d
           SET name = r.name, label = r.label, browser = r.browser, browser_version = r.browser_version, os = r.os,
               device_class = r.device_class, model = r.model, screen = r.screen, access = r.access,
               access_reason = r.access_reason, access_by = r.access_by, access_at = r.access_at,
               first_seen_at = r.first_seen_at, last_seen_at = r.last_seen_at, last_ip = r.last_ip, admitted_at = r.admitted_at,
               first_admitted_at = r.first_admitted_at, merged_ids = ARRAY(SELECT jsonb_array_elements_text($4::jsonb -> 'merged_ids')::uuid)
          FROM jsonb_populate_record(NULL::device, $4::jsonb - 'merged_ids') r
         WHERE d.tenant = $1 AND d.member_id = $2 AND d.id = r.id
    ), merged AS (
        UPDATE device
           SET merged_into = ($4::jsonb ->> 'id')::uuid, merged_ids = '{}', forgotten_at = coalesce(forgotten_at, $5), admitted_at = NULL
         WHERE tenant = $1 AND member_id = $2 AND (id = $3 OR merged_into = $3)
    )
    UPDATE member SET generation = nextval('generation') WHERE tenant = $1 AND id = $2 RETURNING generation
"""


class MergeStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def find(self, tenant: str, member_id: str, ids: Sequence[UUID]) -> Mapping[UUID, Stored]:
        """Those of the member's devices, forgotten ones too, and the ones that they are part of."""
        rows = await self._db.fetch(FIND, tenant, member_id, ids)
        return {row["id"]: _stored(row) for row in rows}

    async def survivor(self, tenant: str, member_id: str, device_id: UUID) -> UUID:
        """The device that an id stands for: itself, unless it was merged."""
        found: UUID | None = await self._db.value(SURVIVOR, tenant, member_id, device_id)
        return found or device_id

    async def move(self, tenant: str, member_id: str, device_id: UUID, into: UUID) -> tuple[str, ...]:
        """Let all that belongs to the one belong to the other; the open sessions among it."""
        rows = await self._db.fetch(MOVE, tenant, member_id, device_id, into)
        return tuple(row["id"] for row in rows)

    async def close_cases(self, tenant: str, member_id: str, device_id: UUID, into: UUID) -> None:
        """Leave of the open cases of both, for each cause, only the later one open."""
        await self._db.row(CLOSE_CASES, tenant, member_id, device_id, into)

    async def move_cases(self, tenant: str, member_id: str, device_id: UUID, into: UUID) -> None:
        """Let the open cases of the one go on as the other's."""
        await self._db.row(MOVE_CASES, tenant, member_id, device_id, into)

    async def same_browser(self, tenant: str, browser_id: UUID, other: UUID) -> None:
        """Take the one browser for the other, for every member that uses it."""
        await self._db.row(SAME_BROWSER, tenant, browser_id, other)

    async def fold(self, tenant: str, member_id: str, device_id: UUID, folded: Stored, *, at: datetime) -> int:
        """Store what the two come to, and that the one is part of the other; the member's next generation."""
        generation: int | None = await self._db.value(FOLD, tenant, member_id, device_id, folded, at)
        return generation or 0


def _stored(row: Row) -> Stored:
    words = {"access", "last_ip", "merged_ids"}
    return Stored(
        access=Access(row["access"]),
        last_ip=row["address"],
        merged_ids=tuple(row["merged_ids"]),
        **{name: row[name] for name in Stored.__struct_fields__ if name not in words},
    )
