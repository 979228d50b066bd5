"""Enrolments in PostgreSQL: fed by the platform, with every change kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database, Row
from accessguard.members.model import Enrolment, EnrolmentChange, EnrolmentLine, line
from accessguard.rules.model import EnrolmentStatus

MOST_SHOWN: Final = 200

# The same content again changes nothing: a platform may send all it has every night.
PUT: Final = """
    WITH before AS (
        SELECT * FROM enrolment WHERE tenant = $1 AND member_id = $2 AND product_id = $3
    ), kept AS (
        INSERT INTO enrolment AS e (tenant, member_id, product_id, starts_at, ends_at, purchased_at, status, reopens_at, updated_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
            ON CONFLICT (tenant, member_id, product_id) DO UPDATE
           SET starts_at = excluded.starts_at, ends_at = excluded.ends_at, purchased_at = excluded.purchased_at,
               status = excluded.status, reopens_at = excluded.reopens_at, updated_at = excluded.updated_at
         WHERE (e.starts_at, e.ends_at, e.purchased_at, e.status, e.reopens_at)
               IS DISTINCT FROM (excluded.starts_at, excluded.ends_at, excluded.purchased_at, excluded.status, excluded.reopens_at)
        RETURNING e.*
    ), noted AS (
        INSERT INTO enrolment_change (tenant, member_id, product_id, id, at, actor, reason, before, after)
        SELECT $1, $2, $3, $10, $9, $11, $12, (SELECT to_jsonb(b) FROM before b), to_jsonb(k) FROM kept k
    ), changed AS (
        UPDATE member SET generation = nextval('generation') WHERE tenant = $1 AND id = $2 AND EXISTS (SELECT FROM kept)
    )
    SELECT product_id FROM kept
"""

DELETE: Final = """
    WITH gone AS (
        DELETE FROM enrolment WHERE tenant = $1 AND member_id = $2 AND product_id = $3 RETURNING *
    ), noted AS (
        INSERT INTO enrolment_change (tenant, member_id, product_id, id, at, actor, reason, before)
        SELECT $1, $2, $3, $5, $4, $6, $7, to_jsonb(g) FROM gone g
    ), changed AS (
        UPDATE member SET generation = nextval('generation') WHERE tenant = $1 AND id = $2 AND EXISTS (SELECT FROM gone)
    )
    SELECT product_id FROM gone
"""

ONE: Final = "SELECT * FROM enrolment WHERE tenant = $1 AND member_id = $2 AND product_id = $3"

OF_MEMBER: Final = """
    SELECT * FROM enrolment WHERE tenant = $1 AND member_id = $2 ORDER BY starts_at DESC, product_id LIMIT $3
"""

CHANGES: Final = """
    SELECT * FROM enrolment_change WHERE tenant = $1 AND member_id = $2 ORDER BY at DESC, id DESC LIMIT $3
"""

# The products of a member, withdrawn ones too, each with its last 100 changes.
LINES: Final = """
    SELECT e.product_id IS NOT NULL AS there, e.starts_at, e.ends_at, e.purchased_at, e.status, e.reopens_at, e.updated_at, p.product_id,
           (SELECT coalesce(jsonb_agg(c ORDER BY c.at DESC, c.id DESC), '[]')
              FROM (SELECT product_id, id, at, actor, reason, before, after FROM enrolment_change
                     WHERE tenant = $1 AND member_id = $2 AND product_id = p.product_id
                     ORDER BY at DESC, id DESC LIMIT 100) c) AS changes
      FROM (SELECT product_id FROM enrolment WHERE tenant = $1 AND member_id = $2
             UNION
            SELECT product_id FROM enrolment_change WHERE tenant = $1 AND member_id = $2) p
      LEFT JOIN enrolment e ON e.tenant = $1 AND e.member_id = $2 AND e.product_id = p.product_id
     WHERE $3::text IS NULL OR p.product_id > $3
     ORDER BY p.product_id LIMIT $4
"""


class EnrolmentStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def put(
        self, tenant: str, member_id: str, enrolment: Enrolment, *, change_id: UUID, actor: str, reason: str | None
    ) -> bool:
        """Store an enrolment of a member that is there; False when it is stored already, word for word."""
        e = enrolment
        row = await self._db.row(
            PUT,
            tenant,
            member_id,
            e.product_id,
            e.starts_at,
            e.ends_at,
            e.purchased_at,
            e.status,
            e.reopens_at,
            e.updated_at,
            change_id,
            actor,
            reason,
        )
        return row is not None

    async def delete(
        self,
        tenant: str,
        member_id: str,
        product_id: str,
        *,
        at: datetime,
        change_id: UUID,
        actor: str,
        reason: str | None,
    ) -> bool:
        """Take an enrolment away; False when it was not there."""
        return await self._db.row(DELETE, tenant, member_id, product_id, at, change_id, actor, reason) is not None

    async def one(self, tenant: str, member_id: str, product_id: str) -> Enrolment | None:
        """One enrolment; None when it is not there."""
        row = await self._db.row(ONE, tenant, member_id, product_id)
        return None if row is None else _enrolment(row)

    async def of_member(self, tenant: str, member_id: str) -> Sequence[Enrolment]:
        """A member's enrolments (200 at most), the latest start first."""
        return [_enrolment(row) for row in await self._db.fetch(OF_MEMBER, tenant, member_id, MOST_SHOWN)]

    async def changes(self, tenant: str, member_id: str) -> Sequence[EnrolmentChange]:
        """What became of a member's enrolments (the last 200 changes), the newest first."""
        return [
            EnrolmentChange(
                product_id=row["product_id"],
                at=row["at"],
                actor=row["actor"],
                reason=row["reason"],
                before=_kept(row["before"]),
                after=_kept(row["after"]),
            )
            for row in await self._db.fetch(CHANGES, tenant, member_id, MOST_SHOWN)
        ]

    async def lines(
        self, tenant: str, member_id: str, *, now: datetime, after: str | None, limit: int
    ) -> Sequence[EnrolmentLine]:
        """One page of a member's enrolments by product, withdrawn ones too, as they stand at `now`, with their history."""
        return [_line(row, now) for row in await self._db.fetch(LINES, tenant, member_id, after, limit)]


def _line(row: Row, now: datetime) -> EnrolmentLine:
    changes = msgspec.json.decode(row["changes"], type=tuple[EnrolmentChange, ...])
    if row["there"]:
        return line(_enrolment(row), changes, withdrawn_at=None, now=now)
    last = changes[0]
    if last.before is None:
        raise LookupError("an enrolment went away that never was")
    return line(last.before, changes, withdrawn_at=last.at, now=now)


def _enrolment(row: Row) -> Enrolment:
    plain = [name for name in Enrolment.__struct_fields__ if name != "status"]
    return Enrolment(status=EnrolmentStatus(row["status"]), **{name: row[name] for name in plain})


def _kept(stored: msgspec.Raw | None) -> Enrolment | None:
    return None if stored is None else msgspec.json.decode(stored, type=Enrolment)
