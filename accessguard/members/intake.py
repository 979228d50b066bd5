"""Many members and enrolments at once in PostgreSQL: what is the same already is not touched, so that a file may come twice."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, Final

from accessguard.database import Database

# Rows are made, and then held, in the order of their ids, as everywhere: imports, logins and flushes wait for each other, and
# none for one that waits for it.
MAKE: Final = """
    INSERT INTO member (tenant, id, name, email, phone, tags, locale, time_zone, staff, created_at, phone_e164, country, city)
    SELECT $1, a.b ->> 'member_id', coalesce(a.b ->> 'name', ''), a.b ->> 'email', a.b ->> 'phone',
           CASE WHEN a.b ? 'tags' THEN ARRAY(SELECT jsonb_array_elements_text(a.b -> 'tags')) ELSE '{}' END,
           a.b ->> 'locale', a.b ->> 'time_zone', coalesce((a.b ->> 'staff')::boolean, false), $3, a.b ->> 'phone_e164',
           a.b ->> 'country', a.b ->> 'city'
      FROM jsonb_array_elements($2) AS a(b)
     ORDER BY a.b ->> 'member_id'
        ON CONFLICT (tenant, id) DO NOTHING
    RETURNING id
"""

HOLD: Final = "SELECT id FROM member WHERE tenant = $1 AND id = ANY($2::text[]) ORDER BY id FOR UPDATE"

# What a line does not say stays as it is. A corrected e-mail keeps the old one as an alias that search still finds. The ids come
# beside the lines: without statistics, the planner would rather read all members of the tenant than look each up for a join.
ALIASES: Final = """
    WITH asked AS MATERIALIZED (
        SELECT b ->> 'member_id' AS id, b ->> 'email' AS email FROM jsonb_array_elements($2) AS a(b) WHERE b ? 'email'
    ), here AS MATERIALIZED (
        SELECT id, email FROM member WHERE tenant = $1 AND id = ANY($4::text[]) AND email IS NOT NULL
    )
    INSERT INTO member_alias (tenant, member_id, email, at)
    SELECT $1, h.id, h.email, $3 FROM here h JOIN asked a ON a.id = h.id WHERE h.email IS DISTINCT FROM a.email
        ON CONFLICT DO NOTHING
"""

CHANGE: Final = """
    WITH asked AS MATERIALIZED (
        SELECT b, b ->> 'member_id' AS id, ARRAY(SELECT jsonb_array_elements_text(b -> 'tags')) AS tags
          FROM jsonb_array_elements($2) AS a(b)
    )
    UPDATE member m
       SET name = CASE WHEN b ? 'name' THEN b ->> 'name' ELSE m.name END,
           email = CASE WHEN b ? 'email' THEN b ->> 'email' ELSE m.email END,
           phone = CASE WHEN b ? 'phone' THEN b ->> 'phone' ELSE m.phone END,
           phone_e164 = CASE WHEN b ? 'phone' THEN b ->> 'phone_e164' ELSE m.phone_e164 END,
           tags = CASE WHEN b ? 'tags' THEN a.tags ELSE m.tags END,
           locale = CASE WHEN b ? 'locale' THEN b ->> 'locale' ELSE m.locale END,
           time_zone = CASE WHEN b ? 'time_zone' THEN b ->> 'time_zone' ELSE m.time_zone END,
           staff = CASE WHEN b ? 'staff' THEN (b ->> 'staff')::boolean ELSE m.staff END,
           country = CASE WHEN b ? 'country' THEN b ->> 'country' ELSE m.country END,
           city = CASE WHEN b ? 'city' THEN b ->> 'city' ELSE m.city END,
           generation = nextval('generation')
      FROM asked a
     WHERE m.tenant = $1 AND m.id = ANY($3::text[]) AND m.id = a.id
       AND (b ? 'name' AND m.name <> b ->> 'name'
            OR b ? 'email' AND m.email IS DISTINCT FROM b ->> 'email'
            OR b ? 'phone' AND (m.phone, m.phone_e164) IS DISTINCT FROM (b ->> 'phone', b ->> 'phone_e164')
            OR b ? 'tags' AND m.tags <> a.tags
            OR b ? 'locale' AND m.locale IS DISTINCT FROM b ->> 'locale'
            OR b ? 'time_zone' AND m.time_zone IS DISTINCT FROM b ->> 'time_zone'
            OR b ? 'country' AND m.country IS DISTINCT FROM b ->> 'country'
            OR b ? 'city' AND m.city IS DISTINCT FROM b ->> 'city'
            OR b ? 'staff' AND m.staff <> (b ->> 'staff')::boolean)
    RETURNING m.id
