"""Gathering the evidence of shared accounts in PostgreSQL: member by member, into one row for each day that showed something."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from accessguard.database import Database
from accessguard.members.latest import in_order


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """How far it is gathered: everybody up to `member_id` of those last active at `at`, in a round that looks back to `since`."""

    at: datetime
    member_id: str
    since: datetime


# What one day showed of each member: of the interactions that are counted, by the devices of their sessions. 5,000 of
# one member and run are looked at. Distances are great-circle (haversine, mean radius 6,371 km).
GATHER: Final = """
    WITH used AS MATERIALIZED (
        SELECT a.member_id, a.session_id, a.at, a.ip, s.device_id, s.device_class
          FROM unnest($2::text[]) AS w(id),
               LATERAL (SELECT member_id, session_id, at, ip FROM activity
                         WHERE tenant = $1 AND member_id = w.id AND at >= $3 AND at < $4 ORDER BY at DESC, session_id LIMIT 5000) a,
               LATERAL (SELECT device_id, device_class FROM session
                         WHERE tenant = $1 AND id = a.session_id AND device_id IS NOT NULL AND method <> 'impersonation') s
    ), slots AS (
        SELECT member_id, date_bin('10 minutes', at, '2000-01-01') AS slot FROM used
         GROUP BY member_id, slot HAVING count(DISTINCT device_id) > 1
    ), hours AS (
        SELECT member_id, date_trunc('hour', at) AS slot FROM used
         GROUP BY member_id, slot HAVING count(DISTINCT device_id) > least(2, count(DISTINCT device_class))
    ), places AS MATERIALIZED (
        SELECT DISTINCT u.member_id, date_trunc('hour', u.at) AS slot, u.device_id,
               radians(n.latitude) AS latitude, radians(n.longitude) AS longitude
          FROM used u, LATERAL (
               SELECT latitude, longitude FROM member_network
                WHERE tenant = $1 AND member_id = u.member_id AND session_id = u.session_id AND ip = u.ip AND latitude IS NOT NULL) n
    ), far AS (
        SELECT DISTINCT a.member_id, a.slot FROM places a JOIN places b ON b.member_id = a.member_id AND b.slot = a.slot
         WHERE a.device_id < b.device_id
           AND 2 * 6371 * asin(least(1, sqrt(sin((a.latitude - b.latitude) / 2) ^ 2
                   + cos(a.latitude) * cos(b.latitude) * sin((a.longitude - b.longitude) / 2) ^ 2))) >= 100
    ), new AS (
        SELECT d.member_id, d.first_admitted_at AS slot
          FROM unnest($2::text[]) AS w(id),
               LATERAL (SELECT member_id, first_admitted_at FROM device
                         WHERE tenant = $1 AND member_id = w.id AND first_admitted_at >= $3 AND first_admitted_at < $4
                           AND merged_into IS NULL LIMIT 1000) d
    ), found AS MATERIALIZED (
        SELECT member_id, slot::date AS day, count(*) FILTER (WHERE kind = 1) AS parallel_activity,
               count(*) FILTER (WHERE kind = 2) AS parallel_devices, count(*) FILTER (WHERE kind = 3) AS far_places,
               count(*) FILTER (WHERE kind = 4) AS new_devices, max(slot) AS last_at
          FROM (SELECT member_id, slot, 1 AS kind FROM slots UNION ALL SELECT member_id, slot, 2 FROM hours
                UNION ALL SELECT member_id, slot, 3 FROM far UNION ALL SELECT member_id, slot, 4 FROM new) e
         GROUP BY member_id, day
    ), gone AS (
        DELETE FROM sharing_day d
         WHERE d.tenant = $1 AND d.member_id = ANY($2) AND d.day >= $3::date AND d.day <= $4::date
           AND NOT EXISTS (SELECT FROM found f WHERE f.member_id = d.member_id AND f.day = d.day)
    )
    INSERT INTO sharing_day (tenant, member_id, day, parallel_activity, parallel_devices, far_places, new_devices, last_at)
    SELECT $1, member_id, day, parallel_activity, parallel_devices, far_places, new_devices, last_at FROM found
     ORDER BY member_id, day
        ON CONFLICT (tenant, member_id, day) DO UPDATE
       SET parallel_activity = excluded.parallel_activity, parallel_devices = excluded.parallel_devices,
           far_places = excluded.far_places, new_devices = excluded.new_devices, last_at = excluded.last_at
"""

# "AG" 5: any number works, as long as every worker takes the same.
LOCK: Final = 0x4147_0005

HELD: Final = "SELECT pg_try_advisory_xact_lock($2, hashtext($1))"

MARK: Final = "SELECT at, member_id, since FROM sharing_mark WHERE tenant = $1"

TO_MARK: Final = """
    INSERT INTO sharing_mark (tenant, at, member_id, since) VALUES ($1, $2, $3, $4)
        ON CONFLICT (tenant) DO UPDATE SET at = excluded.at, member_id = excluded.member_id, since = excluded.since
"""

ACTIVE: Final = f"""
    SELECT a.id, a.at, (SELECT staff FROM member WHERE tenant = $1 AND id = a.id) AS staff
      FROM ({in_order(tenant="$1", place="($2::timestamptz, $3)", until="$4", most="$5")}) a
     ORDER BY a.at, a.id
"""  # noqa: S608 - all parts are constants

DROP: Final = "DELETE FROM sharing_day WHERE tenant = $1 AND day < $2::date"

TENANTS: Final = "SELECT id FROM tenant WHERE id > $1 ORDER BY id LIMIT $2"


class GatherStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def gather(self, tenant: str, members: Sequence[str], *, since: datetime, until: datetime) -> None:
        """Look at these members' days again, from the day of `since` on."""
        start = since.replace(hour=0, minute=0, second=0, microsecond=0)
        await self._db.row(GATHER, tenant, members, start, until)

    async def held(self, tenant: str) -> bool:
        """Whether this transaction alone gathers for the tenant."""
        return bool(await self._db.value(HELD, tenant, LOCK))

    async def mark(self, tenant: str) -> Mark | None:
        """How far it is gathered; None before the first time."""
        row = await self._db.row(MARK, tenant)
        return None if row is None else Mark(at=row["at"], member_id=row["member_id"], since=row["since"])

    async def set_mark(self, tenant: str, mark: Mark) -> None:
        """Write down how far it is gathered."""
        await self._db.row(TO_MARK, tenant, mark.at, mark.member_id, mark.since)

    async def active(
        self, tenant: str, after: tuple[datetime, str], *, until: datetime, most: int
    ) -> Sequence[tuple[str, datetime, bool]]:
        """Members by last activity, after a place of that order: id, last activity, whether they are staff."""
        rows = await self._db.fetch(ACTIVE, tenant, *after, until, most)
        return [(row["id"], row["at"], row["staff"]) for row in rows]

    async def drop(self, tenant: str, *, before: datetime) -> None:
        """Let go of days that no report can ask for."""
        await self._db.row(DROP, tenant, before)

    async def tenants(self, after: str, *, most: int) -> Sequence[str]:
        """Ids of tenants, in order."""
        return [row["id"] for row in await self._db.fetch(TENANTS, after, most)]
