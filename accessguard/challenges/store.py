"""Challenges in PostgreSQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.challenges.model import Answer, Challenge, Freed, Settlement
from accessguard.database import Database, Row
from accessguard.rules.model import Settled, Stage

MOST_READ: Final = 100

# A client that asks again and again is told of the challenge that is open already; a login has one of its own.
MAKE: Final = """
    WITH before AS (
        SELECT * FROM challenge
         WHERE tenant = $1 AND member_id = $3 AND rule_id = $6 AND subject = $8 AND session_id IS NOT DISTINCT FROM $4
           AND stage = 'check' AND $10 = 'check' AND outcome IS NULL AND expires_at > $12
         ORDER BY created_at DESC, id LIMIT 1
    ), made AS (
        INSERT INTO challenge (tenant, id, member_id, session_id, device_id, rule_id, rule_version, subject, violation_id,
                               stage, asked, created_at, expires_at)
        SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 WHERE NOT EXISTS (SELECT FROM before)
            ON CONFLICT (tenant, id) DO NOTHING
        RETURNING *
    )
    SELECT * FROM made UNION ALL SELECT * FROM before
"""

ONE: Final = "SELECT * FROM challenge WHERE tenant = $1 AND id = $2"

SETTLE: Final = """
    WITH settled AS (
        UPDATE challenge
           SET outcome = $3, settled_at = $4, settled_by = $5, freed = $6, good_until = $7
         WHERE tenant = $1 AND id = $2 AND outcome IS NULL AND expires_at > $4
        RETURNING member_id
    ), changed AS (
        UPDATE member SET generation = nextval('generation') WHERE tenant = $1 AND id IN (SELECT member_id FROM settled)
    )
    SELECT member_id FROM settled
"""

SWAPS: Final = """
    SELECT rule_id, settled_at FROM challenge
     WHERE tenant = $1 AND member_id = $2 AND freed IS NOT NULL AND settled_at > $3
     ORDER BY settled_at DESC LIMIT $4
"""

GOOD: Final = """
    SELECT rule_id, subject, max(good_until) AS until FROM challenge
     WHERE tenant = $1 AND member_id = $2 AND outcome = 'passed' AND good_until > $3
     GROUP BY rule_id, subject ORDER BY until DESC LIMIT $4
"""

# As long as the tenant keeps violations: no rule looks back further. In the form of the index by age.
EXPIRE: Final = """
    WITH gone AS (
        DELETE FROM challenge WHERE ctid = ANY(ARRAY(
            SELECT old.ctid
              FROM tenant t CROSS JOIN LATERAL (
                   SELECT c.ctid FROM challenge c
                    WHERE (c.tenant || '') = t.id
                      AND c.created_at < $1::timestamptz - make_interval(days => coalesce((t.settings #>> '{retention,violations_days}')::int, $3))
                      AND c.expires_at < $1 AND (c.good_until IS NULL OR c.good_until < $1)
                    ORDER BY c.created_at LIMIT $2 FOR UPDATE SKIP LOCKED) old
             LIMIT $2))
        RETURNING 1
    )
    SELECT count(*) FROM gone
"""


class ChallengeStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def make(self, tenant: str, asked: Challenge) -> Challenge:
        """Store a challenge of a member that is there; at a check, answer the open one of the same finding if there is one."""
        a = asked
        row = await self._db.row(
            MAKE,
            tenant,
            a.id,
            a.member_id,
            a.session_id,
            a.device_id,
            a.rule_id,
            a.rule_version,
            a.subject,
            a.violation_id,
            a.stage,
            a.asked,
            a.created_at,
            a.expires_at,
        )
        return asked if row is None else _challenge(row)

    async def one(self, tenant: str, challenge_id: UUID) -> Challenge | None:
        """One challenge, settled or not; None when unknown."""
        row = await self._db.row(ONE, tenant, challenge_id)
        return None if row is None else _challenge(row)

    async def settle(self, tenant: str, challenge_id: UUID, settlement: Settlement) -> bool:
        """Settle a challenge and take its member's next generation; False when it was settled, has expired or is unknown.

        To be called in a transaction that holds the member's row, which everybody takes first.
        Only the first settlement counts: whoever comes second reads with `one` what the first one said.
        """
        s = settlement
        row = await self._db.row(SETTLE, tenant, challenge_id, s.outcome, s.at, s.by, s.freed, s.good_until)
        return row is not None

    async def swaps(self, tenant: str, member_id: str, *, since: datetime) -> Mapping[UUID, tuple[datetime, ...]]:
        """When the member freed a place, by the rule that asked for it, the newest first; the last 100 in all."""
        times: dict[UUID, list[datetime]] = {}
        for row in await self._db.fetch(SWAPS, tenant, member_id, since, MOST_READ):
            times.setdefault(row["rule_id"], []).append(row["settled_at"])
        return {rule_id: tuple(found) for rule_id, found in times.items()}

    async def expire(self, now: datetime, most: int, *, default_days: int) -> int:
        """Delete at most so many challenges that are older than their tenant keeps violations; how many.

        `default_days` holds for tenants whose settings do not say.
        """
        return int(await self._db.value(EXPIRE, now, most, default_days))

    async def good(self, tenant: str, member_id: str, *, now: datetime) -> Sequence[Settled]:
        """What passed challenges still hold off, 100 at most."""
        rows = await self._db.fetch(GOOD, tenant, member_id, now, MOST_READ)
        return [Settled(rule_id=row["rule_id"], subject=row["subject"], until=row["until"]) for row in rows]


def _challenge(row: Row) -> Challenge:
    words = {"stage", "outcome", "freed"}
    return Challenge(
        stage=Stage(row["stage"]),
        outcome=None if row["outcome"] is None else Answer(row["outcome"]),
        freed=None if row["freed"] is None else msgspec.json.decode(row["freed"], type=Freed),
        **{name: row[name] for name in Challenge.__struct_fields__ if name not in words},
    )
