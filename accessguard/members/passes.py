"""Passes in PostgreSQL: something extra for a member, until a time."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from accessguard.database import Database, Row
from accessguard.members.model import Pass, PassKind

# A retry with the same id (the same Idempotency-Key) changes nothing and answers what is stored.
ISSUE: Final = """
    WITH made AS (
        INSERT INTO pass (tenant, id, member_id, kind, until, reason, own, created_at, created_by)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (tenant, id) DO NOTHING
        RETURNING id
    ), changed AS (
        UPDATE member SET generation = nextval('generation') WHERE tenant = $1 AND id = $3 AND EXISTS (SELECT FROM made)
    )
    SELECT id FROM made
"""

ONE: Final = "SELECT * FROM pass WHERE tenant = $1 AND member_id = $2 AND id = $3"

LIVE: Final = "SELECT * FROM pass WHERE tenant = $1 AND member_id = $2 AND until > $3 ORDER BY until, id LIMIT 100"

USED: Final = "SELECT count(*) FROM pass WHERE tenant = $1 AND member_id = $2 AND own AND created_at >= $3"


class PassStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def issue(self, tenant: str, member_id: str, given: Pass) -> bool:
        """Store a pass of a member that is there; False when one of that id is stored already."""
        g = given
        row = await self._db.row(
            ISSUE, tenant, g.id, member_id, g.kind, g.until, g.reason, g.own, g.created_at, g.created_by
        )
        return row is not None

    async def one(self, tenant: str, member_id: str, pass_id: UUID) -> Pass | None:
        """One pass of that member, ended or not; None when unknown."""
        row = await self._db.row(ONE, tenant, member_id, pass_id)
        return None if row is None else _pass(row)

    async def live(self, tenant: str, member_id: str, *, now: datetime) -> Sequence[Pass]:
        """A member's passes that have not ended, the first to end first."""
        return [_pass(row) for row in await self._db.fetch(LIVE, tenant, member_id, now)]

    async def used(self, tenant: str, member_id: str, *, since: datetime) -> int:
        """How many passes the member has taken by itself since then."""
        return int(await self._db.value(USED, tenant, member_id, since))


def _pass(row: Row) -> Pass:
    plain = [name for name in Pass.__struct_fields__ if name != "kind"]
    return Pass(kind=PassKind(row["kind"]), **{name: row[name] for name in plain})
