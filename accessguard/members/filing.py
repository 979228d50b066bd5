"""Members taken into the directory: what they are found by, and how they stand, beside their rows.

Nobody who changes a member or an enrolment has to think of it: by what is
stored beside them it shows that they wait, whichever release or import wrote
them, and who reads the directory takes them in first. Upkeep takes the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from accessguard.database import Database, Row
from accessguard.members.search import words

# The conditions are, to the letter, those of the indexes in migrations/indexes.py.
WAITING: Final = """
    SELECT tenant, id FROM (
        (SELECT tenant, id FROM member
          WHERE <member> AND filed_as IS DISTINCT FROM hash_record_extended(ROW(name, email, phone, phone_e164, tags), 0)
          LIMIT $3)
        UNION
        (SELECT tenant, member_id FROM enrolment WHERE <enrolment> AND filed_at IS DISTINCT FROM updated_at LIMIT $3)
        UNION
        (SELECT tenant, member_id FROM member_search WHERE due_at <= $2 AND <search> LIMIT $3)
    ) w ORDER BY tenant, id LIMIT $3
"""

OF_TENANT: Final = (
    WAITING.replace("<member>", "tenant = $1").replace("<enrolment>", "tenant = $1").replace("<search>", "tenant = $1")
)
OF_ALL: Final = (
    WAITING.replace("<member>", "$1::text IS NULL").replace("<enrolment>", "true").replace("<search>", "true")
)

READ: Final = """
    SELECT m.tenant, m.id, m.name, m.email, m.phone, m.phone_e164,
           hash_record_extended(ROW(m.name, m.email, m.phone, m.phone_e164, m.tags), 0) AS filed_as,
           ARRAY(SELECT a.email FROM member_alias a WHERE a.tenant = m.tenant AND a.member_id = m.id
                  ORDER BY a.at DESC LIMIT 100) AS aliases
      FROM unnest($1::text[], $2::text[]) AS w(tenant, id), LATERAL (
           SELECT * FROM member WHERE tenant = w.tenant AND id = w.id) m
"""

# Who is being changed, or has been since it was read, waits on. `standing` as in members/store.py. An enrolment is marked as
# it was looked at; one that somebody changes at this moment is another by then.
FILE: Final = """
    WITH asked AS (
        SELECT * FROM jsonb_to_recordset($1) AS a(tenant text, id text, words text, filed_as bigint)
    ), held AS MATERIALIZED (
        SELECT m.tenant, m.id, m.tags, a.words, a.filed_as
          FROM (SELECT * FROM asked ORDER BY tenant, id) a, LATERAL (
               SELECT tenant, id, tags FROM member
                WHERE tenant = a.tenant AND id = a.id
                  AND hash_record_extended(ROW(name, email, phone, phone_e164, tags), 0) = a.filed_as
                  FOR NO KEY UPDATE SKIP LOCKED) m
    ), stood AS MATERIALIZED (
        SELECT h.*, s.standing, s.due_at
          FROM held h, LATERAL (
               SELECT max(CASE WHEN status = 'deactivated' THEN 2
                               WHEN ends_at <= $2 THEN 1
                               WHEN status = 'frozen' AND (reopens_at IS NULL OR reopens_at > $2) THEN 4
                               WHEN starts_at > $2 THEN 3
                               ELSE 5 END) AS standing,
                      least(min(starts_at) FILTER (WHERE starts_at > $2), min(ends_at) FILTER (WHERE ends_at > $2),
                            min(reopens_at) FILTER (WHERE reopens_at > $2)) AS due_at
                 FROM enrolment WHERE tenant = h.tenant AND member_id = h.id) s
    ), marked AS (
        UPDATE member m SET filed_as = s.filed_as, standing = s.standing FROM stood s WHERE m.tenant = s.tenant AND m.id = s.id
    ), seen AS (
        UPDATE enrolment e SET filed_at = k.updated_at
          FROM held h, LATERAL (
               SELECT * FROM enrolment
                WHERE tenant = h.tenant AND member_id = h.id AND filed_at IS DISTINCT FROM updated_at OFFSET 0) k
         WHERE e.tenant = k.tenant AND e.member_id = k.member_id AND e.product_id = k.product_id AND e.updated_at = k.updated_at
    ), kept AS (
        INSERT INTO member_search AS k (member_id, tenant, words, tags, due_at)
        SELECT id, tenant, words, tags, due_at FROM stood
            ON CONFLICT (member_id, tenant) DO UPDATE
           SET words = excluded.words, tags = excluded.tags, due_at = excluded.due_at
         WHERE (k.words, k.tags, k.due_at) IS DISTINCT FROM (excluded.words, excluded.tags, excluded.due_at)
    )
    SELECT count(*) AS taken FROM held
"""


PAUSES_S: Final = (0.01, 0.03, 0.09, 0.27)
"""So long somebody who reads the directory waits for who takes the same members in, or changes them: not for ever."""


class Filing:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def catch_up(self, tenant: str | None, *, now: datetime, most: int) -> int:
        """Take in at most so many members that wait, of one tenant or (None) of all; how many there were."""
        waiting, _ = await self._take_in(tenant, now, most)
        return waiting

    async def caught_up(self, tenant: str, *, now: datetime, most: int) -> None:
        """The same before the tenant's directory is read: whom somebody else takes in at this moment is waited for, 0.4 s at most."""
        for pause_s in PAUSES_S:
            waiting, taken = await self._take_in(tenant, now, most)
            if taken == waiting:
                return
            await asyncio.sleep(pause_s)
        await self._take_in(tenant, now, most)

    async def file(self, members: Sequence[tuple[str, str]], *, now: datetime) -> int:
        """Take these members (tenant, id) in, whether they wait or not; how many, without those that somebody holds."""
        found = await self._db.fetch(READ, [tenant for tenant, _ in members], [member_id for _, member_id in members])
        row = await self._db.row(FILE, [_entry(row) for row in found], now)
        return row["taken"] if row else 0

    async def _take_in(self, tenant: str | None, now: datetime, most: int) -> tuple[int, int]:
        """How many waited, and how many of them were taken in."""
        waiting = await self._db.fetch(OF_ALL if tenant is None else OF_TENANT, tenant, now, most)
        return len(waiting), await self.file([(row["tenant"], row["id"]) for row in waiting], now=now) if waiting else 0


def _entry(row: Row) -> dict[str, object]:
    said = words(
        row["id"],
        name=row["name"],
        email=row["email"],
        phone=row["phone"],
        phone_e164=row["phone_e164"],
        aliases=row["aliases"],
    )
    return {"tenant": row["tenant"], "id": row["id"], "words": said, "filed_as": row["filed_as"]}
