"""Devices in PostgreSQL, as operators read and change them; logins write them in `sessions/logins.py`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from accessguard.database import Database, Row, both_ways
from accessguard.devices.kinship import Sighted
from accessguard.devices.model import Device
from accessguard.rules.model import Access

COLUMNS: Final = """
    SELECT d.id, d.name, d.label, d.browser, d.browser_version, d.os, d.device_class, d.model, d.access, d.access_reason, d.access_by,
           d.access_at, d.first_seen_at, d.last_seen_at, host(d.last_ip) AS last_ip, d.admitted_at, d.merged_ids,
           (SELECT count(*) FROM session s
             WHERE s.tenant = $1 AND s.member_id = $2 AND s.device_id = d.id AND s.ended_at IS NULL AND s.expires_at > $3)
               AS active_sessions,
           (SELECT count(DISTINCT o.member_id) FROM device o
             WHERE o.tenant = $1 AND o.browser_id = d.browser_id AND o.member_id <> d.member_id AND o.forgotten_at IS NULL)
               AS used_by
      FROM device d WHERE d.tenant = $1 AND d.member_id = $2 AND d.forgotten_at IS NULL
"""

LISTED: Final = both_ways(
    COLUMNS
    + """
       AND ($4::timestamptz IS NULL OR (d.last_seen_at, d.id) <after> ($4, $5::uuid))
     ORDER BY d.last_seen_at <order>, d.id <order> LIMIT $6
"""
)

# A merged device's id stands for the one that it became part of.
ONE: Final = (
    COLUMNS  # noqa: S608 - both parts are constants
    + " AND d.id = coalesce((SELECT x.merged_into FROM device x WHERE x.tenant = $1 AND x.member_id = $2 AND x.id = $4), $4)"
)

CHANGE: Final = """
    WITH changed AS (
        UPDATE device SET name = $4, access = $5, access_reason = $6, access_by = $7, access_at = $8
         WHERE tenant = $1 AND member_id = $2 AND id = $3 AND forgotten_at IS NULL
        RETURNING member_id
    )
    UPDATE member SET generation = nextval('generation')
     WHERE tenant = $1 AND id IN (SELECT member_id FROM changed) RETURNING generation
"""

# Those that ended lately, too: a worker that can ask nobody knows neither that they have ended nor whose they are.
NAMED: Final = """
    (SELECT id FROM session
      WHERE tenant = $1 AND member_id = $2 AND device_id = $3 AND ended_at IS NULL
      ORDER BY started_at DESC LIMIT $4)
    UNION
    SELECT id FROM (SELECT id, device_id FROM session WHERE tenant = $1 AND member_id = $2
                     ORDER BY started_at DESC LIMIT 200) s WHERE s.device_id = $3
"""
MOST_NAMED: Final = 1_000

# Forgetting ends the device's sessions and frees its slot; the row stays, so that its history has a name.
FORGET: Final = """
    WITH forgotten AS (
        UPDATE device SET forgotten_at = $4, admitted_at = NULL
         WHERE tenant = $1 AND member_id = $2 AND id = $3 AND forgotten_at IS NULL
        RETURNING member_id
    ), ended AS (
        UPDATE session SET ended_at = $4, end_reason = 'device_forgotten', ended_by = $5
         WHERE tenant = $1 AND member_id = $2 AND device_id = $3 AND ended_at IS NULL AND EXISTS (SELECT FROM forgotten)
        RETURNING id
    ), changed AS (
        UPDATE member SET generation = nextval('generation')
         WHERE tenant = $1 AND id IN (SELECT member_id FROM forgotten)
    )
    SELECT (SELECT count(*) FROM forgotten) AS forgotten, ARRAY(SELECT id FROM ended ORDER BY id) AS ended
"""

# No new generation: only a login asks about it, and it reads the row itself.
SHOWN: Final = """
    UPDATE device d SET shown_at = now()
      FROM unnest($1::text[], $2::uuid[], $3::bytea[]) AS s(tenant, id, mark)
     WHERE d.tenant = s.tenant AND d.id = s.id AND d.id = ANY($2) AND d.shown_at IS NULL AND substr(d.secret_hash, 1, 8) = s.mark
"""


MOST_SIGHTED: Final = 200

# The member's devices with the networks they were used from: those seen last, and of each network its place once.
SIGHTED: Final = """
    SELECT d.id, d.access, d.browser, d.os, d.device_class, d.model, d.screen, d.first_seen_at, d.last_seen_at,
           host(network(set_masklen(d.last_ip, CASE family(d.last_ip) WHEN 4 THEN 32 ELSE 64 END))) AS last_place,
           coalesce(n.places, '{}') AS places
      FROM (SELECT * FROM device WHERE tenant = $1 AND member_id = $2 AND forgotten_at IS NULL
             ORDER BY last_seen_at DESC, id LIMIT $3) d
      LEFT JOIN (
           SELECT device_id, array_agg(DISTINCT host(network(set_masklen(ip, CASE family(ip) WHEN 4 THEN 32 ELSE 64 END)))) AS places
             FROM (SELECT device_id, ip FROM member_network WHERE tenant = $1 AND member_id = $2
                    ORDER BY last_at DESC, session_id, ip LIMIT 1000) used
            GROUP BY device_id) n ON n.device_id = d.id
