"""Members that have something in common with one: a browser, an address at the same time, a telephone number."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database, Row

MOST: Final = 200
"""Of each reason."""
MOST_ADDRESSES: Final = 50
MOST_AT_ONE: Final = 50
"""Members at an address beyond which it says nothing: a campus, an office, a carrier's NAT."""
MOST_READ: Final = 500
"""Uses of one address by others that are looked at, so that no address of a carrier costs more than a few milliseconds."""


class Reason(StrEnum):
    """What two members have in common."""

    DEVICE = "device"
    PHONE = "phone"
    ADDRESS = "address"


class Strength(StrEnum):
    """How much that says."""

    STRONG = "strong"
    MEDIUM = "medium"
    WEAK = "weak"


class Related(msgspec.Struct, frozen=True, kw_only=True):
    """Another member, and one thing in common; `members` is how many share it, both included."""

    member_id: str
    name: str
    reason: Reason
    strength: Strength
    last_at: datetime
    shared: int
    members: int
    ip: str | None
    explanation: str

    @property
    def place(self) -> tuple[int, float, str, str]:
        """Where it stands in the list: the strongest first, of those the latest."""
        order = (Strength.STRONG, Strength.MEDIUM, Strength.WEAK)
        return (order.index(self.strength), -self.last_at.timestamp(), self.member_id, self.reason)


# The same browser: devices of others with the browser of one of the member's, merged and forgotten ones too.
BY_DEVICE: Final = """
    WITH mine AS (
        SELECT browser_id, max(last_seen_at) AS last_at FROM (
            SELECT browser_id, last_seen_at FROM device WHERE tenant = $1 AND member_id = $2
             ORDER BY last_seen_at DESC, id LIMIT 200) d
         GROUP BY browser_id
    ), theirs AS (
        SELECT o.browser_id, o.member_id, least(max(o.last_seen_at), m.last_at) AS last_at
          FROM mine m, LATERAL (
               SELECT browser_id, member_id, last_seen_at FROM device
                WHERE browser_id = m.browser_id AND tenant = $1 AND member_id <> $2 LIMIT $4) o
         GROUP BY o.browser_id, o.member_id, m.last_at
    )
    SELECT t.member_id, w.name, max(t.last_at) AS last_at, count(*) AS shared, NULL AS address,
           min(n.members) + 1 AS members
      FROM theirs t
      JOIN (SELECT browser_id, count(DISTINCT member_id) AS members FROM theirs GROUP BY browser_id) n
        ON n.browser_id = t.browser_id
      JOIN member w ON w.tenant = $1 AND w.id = t.member_id
     GROUP BY t.member_id, w.name ORDER BY last_at DESC, t.member_id LIMIT $3
"""

# The same address (IPv6: the same /64) while both used it. `members` are all that were seen there in that time.
BY_ADDRESS: Final = """
    WITH mine AS (
        SELECT place, max(last_at) AS last_at, min(first_at) AS first_at FROM (
            SELECT network(set_masklen(ip, CASE family(ip) WHEN 4 THEN 32 ELSE 64 END)) AS place, first_at, last_at
              FROM member_network
             WHERE tenant = $1 AND member_id = $2 AND session_id <> '' AND last_at > $5
             ORDER BY last_at DESC, session_id, ip LIMIT 500) n
         GROUP BY place ORDER BY last_at DESC, place LIMIT $6
    ), theirs AS (
        SELECT m.place, o.member_id, max(least(o.last_at, m.last_at)) AS last_at
          FROM mine m, LATERAL (
               SELECT member_id, first_at, last_at FROM member_network
                WHERE tenant = $1 AND ip BETWEEN host(m.place)::inet AND host(broadcast(m.place))::inet AND member_id <> $2
                LIMIT $4) o
         WHERE o.last_at >= m.first_at AND o.first_at <= m.last_at
         GROUP BY m.place, o.member_id
    ), quiet AS (
        SELECT place, count(*) AS members FROM theirs GROUP BY place HAVING count(*) < $7
    )
    SELECT t.member_id, w.name, max(t.last_at) AS last_at, count(*) AS shared,
           (array_agg(host(t.place) ORDER BY q.members, t.last_at DESC))[1] AS address, min(q.members) + 1 AS members
      FROM theirs t JOIN quiet q ON q.place = t.place
      JOIN member w ON w.tenant = $1 AND w.id = t.member_id
     GROUP BY t.member_id, w.name ORDER BY min(q.members), last_at DESC, t.member_id LIMIT $3
"""

