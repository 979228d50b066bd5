"""Digests: what was found in a day or a week of the school's own calendar, each of them made out once and in order."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Final
from uuid import UUID
from zoneinfo import ZoneInfo

import msgspec

from accessguard.database import Database, Row
from accessguard.events.webhooks import Digest

STEP: Final = {"day": timedelta(days=1), "week": timedelta(days=7)}
LATEST: Final = timedelta(days=7)
"""How long after its end a digest is still made out, for a webhook that was switched off or a service that stood still."""
AT_ONCE: Final = 10
"""Digests that are made out in one turn; each counts the cases of a day or a week."""

ZONE: Final = "SELECT settings ->> 'time_zone' FROM tenant WHERE id = $1"

DUE: Final = """
    SELECT w.tenant, w.id, w.digest, w.digest_at, w.digest_from, t.settings ->> 'time_zone' AS time_zone
      FROM webhook w JOIN tenant t ON t.id = w.tenant
     WHERE w.tenant <> '' AND w.status = 'active' AND w.digest IS NOT NULL AND w.digest_at <= $1
     ORDER BY w.digest_at, w.tenant, w.id LIMIT $2
"""

SKIP: Final = "UPDATE webhook SET digest_from = $4, digest_at = $5 WHERE tenant = $1 AND id = $2 AND digest_at = $3"

# Cases that began or went on in that time, however late it is told: a later hit takes none of them away.
TELL: Final = """
    WITH hook AS (
        UPDATE webhook SET digest_from = digest_at, digest_at = $4 WHERE tenant = $1 AND id = $2 AND digest_at = $6 RETURNING 1
    ), found AS (
        SELECT code, member_id FROM violation WHERE tenant = $1 AND last_at >= $5 AND first_at < $6
    )
    INSERT INTO webhook_delivery (tenant, webhook_id, kind, payload, created_at, due_at)
    SELECT $1, $2, 'digest',
           jsonb_build_object('type', 'digest', 'timestamp', to_char($6 AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
               'data', jsonb_build_object('tenant', $1::text, 'time_zone', $7::text,
                   'from', to_char($5 AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                   'to', to_char($6 AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                   'members', (SELECT count(DISTINCT member_id) FROM found),
                   'violations', (SELECT coalesce(jsonb_object_agg(code, cases), '{}')
                                    FROM (SELECT code, count(*) AS cases FROM found GROUP BY code) by_code)))::text,
           $3::timestamptz, $3::timestamptz
      FROM hook
"""


class Due(msgspec.Struct, frozen=True, kw_only=True):
    """A webhook whose digest's time has ended at `digest_at`; it began at `digest_from` (None: as long before as it lasts)."""

    tenant: str
    id: UUID
    digest: Digest
    digest_at: datetime
    digest_from: datetime | None
    time_zone: str | None


class DigestStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def zone(self, tenant: str) -> str | None:
        """The school's time zone; None when it has chosen none."""
        found: str | None = await self._db.value(ZONE, tenant)
        return found

    async def due(self, now: datetime) -> Sequence[Due]:
        """Those that are to be made out, AT_ONCE at most, the oldest first."""
        return [_due(row) for row in await self._db.fetch(DUE, now, AT_ONCE)]

    async def tell(self, due: Due, now: datetime) -> None:
        """Make one out and set the end of the next; one that is too old is left out, with all that are."""
        zone, end = zone_of(due.time_zone), due.digest_at
        begin, following = due.digest_from or end - STEP[due.digest], boundary(end, zone, due.digest)
        if end > now - LATEST:
            await self._db.row(TELL, due.tenant, due.id, now, following, begin, end, str(zone))
            return
        begin, until = end, following
        while until <= now - LATEST:
            begin, until = until, boundary(until, zone, due.digest)
        await self._db.row(SKIP, due.tenant, due.id, end, begin, until)


def boundary(after: datetime, zone: tzinfo, digest: Digest) -> datetime:
    """The first midnight (of a Monday, for a week) of that zone's after a time; aware, UTC.

    A day may have 23 hours or 25. Where a clock is set forward at midnight, it
    is the moment of that.
    """
    day = after.astimezone(zone).date()
    while True:
        day += timedelta(days=1)
        found = datetime.combine(day, time(), zone).astimezone(UTC)
        if found > after and (digest == "day" or day.weekday() == 0):
            return found


def zone_of(name: str | None) -> tzinfo:
    """A time zone by its name (IANA); UTC for what is none."""
    try:
        return ZoneInfo(name or "UTC")
    except (KeyError, ValueError, OSError):  # unknown, no name at all, a folder of zones
        return ZoneInfo("UTC")


def _due(row: Row) -> Due:
    return Due(**{name: row[name] for name in Due.__struct_fields__})
