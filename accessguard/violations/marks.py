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
    SELECT $1, v.id, $2, v.hits, $3 FROM portion v ORDER BY v.id
        ON CONFLICT (tenant, violation_id, reader) DO UPDATE
       SET hits = excluded.hits, read_at = excluded.read_at
     WHERE read_mark.hits < excluded.hits
    RETURNING violation_id
"""
_UNREAD: Final = """
    DELETE FROM read_mark r USING portion v
     WHERE r.tenant = $1 AND r.reader = $2 AND r.violation_id = v.id <more> RETURNING violation_id
"""
# Whose cases these are waits to be counted anew for this reader (migrations/versions/0012_unread.py).
_NOTED: Final = """, noted AS (
        INSERT INTO unread_moved AS m (tenant, member_id, reader)
        SELECT DISTINCT $1::text, p.member_id, $2::text FROM changed c JOIN portion p ON p.id = c.violation_id ORDER BY 2
            ON CONFLICT (tenant, member_id, reader) DO UPDATE SET moved = excluded.moved, at = excluded.at
    )"""
_SOME: Final = """
    WITH portion AS MATERIALIZED (SELECT id, hits, member_id FROM violation WHERE tenant = $1 AND <which>),
         changed AS (<change>) <noted>
    SELECT violation_id FROM changed
"""

# In portions by the last hit, so that no statement grows with the log; `place` is where the next one goes on.
_PORTION: Final = """
    WITH portion AS MATERIALIZED (
        SELECT id, hits, last_at, member_id FROM violation
         WHERE tenant = $1 AND last_at <= $4::timestamptz AND (last_at, id) > ($5::timestamptz, $6::uuid)
         ORDER BY last_at, id LIMIT $7
    ), changed AS (<change>) <noted>
    SELECT (SELECT count(*) FROM changed) AS changed, count(*) AS seen,
           (array_agg(last_at ORDER BY last_at DESC, id DESC))[1] AS at, (array_agg(id ORDER BY last_at DESC, id DESC))[1] AS id
      FROM portion
"""


def _made(statement: str, change: str, which: str = "", more: str = "") -> str:
    words = {"<change>": change, "<which>": which, "<more>": more, "<noted>": _NOTED}
    for word, text in words.items():
        statement = statement.replace(word, text)
    return statement


READ: Final = _made(_SOME, _READ, "id = ANY($4::uuid[])")
READ_MEMBER: Final = _made(_SOME, _READ, "member_id = $4")
UNREAD: Final = _made(_SOME, _UNREAD, "id = ANY($3::uuid[])")
UNREAD_MEMBER: Final = _made(_SOME, _UNREAD, "member_id = $3")
READ_UP_TO: Final = _made(_PORTION, _READ)
UNREAD_UP_TO: Final = _made(_PORTION, _UNREAD, more="AND r.read_at <= $3")

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
