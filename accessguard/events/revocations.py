"""Tokens and callers that are refused although what they show is genuine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from accessguard.database import Database, Row, both_ways
from accessguard.errors import ErrorCode, GuardError
from accessguard.events.revoked import KEPT, Revocation, Revoked, Told

MOST: Final = 10_000
"""Of one tenant: each worker holds all of them, some 300 bytes each."""
SWEPT: Final = 100
"""Of those, how many go when another one is stored."""


# A retry with the same id (the same Idempotency-Key) changes nothing and answers what is stored.
ADD: Final = """
    WITH over AS (
        DELETE FROM revocation
         WHERE tenant = $1 AND id = ANY(ARRAY(
               SELECT id FROM revocation
                WHERE tenant = $1 AND (lifted_at < $11 OR expires_at < $11) AND (kind, name) IS DISTINCT FROM ($2, $3)
                ORDER BY at LIMIT $12))
    ), made AS (
        INSERT INTO revocation AS r (tenant, kind, name, id, issued_until, expires_at, at, actor, reason, generation)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, nextval('generation')
         WHERE (SELECT count(*) FROM (
               SELECT 1 FROM revocation WHERE tenant = $1 AND (lifted_at < $11 OR expires_at < $11) IS NOT TRUE LIMIT $10) all_of_it) < $10
            ON CONFLICT (tenant, kind, name) DO UPDATE
           SET id = excluded.id, issued_until = excluded.issued_until, expires_at = excluded.expires_at, at = excluded.at,
               actor = excluded.actor, reason = excluded.reason, generation = excluded.generation, lifted_at = NULL
         WHERE r.id <> excluded.id
        RETURNING *
    )
    SELECT * FROM made
"""
ONE: Final = "SELECT * FROM revocation WHERE tenant = $1 AND id = $2 AND lifted_at IS NULL"
LIFT: Final = """
    UPDATE revocation SET lifted_at = $3, generation = nextval('generation')
     WHERE tenant = $1 AND id = $2 AND lifted_at IS NULL RETURNING *
"""
LISTED: Final = both_ways("""
    SELECT * FROM revocation
     WHERE tenant = $1 AND lifted_at IS NULL AND ($2::timestamptz IS NULL OR (at, id) <after> ($2, $3::uuid))
     ORDER BY at <order>, id <order> LIMIT $4
""")
# Of all tenants: a worker holds them all, as it does not know whose token comes next.
SINCE: Final = "SELECT * FROM revocation WHERE generation > $1 ORDER BY generation LIMIT $2"


class RevocationStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, made: Revocation) -> bool:
        """Refuse from now on; False for a retry. Raises GuardError(CONFLICT) for one more than `MOST`."""
        m = made
        values = (m.tenant, m.kind, m.name, m.id, m.issued_until, m.expires_at, m.at, m.actor, m.reason)
        if await self._db.row(ADD, *values, MOST, m.at - KEPT, SWEPT) is not None:
            return True
        if await self.one(m.tenant, m.id) is None:
            raise GuardError(ErrorCode.CONFLICT, f"A tenant refuses {MOST} tokens and callers at most.")
        return False

    async def one(self, tenant: str, revocation_id: UUID) -> Revocation | None:
        """One that stands; None when unknown, or lifted."""
        row = await self._db.row(ONE, tenant, revocation_id)
        return None if row is None else _revocation(row)

    async def lift(self, tenant: str, revocation_id: UUID, *, at: datetime) -> Revocation | None:
        """Refuse no longer; what was lifted, None when there is no such thing."""
        row = await self._db.row(LIFT, tenant, revocation_id, at)
        return None if row is None else _revocation(row)

    async def listed(
        self, tenant: str, *, after: tuple[datetime, UUID] | None, limit: int, descending: bool
    ) -> Sequence[Revocation]:
        """One page of what stands, by time."""
        rows = await self._db.fetch(LISTED[descending], tenant, *(after or (None, None)), limit)
        return [_revocation(row) for row in rows]

    async def since(self, generation: int, *, most: int) -> Sequence[tuple[int, Told]]:
        """What came after a number, of every tenant, each with its own number; the lowest first."""
        rows = await self._db.fetch(SINCE, generation, most)
        return [(row["generation"], Told(revocation=_revocation(row), stands=row["lifted_at"] is None)) for row in rows]


def _revocation(row: Row) -> Revocation:
    plain = [name for name in Revocation.__struct_fields__ if name != "kind"]
    return Revocation(kind=Revoked(row["kind"]), **{name: row[name] for name in plain})