BY_PHONE: Final = """
    SELECT w.id AS member_id, w.name, coalesce(w.last_access_at, w.created_at) AS last_at, 1 AS shared, NULL AS address,
           count(*) OVER () + 1 AS members
      FROM (SELECT * FROM member WHERE tenant = $1 AND phone_e164 = $4 AND phone_e164 <> '' AND id <> $2 LIMIT $5) w
     ORDER BY last_at DESC, w.id LIMIT $3
"""


OF_DEVICE: Final = """
    SELECT o.member_id, w.name, o.last_at, 1 AS shared, NULL AS address, count(*) OVER () + 1 AS members
      FROM (SELECT r.member_id, max(r.last_seen_at) AS last_at
              FROM device d JOIN device r ON r.browser_id = d.browser_id AND r.tenant = $1 AND r.member_id <> $2 AND r.forgotten_at IS NULL
             WHERE d.tenant = $1 AND d.member_id = $2 AND d.id = $4
             GROUP BY r.member_id) o
      JOIN member w ON w.tenant = $1 AND w.id = o.member_id
     ORDER BY o.last_at DESC, o.member_id LIMIT $3
"""


class RelatedStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def by_device(self, tenant: str, member_id: str) -> Sequence[Related]:
        """Members who use a browser of this one's."""
        rows = await self._db.fetch(BY_DEVICE, tenant, member_id, MOST, MOST_READ)
        return [_related(row, Reason.DEVICE, device_strength(row["members"])) for row in rows]

    async def of_device(self, tenant: str, member_id: str, device_id: UUID) -> Sequence[Related]:
        """Members who use the browser that a device of this one's is, the latest first."""
        rows = await self._db.fetch(OF_DEVICE, tenant, member_id, MOST, device_id)
        return [_related(row, Reason.DEVICE, device_strength(row["members"])) for row in rows]

    async def by_address(self, tenant: str, member_id: str, *, since: datetime) -> Sequence[Related]:
        """Members who were at an address of this one's, after `since`, in the time in which it used it."""
        rows = await self._db.fetch(BY_ADDRESS, tenant, member_id, MOST, MOST_READ, since, MOST_ADDRESSES, MOST_AT_ONE)
        return [_related(row, Reason.ADDRESS, address_strength(row["members"], row["shared"])) for row in rows]

    async def by_phone(self, tenant: str, member_id: str, number: str) -> Sequence[Related]:
        """Members who have this number (E.164), however they write it."""
        rows = await self._db.fetch(BY_PHONE, tenant, member_id, MOST, number, MOST_READ)
        return [_related(row, Reason.PHONE, phone_strength(row["members"])) for row in rows]


def device_strength(members: int) -> Strength:
    """One browser of two or three says much, one of a classroom little."""
    return Strength.STRONG if members <= 3 else Strength.MEDIUM if members <= 10 else Strength.WEAK


def address_strength(members: int, shared: int) -> Strength:
    """An address of a household says something, several of them much; a busy one, little."""
    if members > 4:
        return Strength.WEAK
    return Strength.STRONG if shared > 1 else Strength.MEDIUM


def phone_strength(members: int) -> Strength:
    """A number of two or three is a person or a family, one of many is a school's or a company's."""
    return Strength.STRONG if members <= 3 else Strength.WEAK


def _related(row: Row, reason: Reason, strength: Strength) -> Related:
    return Related(
        member_id=row["member_id"],
        name=row["name"],
        reason=reason,
        strength=strength,
        last_at=row["last_at"],
        shared=row["shared"],
        members=row["members"],
        ip=row["address"],
        explanation=_words(reason, row["shared"], row["members"]),
    )


def _words(reason: Reason, shared: int, members: int) -> str:
    match reason:
        case Reason.DEVICE:
            return f"{shared} browser(s) in common, used by {members} members"
        case Reason.ADDRESS:
            return f"{shared} address(es) in common at the same time, the quietest of them used by {members} members"
        case Reason.PHONE:
            return f"the same telephone number, given by {members} members"
