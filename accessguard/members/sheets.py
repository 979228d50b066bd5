"""What each reader has not read, member by member, in PostgreSQL: kept up by upkeep, so that no look has to count the cases of a year.

A sheet is brought up to date by whoever reads it, and every hour by upkeep
(`unread_kept_up`, migration 0016), from notes of whose cases or marks have
changed since. Once in a week it is counted anew, some members at a time. Who
does not look for a month has no sheet any more.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from accessguard.database import Database

KEPT: Final = timedelta(days=2)
"""How long a note is kept at least, and as long as a sheet does not know of it."""
LOOKED: Final = timedelta(days=30)
FRESH: Final = timedelta(minutes=30)
"""How far behind a sheet may be until upkeep brings it up to date."""
CHECKED: Final = timedelta(days=7)
"""How often every member of a sheet is counted anew."""
LATELY: Final = timedelta(hours=2)
"""Whoever had a case since is of a tenant that needs a sheet."""
MOVED: Final = 5_000
"""So many members are counted one by one, some 200 ms; with more of them, a tenant's cases are gone through once."""
COUNTING_S: Final = 60.0
"""How long that may take."""

EXPIRE: Final = """
    WITH old AS MATERIALIZED (
        SELECT tenant, reader FROM unread_sheet
         WHERE caught_at < $3 OR (looked_at < $3 AND reader <> '') ORDER BY caught_at LIMIT 1 FOR UPDATE SKIP LOCKED
    ), members AS (
        DELETE FROM unread_member u USING old o
         WHERE u.tenant = o.tenant AND u.reader = o.reader
           AND u.ctid = ANY(ARRAY(SELECT m.ctid FROM old, LATERAL (
                   SELECT ctid FROM unread_member WHERE tenant = old.tenant AND reader = old.reader LIMIT $2) m))
        RETURNING 1
    ), sheets AS (
        DELETE FROM unread_sheet s USING old o
         WHERE s.tenant = o.tenant AND s.reader = o.reader AND (SELECT count(*) FROM members) < $2
        RETURNING 1
    ), notes AS (
        DELETE FROM unread_moved n
         WHERE n.at < $1
           AND n.ctid = ANY(ARRAY(
               SELECT m.ctid FROM unread_moved m
                WHERE m.at < $1 AND NOT EXISTS (SELECT FROM unread_sheet s WHERE s.tenant = m.tenant AND s.caught_at < m.at + interval '1 hour')
                LIMIT $2))
        RETURNING 1
    )
    SELECT greatest((SELECT count(*) FROM members), (SELECT count(*) FROM notes), $2 * (SELECT count(*) FROM sheets))
"""

# The one that is furthest behind; of a tenant that has cases and nobody's sheet, that of all who have read nothing.
BEHIND: Final = """
    (SELECT tenant, reader, made_at, checked, false AS new FROM unread_sheet
      WHERE caught_at < $1 OR made_at < $2 ORDER BY caught_at LIMIT 1)
     UNION ALL
    (SELECT n.tenant, '', NULL, NULL, true FROM unread_moved n
      WHERE n.at > $3 AND NOT EXISTS (SELECT FROM unread_sheet s WHERE s.tenant = n.tenant AND s.reader = '') LIMIT 1)
     ORDER BY new DESC LIMIT 1
"""
KEEP_UP: Final = "SELECT unread_kept_up($1, $2, $3, false)"

# Members of a sheet in the order of their ids, whether they have cases or are only said to; each waits to be counted anew.
CHECK: Final = """
    WITH some AS MATERIALIZED (
        SELECT member_id FROM (
            (SELECT DISTINCT member_id FROM violation WHERE tenant = $1 AND member_id > $3 ORDER BY member_id LIMIT $4)
             UNION
            (SELECT member_id FROM unread_member WHERE tenant = $1 AND member_id > $3 AND reader = $2 ORDER BY member_id LIMIT $4)) m
         ORDER BY member_id LIMIT $4
    ), noted AS (
        INSERT INTO unread_moved AS m (tenant, member_id, reader) SELECT $1, member_id, $2 FROM some ORDER BY member_id
            ON CONFLICT (tenant, member_id, reader) DO UPDATE SET moved = excluded.moved, at = excluded.at
    ), counted AS (
        SELECT count(*) AS members, max(member_id) AS last FROM some
    )
    UPDATE unread_sheet s
       SET checked = CASE WHEN c.members < $4 THEN NULL ELSE c.last END, made_at = CASE WHEN c.members < $4 THEN now() ELSE s.made_at END
      FROM counted c WHERE s.tenant = $1 AND s.reader = $2
"""


class SheetStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def keep_up(self, now: datetime, most: int) -> bool:
        """Bring one sheet up to date that is behind, and check at most so many of its members; False when there is none."""
        row = await self._db.row(BEHIND, now - FRESH, now - CHECKED, now - LATELY)
        if row is None:
            return False
        tenant, reader = row["tenant"], row["reader"]
        if not row["new"] and row["made_at"] < now - CHECKED:
            await self._db.row(CHECK, tenant, reader, row["checked"] or "", most)
        await self._db.value(KEEP_UP, tenant, reader, MOVED, timeout_s=COUNTING_S)
        return True

    async def expire(self, now: datetime, most: int) -> int:
        """Take away at most so many rows of what nobody has looked at; `most` or more: there may be others."""
        return int(await self._db.value(EXPIRE, now - KEPT, most, now - LOOKED))
