"""What each reader has not read, member by member, in PostgreSQL: what nobody has looked at for two days goes.

A sheet is brought up to date by whoever reads it (`unread_catch_up`, migration
0012) from notes of whose cases or marks have changed since. Both can be made
again from the cases themselves.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from accessguard.database import Database

KEPT: Final = timedelta(days=2)
"""A sheet is made anew after a day without a look, so that none ever needs a note that has gone."""

EXPIRE: Final = """
    WITH old AS MATERIALIZED (
        SELECT tenant, reader FROM unread_sheet WHERE caught_at < $1 ORDER BY caught_at LIMIT 1 FOR UPDATE SKIP LOCKED
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
        DELETE FROM unread_moved WHERE ctid = ANY(ARRAY(SELECT ctid FROM unread_moved WHERE at < $1 LIMIT $2)) AND at < $1 RETURNING 1
    )
    SELECT greatest((SELECT count(*) FROM members), (SELECT count(*) FROM notes), $2 * (SELECT count(*) FROM sheets))
"""


class SheetStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def expire(self, now: datetime, most: int) -> int:
        """Take away at most so many rows of what nobody has looked at; `most` or more: there may be others."""
        return int(await self._db.value(EXPIRE, now - KEPT, most))
