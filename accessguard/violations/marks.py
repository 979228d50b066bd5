"""Read marks in PostgreSQL: which cases an operator has reviewed, with the hits that they had then."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from accessguard.database import Database

PORTION: Final = 2_000
"""Cases of one statement where all up to a moment are marked: some 50 ms."""

_READ: Final = """
    INSERT INTO read_mark (tenant, violation_id, reader, hits, read_at)
    SELECT $1, v.id, $2, v.hits, $3 FROM <which> v ORDER BY v.id
        ON CONFLICT (tenant, violation_id, reader) DO UPDATE
       SET hits = excluded.hits, read_at = excluded.read_at
     WHERE read_mark.hits < excluded.hits
    RETURNING violation_id
"""
READ: Final = _READ.replace("<which>", "(SELECT * FROM violation WHERE tenant = $1 AND id = ANY($4::uuid[]))")
READ_MEMBER: Final = _READ.replace("<which>", "(SELECT * FROM violation WHERE tenant = $1 AND member_id = $4)")

_UNREAD: Final = """
    DELETE FROM read_mark r USING <which> v
     WHERE r.tenant = $1 AND r.reader = $2 AND r.violation_id = v.id <more> RETURNING violation_id
"""
UNREAD: Final = _UNREAD.replace("<more>", "").replace("<which>", "(SELECT unnest($3::uuid[]) AS id)")
UNREAD_MEMBER: Final = _UNREAD.replace("<more>", "").replace(
    "<which>", "(SELECT id FROM violation WHERE tenant = $1 AND member_id = $3)"
)

# In portions by the last hit, so that no statement grows with the log; `place` is where the next one goes on.
_PORTION: Final = """
    WITH portion AS MATERIALIZED (
        SELECT id, hits, last_at FROM violation
         WHERE tenant = $1 AND last_at <= $4::timestamptz AND (last_at, id) > ($5::timestamptz, $6::uuid)
         ORDER BY last_at, id LIMIT $7
    ), changed AS (<change>)
    SELECT (SELECT count(*) FROM changed) AS changed, count(*) AS seen,
           (array_agg(last_at ORDER BY last_at DESC, id DESC))[1] AS at, (array_agg(id ORDER BY last_at DESC, id DESC))[1] AS id
      FROM portion
"""
READ_UP_TO: Final = _PORTION.replace("<change>", _READ.replace("<which>", "portion"))
UNREAD_UP_TO: Final = _PORTION.replace(
    "<change>", _UNREAD.replace("<which>", "portion").replace("<more>", "AND r.read_at <= $3")
)

BEGIN: Final = (datetime.fromisoformat("0001-01-01T00:00:00+00:00"), UUID(int=0))


async def read(
    db: Database, tenant: str, reader: str, *, ids: Sequence[UUID] | None, member_id: str | None, at: datetime
) -> int:
    """Mark these cases, or all of a member's, with their present hits; how many that changed."""
    if ids is not None:
        return len(await db.fetch(READ, tenant, reader, at, ids))
    return len(await db.fetch(READ_MEMBER, tenant, reader, at, member_id))


async def unread(db: Database, tenant: str, reader: str, *, ids: Sequence[UUID] | None, member_id: str | None) -> int:
    """Take the marks off these cases, or off all of a member's; how many that changed."""
    if ids is not None:
        return len(await db.fetch(UNREAD, tenant, reader, ids))
    return len(await db.fetch(UNREAD_MEMBER, tenant, reader, member_id))


async def up_to(db: Database, statement: str, tenant: str, reader: str, *, at: datetime, until: datetime) -> int:
    """Do READ_UP_TO or UNREAD_UP_TO with all cases last hit not after `until`; how many that changed.

    One that is hit again meanwhile moves ahead, and may be passed over. What
    is marked stays so when the connection is lost on the way.
    """
    changed, place = 0, BEGIN
    while True:
        row = await db.row(statement, tenant, reader, at, until, *place, PORTION)
        if row is None:
            raise LookupError("an aggregate without a row")
        changed += int(row["changed"])
        if row["seen"] < PORTION:
            return changed
        place = (row["at"], row["id"])
