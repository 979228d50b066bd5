"""No more devices of one member than are kept: which of them make room, and which of the forgotten ones go altogether."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database

AT_ONCE: Final = 200
"""Devices forgotten in one statement: it compares each with each."""

# An operator's word stays, whatever there is: what he has blocked, allowed or named; so does a device that somebody is
# on. Of the others those go first that never had a place (logins that were refused), then those seen longest ago. One
# that was seen meanwhile is passed over.
MAKE_ROOM: Final = """
    WITH held AS MATERIALIZED (
        SELECT id FROM member WHERE tenant = $1 AND id = $2 FOR NO KEY UPDATE
    ), known AS MATERIALIZED (
        SELECT d.id, d.access, d.name, d.admitted_at, d.last_seen_at FROM device d
         WHERE d.tenant = $1 AND d.member_id = $2 AND d.forgotten_at IS NULL AND (SELECT count(*) FROM held) > 0
    ), used AS MATERIALIZED (
        SELECT device_id FROM session WHERE tenant = $1 AND member_id = $2 AND ended_at IS NULL AND device_id IS NOT NULL
    ), spare AS MATERIALIZED (
        SELECT k.id, k.last_seen_at FROM known k
         WHERE k.access = 'default' AND k.name IS NULL AND k.id IS DISTINCT FROM $4::uuid AND k.id NOT IN (SELECT device_id FROM used)
         ORDER BY (k.admitted_at IS NOT NULL), k.last_seen_at, k.id
         LIMIT least($6, greatest(0, (SELECT count(*) FROM known) - $3))
    ), forgotten AS (
        UPDATE device d SET forgotten_at = $5, admitted_at = NULL
          FROM spare s
         WHERE d.tenant = $1 AND d.id = s.id AND d.id = ANY(ARRAY(SELECT id FROM spare))
           AND d.forgotten_at IS NULL AND d.access = 'default' AND d.last_seen_at = s.last_seen_at
        RETURNING d.id
    ), changed AS (
        UPDATE member SET generation = nextval('generation') WHERE tenant = $1 AND id = $2 AND EXISTS (SELECT FROM forgotten)
    )
    SELECT count(*) FROM forgotten
"""

# The rows of forgotten ones are there for the names in histories, those of merged ones lead to what they have become; of
# them, too, only so many stay.
DROP: Final = """
    DELETE FROM device WHERE tenant = $1 AND forgotten_at IS NOT NULL AND id = ANY(ARRAY(
        SELECT id FROM device WHERE tenant = $1 AND member_id = $2 AND forgotten_at IS NOT NULL
         ORDER BY (merged_into IS NOT NULL) DESC, forgotten_at DESC, id OFFSET $3))
"""

# The next members in the order of their keys, from the index alone, with how many devices each has or had.
COUNTED: Final = """
    SELECT tenant, member_id, count(*) AS devices FROM device
     WHERE (tenant, member_id) > ($1, $2) GROUP BY tenant, member_id ORDER BY tenant, member_id LIMIT $3
"""


class Place(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """One member, in the order in which all are gone through."""

    tenant: str = ""
    member_id: str = ""


class RoomStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach. `most` is what one member may have of each."""

    def __init__(self, db: Database, *, most: int) -> None:
        self._db = db
        self._most = most

    async def make(self, place: Place, *, spared: UUID | None, at: datetime) -> int:
        """Forget some of what one member has too many of, but for the device `spared`; how many, AT_ONCE where there may be more."""
        return int(await self._db.value(MAKE_ROOM, place.tenant, place.member_id, self._most, spared, at, AT_ONCE))

    async def drop(self, place: Place) -> None:
        """Delete what one member has too many of among those that are forgotten, the longest forgotten first."""
        await self._db.row(DROP, place.tenant, place.member_id, self._most)

    async def crowded(self, after: Place, *, members: int) -> tuple[tuple[Place, ...], Place | None]:
        """Of so many members behind `after`, those who may have too many; and where to go on, None at the end."""
        rows = await self._db.fetch(COUNTED, after.tenant, after.member_id, members)
        found = [(Place(tenant=row["tenant"], member_id=row["member_id"]), row["devices"]) for row in rows]
        crowded = tuple(place for place, devices in found if devices > self._most)
        return crowded, found[-1][0] if len(found) == members else None
