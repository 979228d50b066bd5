"""The addresses that members were seen at, in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from ipaddress import IPv6Address
from typing import Final

import msgspec

from accessguard.database import Database
from accessguard.rules.networks import INTERFACE_BITS, Address
from accessguard.sessions.model import NetworkRow

MOST_SHOWN: Final = 10

# Times only go forward, and a refused use moves nothing.
AGAIN: Final = """
        ON CONFLICT (tenant, member_id, session_id, ip) DO UPDATE
       SET last_at = CASE WHEN excluded.admitted_at IS NULL THEN n.last_at ELSE greatest(n.last_at, excluded.last_at) END,
           admitted_at = coalesce(excluded.admitted_at, n.admitted_at),
           device_id = coalesce(excluded.device_id, n.device_id),
           country = coalesce(excluded.country, n.country), asn = coalesce(excluded.asn, n.asn),
           city = coalesce(excluded.city, n.city),
           latitude = coalesce(excluded.latitude, n.latitude), longitude = coalesce(excluded.longitude, n.longitude)
"""

# Rows are taken in the order of their keys.
SEEN: Final = f"""
    INSERT INTO member_network AS n (tenant, member_id, session_id, ip, device_id, first_at, last_at, admitted_at,
                                     country, asn, city, latitude, longitude)
    SELECT $1, r.member_id, r.session_id, r.ip, r.device_id, r.at, r.at, r.admitted_at,
           r.country, r.asn, r.city, r.latitude, r.longitude
      FROM jsonb_to_recordset($2) AS r(member_id text, session_id text, ip inet, device_id uuid, at timestamptz,
                                       admitted_at timestamptz, country text, asn bigint, city text,
                                       latitude double precision, longitude double precision)
     ORDER BY r.member_id, r.session_id, r.ip
{AGAIN}"""  # noqa: S608 - both parts are constants

USED: Final = """
    WITH used AS (
        SELECT member_id, max(last_at) AS last_at, bool_or(ip = $4::inet) AS exact
          FROM member_network
         WHERE tenant = $1 AND ip BETWEEN $2::inet AND $3::inet AND last_at > $5
         GROUP BY member_id
    )
    SELECT count(*) FILTER (WHERE exact) AS members, count(*) AS place_members,
           count(*) FILTER (WHERE last_at > $6) AS members_today,
           (SELECT coalesce(jsonb_agg(to_jsonb(l) ORDER BY l.last_at DESC, l.member_id), '[]')
              FROM (SELECT member_id, last_at FROM used ORDER BY last_at DESC, member_id LIMIT $7) l) AS last
      FROM used
"""

# As long as the tenant keeps its access log: no rule looks back further. In the form of the index by age; the last use
# itself is in no index, so that a beat updates its row in place.
EXPIRE: Final = """
    WITH gone AS (
        DELETE FROM member_network WHERE ctid = ANY(ARRAY(
            SELECT old.ctid
              FROM tenant t CROSS JOIN LATERAL (
                   SELECT n.ctid FROM member_network n
                    WHERE (n.tenant || '') = t.id
                      AND n.first_at < $1::timestamptz - make_interval(days => coalesce((t.settings #>> '{retention,logins_days}')::int, $3))
                      AND n.last_at < $1::timestamptz - make_interval(days => coalesce((t.settings #>> '{retention,logins_days}')::int, $3))
                    ORDER BY n.first_at LIMIT $2 FOR UPDATE SKIP LOCKED) old
             LIMIT $2))
        RETURNING 1
    )
    SELECT count(*) FROM gone
"""


class LastUse(msgspec.Struct, frozen=True, kw_only=True):
    """Who was seen at an address, and when last."""

    member_id: str
    last_at: datetime


class Use(msgspec.Struct, frozen=True, kw_only=True):
    """How many members were seen at an address itself, at its place (the /64 of IPv6), and there today; the last few."""

    members: int
    place_members: int
    members_today: int
    last: tuple[LastUse, ...]


class NetworkStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def seen(self, tenant: str, rows: Sequence[NetworkRow], *, timeout_s: float | None = None) -> None:
        """Note where members were seen, each member, session and address once in `rows`."""
        await self._db.row(SEEN, tenant, rows, timeout_s=timeout_s)

    async def expire(self, now: datetime, most: int, *, default_days: int) -> int:
        """Delete at most so many addresses last seen longer ago than their tenant keeps the access log; how many.

        `default_days` holds for tenants whose settings do not say.
        """
        return int(await self._db.value(EXPIRE, now, most, default_days))

    async def use(self, tenant: str, address: Address, *, since: datetime, today: datetime) -> Use:
        """Who was seen at an address after `since`, and how many of them after `today`."""
        first, last = bounds(address)
        row = await self._db.row(USED, tenant, first, last, address.text, since, today, MOST_SHOWN)
        if row is None:
            raise LookupError("an aggregate without a row")
        return Use(
            members=row["members"],
            place_members=row["place_members"],
            members_today=row["members_today"],
            last=msgspec.json.decode(row["last"], type=tuple[LastUse, ...]),
        )


def bounds(address: Address) -> tuple[str, str]:
    """The first and the last address of the unit in which places are compared."""
    if address.version == 4:
        return address.text, address.text
    first = address.packed >> INTERFACE_BITS << INTERFACE_BITS
    return str(IPv6Address(first)), str(IPv6Address(first + (1 << INTERFACE_BITS) - 1))
