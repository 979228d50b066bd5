"""One change to many members at once in PostgreSQL. Whoever is as asked already is not touched."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from accessguard.database import Database, Row

# Rows are held in the order of their ids, as everywhere. More tags than a member may have are not given.
MOST_TAGS: Final = 100

TAG: Final = """
    WITH held AS MATERIALIZED (
        SELECT id, tags FROM member WHERE tenant = $1 AND id = ANY($2::text[]) ORDER BY id FOR UPDATE
    )
    UPDATE member m
       SET tags = h.tags || ARRAY(SELECT t FROM unnest($3::text[]) t WHERE NOT t = ANY(h.tags)), generation = nextval('generation')
      FROM held h
     WHERE m.tenant = $1 AND m.id = h.id AND NOT h.tags @> $3::text[]
       AND cardinality(h.tags || ARRAY(SELECT t FROM unnest($3::text[]) t WHERE NOT t = ANY(h.tags))) <= $4
    RETURNING m.id, jsonb_build_object('tags', h.tags) AS before, jsonb_build_object('tags', m.tags) AS after
"""

UNTAG: Final = """
    WITH held AS MATERIALIZED (
        SELECT id, tags FROM member WHERE tenant = $1 AND id = ANY($2::text[]) ORDER BY id FOR UPDATE
    )
    UPDATE member m
       SET tags = ARRAY(SELECT t.tag FROM unnest(h.tags) WITH ORDINALITY t(tag, place) WHERE NOT t.tag = ANY($3::text[]) ORDER BY t.place),
           generation = nextval('generation')
      FROM held h
     WHERE m.tenant = $1 AND m.id = h.id AND h.tags && $3::text[]
    RETURNING m.id, jsonb_build_object('tags', h.tags) AS before, jsonb_build_object('tags', m.tags) AS after
"""

CHECKS: Final = """
    WITH held AS MATERIALIZED (
        SELECT id, checks_enabled, checks_disabled_until, checks_reason
          FROM member WHERE tenant = $1 AND id = ANY($2::text[]) ORDER BY id FOR UPDATE
    )
    UPDATE member m
       SET checks_enabled = $3, checks_disabled_until = $4, checks_reason = $5, generation = nextval('generation')
      FROM held h
     WHERE m.tenant = $1 AND m.id = h.id
       AND (h.checks_enabled, h.checks_disabled_until, h.checks_reason) IS DISTINCT FROM ($3::boolean, $4::timestamptz, $5::text)
    RETURNING m.id,
              jsonb_build_object('checks_enabled', h.checks_enabled, 'checks_disabled_until', h.checks_disabled_until) AS before,
              jsonb_build_object('checks_enabled', m.checks_enabled, 'checks_disabled_until', m.checks_disabled_until) AS after
"""

# One row for each member, each change in the history of its enrolment.
DEACTIVATE: Final = """
    WITH held AS MATERIALIZED (
        SELECT id FROM member WHERE tenant = $1 AND id = ANY($2::text[]) ORDER BY id FOR UPDATE
    ), before AS MATERIALIZED (
        SELECT e.* FROM held h JOIN enrolment e ON e.tenant = $1 AND e.member_id = h.id
         WHERE ($3::text IS NULL OR e.product_id = $3) AND e.status <> 'deactivated'
    ), kept AS (
        UPDATE enrolment e SET status = 'deactivated', reopens_at = NULL, updated_at = $4
          FROM before b
         WHERE e.tenant = $1 AND e.member_id = b.member_id AND e.product_id = b.product_id
        RETURNING e.*, to_jsonb(b) AS was
    ), noted AS (
        INSERT INTO enrolment_change (tenant, member_id, product_id, id, at, actor, reason, before, after)
        SELECT $1, member_id, product_id, gen_random_uuid(), $4, $5, $6, was, to_jsonb(k) - 'was' FROM kept k
    ), changed AS (
        UPDATE member SET generation = nextval('generation') WHERE tenant = $1 AND id IN (SELECT member_id FROM kept)
    )
    SELECT member_id AS id, NULL::jsonb AS before, jsonb_build_object('deactivated', jsonb_agg(product_id ORDER BY product_id)) AS after
      FROM kept GROUP BY member_id
"""

THERE: Final = "SELECT id FROM member WHERE tenant = $1 AND id = ANY($2::text[]) ORDER BY id"
HOLD: Final = "SELECT id FROM member WHERE tenant = $1 AND id = ANY($2::text[]) ORDER BY id FOR UPDATE"


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """One member that is another now: what was changed, before and after."""

    member_id: str
    before: Any
    after: Any


class BulkStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach. Members that are not there are passed over."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def there(self, tenant: str, ids: Sequence[str]) -> tuple[str, ...]:
        """Those of these members that are there, in order."""
        return tuple(row["id"] for row in await self._db.fetch(THERE, tenant, ids))

    async def hold(self, tenant: str, ids: Sequence[str]) -> tuple[str, ...]:
        """Hold their rows until the transaction ends; those that are there, in order."""
        return tuple(row["id"] for row in await self._db.fetch(HOLD, tenant, ids))

    async def tag(self, tenant: str, ids: Sequence[str], tags: Sequence[str]) -> Sequence[Changed]:
        """Give them tags; who would have more than 100 is passed over."""
        return _changed(await self._db.fetch(TAG, tenant, ids, tags, MOST_TAGS))

    async def untag(self, tenant: str, ids: Sequence[str], tags: Sequence[str]) -> Sequence[Changed]:
        """Take tags away."""
        return _changed(await self._db.fetch(UNTAG, tenant, ids, tags))

    async def checks(
        self, tenant: str, ids: Sequence[str], *, enabled: bool, until: datetime | None, reason: str | None
    ) -> Sequence[Changed]:
        """Switch their checks off (until a time) or on."""
        return _changed(await self._db.fetch(CHECKS, tenant, ids, enabled, until, reason))

    async def deactivate(
        self, tenant: str, ids: Sequence[str], product_id: str | None, *, at: datetime, actor: str, reason: str | None
    ) -> Sequence[Changed]:
        """Deactivate their enrolments, of one product or (None) of all."""
        return _changed(await self._db.fetch(DEACTIVATE, tenant, ids, product_id, at, actor, reason))


def _changed(rows: Sequence[Row]) -> Sequence[Changed]:
    return [Changed(member_id=row["id"], before=row["before"], after=row["after"]) for row in rows]
