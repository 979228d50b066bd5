"""Members at risk: whose account several people seem to use, or who is stopped again and again. Evidence, never a verdict."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime, timedelta
from typing import Any, Final

import msgspec

from accessguard.database import Database
from accessguard.members.sharing import Suspicion

SCORE: Final = 50
"""Of the sharing report, from which on a member is at risk: no single kind of evidence comes beyond 30, so two agree at least."""
WINDOW: Final = timedelta(days=30)
"""What the score is about: as long as the report's own period."""
CASES: Final = 10
CASES_WINDOW: Final = timedelta(days=7)
AGAIN: Final = timedelta(days=30)
"""How long nobody is told of the same member again."""
RESTRICTIONS: Final = "restrictions"
WORDS: Final = "{amount} cases in which a restriction applied, on {days} days"
LOOK_S: Final = 30.0
"""How long all cases of a week may be counted."""

# Whom others were told of lately is in nobody's way.
RESTRICTED: Final = """
    SELECT member_id, count(*)::int AS amount, count(DISTINCT last_at::date)::int AS days, max(last_at::date) AS last_day
      FROM violation v
     WHERE tenant = $1 AND last_at >= $2 AND last_at < $3 AND effect <> 'exempt' AND resolution <> 'false_alarm'
       AND NOT EXISTS (SELECT FROM member_risk r WHERE r.tenant = $1 AND r.member_id = v.member_id AND r.told_at > $6)
     GROUP BY member_id HAVING count(*) >= $4 ORDER BY count(*) DESC, member_id LIMIT $5
"""

# Who was erased meanwhile is nobody; an erasure that is under way is waited for.
MARK: Final = """
    WITH there AS MATERIALIZED (
        SELECT id FROM member WHERE tenant = $1 AND id = ANY($2::text[]) ORDER BY id FOR KEY SHARE
    )
    INSERT INTO member_risk AS r (tenant, member_id, told_at)
    SELECT $1, id, $3 FROM there ORDER BY id
        ON CONFLICT (tenant, member_id) DO UPDATE SET told_at = excluded.told_at WHERE r.told_at <= $4
    RETURNING member_id
"""

EXPIRE: Final = """
    WITH gone AS (
        DELETE FROM member_risk WHERE ctid = ANY(ARRAY(SELECT ctid FROM member_risk WHERE told_at < $1 LIMIT $2)) RETURNING 1
    )
    SELECT count(*) FROM gone
"""


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that speaks for it, in the shape of the sharing report's points; `weight` is its part of the score."""

    kind: str
    amount: int
    days: int
    last_day: date
    weight: int
    explanation: str


class AtRisk(msgspec.Struct, frozen=True, kw_only=True):
    """What a message says of a member; `score` None: below the threshold. Times as the API writes them."""

    score: int | None
    since: str
    until: str
    reasons: tuple[Reason, ...]


class RiskStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def restricted(self, tenant: str, *, now: datetime, most: int) -> dict[str, Reason]:
        """Members of so many cases in the last CASES_WINDOW of whom nobody was told for AGAIN, those with most first."""
        begin = now - CASES_WINDOW
        rows = await self._db.fetch(RESTRICTED, tenant, begin, now, CASES, most, now - AGAIN, timeout_s=LOOK_S)
        return {row["member_id"]: _restrictions(dict(row.items())) for row in rows}

    async def mark(self, tenant: str, members: Sequence[str], *, at: datetime) -> frozenset[str]:
        """Note that others are told of these; those of them that there are, and that nobody was told of for AGAIN."""
        rows = await self._db.fetch(MARK, tenant, list(members), at, at - AGAIN)
        return frozenset(row["member_id"] for row in rows)

    async def expire(self, now: datetime, most: int) -> int:
        """Forget at most so many notes that say nothing any more; how many."""
        return int(await self._db.value(EXPIRE, now - AGAIN, most))


def suspected(found: Suspicion) -> tuple[Reason, ...]:
    """What the sharing report knows of a member, as reasons."""
    return tuple(Reason(**msgspec.structs.asdict(point) | {"kind": point.kind.value}) for point in found.points)


def _restrictions(row: dict[str, Any]) -> Reason:
    amount, days = row["amount"], row["days"]
    said = WORDS.format(amount=amount, days=days)
    return Reason(kind=RESTRICTIONS, amount=amount, days=days, last_day=row["last_day"], weight=0, explanation=said)