"""

# As one at a time (members/enrolments.py), with the history. What is there comes first, by its members' ids.
ENROL: Final = """
    WITH asked AS MATERIALIZED (
        SELECT * FROM jsonb_to_recordset($2) AS e(
            member_id text, product_id text, starts_at timestamptz, ends_at timestamptz, purchased_at timestamptz, status text,
            reopens_at timestamptz, reason text, change_id uuid)
    ), before AS MATERIALIZED (
        SELECT * FROM enrolment WHERE tenant = $1 AND member_id = ANY($5::text[])
    ), kept AS (
        INSERT INTO enrolment AS e (tenant, member_id, product_id, starts_at, ends_at, purchased_at, status, reopens_at, updated_at)
        SELECT $1, member_id, product_id, starts_at, ends_at, purchased_at, status, reopens_at, $3 FROM asked
         ORDER BY member_id, product_id
            ON CONFLICT (tenant, member_id, product_id) DO UPDATE
           SET starts_at = excluded.starts_at, ends_at = excluded.ends_at, purchased_at = excluded.purchased_at,
               status = excluded.status, reopens_at = excluded.reopens_at, updated_at = excluded.updated_at
         WHERE (e.starts_at, e.ends_at, e.purchased_at, e.status, e.reopens_at)
               IS DISTINCT FROM (excluded.starts_at, excluded.ends_at, excluded.purchased_at, excluded.status, excluded.reopens_at)
        RETURNING e.*
    ), noted AS (
        INSERT INTO enrolment_change (tenant, member_id, product_id, id, at, actor, reason, before, after)
        SELECT $1, k.member_id, k.product_id, a.change_id, $3, $4, a.reason, to_jsonb(b), to_jsonb(k)
          FROM kept k
          JOIN asked a ON a.member_id = k.member_id AND a.product_id = k.product_id
          LEFT JOIN before b ON b.member_id = k.member_id AND b.product_id = k.product_id
    )
    SELECT member_id FROM kept
"""

TOUCH: Final = "UPDATE member SET generation = nextval('generation') WHERE tenant = $1 AND id = ANY($2::text[])"


class IntakeStore:
    """Every call raises GuardError: UNAVAILABLE when Postgres is out of reach, INVALID for a value that it does not take.

    A member is a dictionary with `member_id`, `phone_e164` where there is
    `phone`, and of the platform's fields those that are said; each id comes
    once. To be called in a transaction, in the order in which they stand here.
    """

    def __init__(self, db: Database) -> None:
        self._db = db

    async def make(self, tenant: str, members: Sequence[Any], *, at: datetime) -> frozenset[str]:
        """Make those that are not there; their ids."""
        return frozenset(row["id"] for row in await self._db.fetch(MAKE, tenant, members, at))

    async def hold(self, tenant: str, member_ids: Collection[str]) -> tuple[str, ...]:
        """Hold the rows of these members until the transaction ends; those of them that are there."""
        return tuple(row["id"] for row in await self._db.fetch(HOLD, tenant, sorted(member_ids)))

    async def change(self, tenant: str, members: Sequence[Any], *, at: datetime) -> frozenset[str]:
        """Bring members that are held up to date; the ids of those that were not."""
        ids = [each["member_id"] for each in members]
        await self._db.row(ALIASES, tenant, members, at, ids)
        return frozenset(row["id"] for row in await self._db.fetch(CHANGE, tenant, members, ids))

    async def enrol(
        self, tenant: str, enrolments: Sequence[Any], *, at: datetime, actor: str, new: Collection[str]
    ) -> Sequence[str]:
        """Store enrolments of members that are held, each product of a member once; whose was not stored already, word for word.

        `new` are members that this transaction made, of whom nobody holds a verdict. Each enrolment comes with the id of
        its line in the history, `change_id`.
        """
        ids = {each["member_id"] for each in enrolments} - set(new)
        rows = await self._db.fetch(ENROL, tenant, enrolments, at, actor, sorted(ids))
        changed = [row["member_id"] for row in rows]
        if touched := sorted(ids.intersection(changed)):
            await self._db.row(TOUCH, tenant, touched)
        return changed