"""


CALLED: Final = """
    SELECT coalesce(d.name, d.label) AS called FROM device d
     WHERE d.tenant = $1 AND d.member_id = $2
       AND d.id = coalesce($3, (SELECT s.device_id FROM session s WHERE s.tenant = $1 AND s.id = $4 AND s.member_id = $2))
"""


class DeviceStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def called(self, tenant: str, member_id: str, device_id: UUID | None, session_id: str | None) -> str | None:
        """What a member's device is called, forgotten or not; without its id that of the session. None when unknown."""
        row = await self._db.row(CALLED, tenant, member_id, device_id, session_id)
        return None if row is None else str(row["called"])

    async def listed(
        self,
        tenant: str,
        member_id: str,
        *,
        now: datetime,
        after: tuple[datetime, UUID] | None,
        limit: int,
        descending: bool = True,
    ) -> Sequence[Device]:
        """One page of a member's devices, by when they were last seen."""
        rows = await self._db.fetch(LISTED[descending], tenant, member_id, now, *(after or (None, None)), limit)
        return [_device(row) for row in rows]

    async def one(self, tenant: str, member_id: str, device_id: UUID, *, now: datetime) -> Device | None:
        """One device of that member, by its own id or that of a merged one; None when it is unknown, forgotten or somebody else's."""
        row = await self._db.row(ONE, tenant, member_id, now, device_id)
        return None if row is None else _device(row)

    async def sighted(self, tenant: str, member_id: str) -> Sequence[Sighted]:
        """The member's devices as they show themselves, the 200 that were seen last."""
        return [_sighted(row) for row in await self._db.fetch(SIGHTED, tenant, member_id, MOST_SIGHTED)]

    async def change(self, tenant: str, member_id: str, device: Device) -> int:
        """Store its name and what an operator decided on its access; the member's generation then, 0 when it is not there."""
        d = device
        generation: int | None = await self._db.value(
            CHANGE, tenant, member_id, d.id, d.name, d.access, d.access_reason, d.access_by, d.access_at
        )
        return generation or 0

    async def sessions(self, tenant: str, member_id: str, device_id: UUID) -> tuple[str, ...]:
        """Its open sessions, the newest MOST_NAMED of them, and those of the member's last 200."""
        rows = await self._db.fetch(NAMED, tenant, member_id, device_id, MOST_NAMED)
        return tuple(row["id"] for row in rows)

    async def shown(self, tokens: Sequence[tuple[str, UUID, bytes]]) -> None:
        """Note that somebody has come with the present token of these devices: (tenant, device, beginning of its hash)."""
        tenants, ids, marks = zip(*tokens, strict=True)
        await self._db.row(SHOWN, list(tenants), list(ids), list(marks))

    async def forget(
        self, tenant: str, member_id: str, device_id: UUID, *, at: datetime, by: str
    ) -> tuple[str, ...] | None:
        """Forget a device; the sessions that ended with it, or None when it is not there."""
        row = await self._db.row(FORGET, tenant, member_id, device_id, at, by)
        return tuple(row["ended"]) if row is not None and row["forgotten"] else None


def _sighted(row: Row) -> Sighted:
    return Sighted(
        id=row["id"],
        access=Access(row["access"]),
        browser=row["browser"],
        os=row["os"],
        device_class=row["device_class"],
        model=row["model"],
        screen=row["screen"],
        first_seen_at=row["first_seen_at"],
        last_seen_at=row["last_seen_at"],
        places=frozenset(filter(None, (row["last_place"], *row["places"]))),
    )


def _device(row: Row) -> Device:
    return Device(
        id=row["id"],
        name=row["name"],
        label=row["label"],
        browser=row["browser"],
        browser_version=row["browser_version"],
        os=row["os"],
        device_class=row["device_class"],
        model=row["model"],
        access=Access(row["access"]),
        access_reason=row["access_reason"],
        access_by=row["access_by"],
        access_at=row["access_at"],
        first_seen_at=row["first_seen_at"],
        last_seen_at=row["last_seen_at"],
        last_ip=row["last_ip"],
        admitted_at=row["admitted_at"],
        active_sessions=row["active_sessions"],
        used_by=row["used_by"],
        merged_ids=tuple(row["merged_ids"]),
    )
