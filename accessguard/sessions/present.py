"""Who is on now, over all members of a tenant, by the newest activity."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from accessguard.database import Database, Row
from accessguard.listing import Listing

MOST_SESSIONS: Final = 5
"""Of one member; more are seen on its card."""


class PresentSession(msgspec.Struct, frozen=True, kw_only=True):
    """An open session that was active lately; `device` is what operators call it, None where it is not known."""

    id: str
    device: str | None
    device_class: str
    app: str | None
    ip: str | None
    started_at: datetime
    last_activity_at: datetime
    last_activity_kind: str | None
    last_resource: str | None


class Present(msgspec.Struct, frozen=True, kw_only=True):
    """A member who is on, and in which sessions, the newest activity first; `at` is that of the member."""

    member_id: str
    name: str
    email: str | None
    staff: bool
    at: datetime
    sessions: tuple[PresentSession, ...]


# Along the index of members by activity, in its own form; whose sessions have all ended since is passed over.
ALONG: Final = """
    SELECT m.id AS member_id, m.name, m.email, m.staff, m.last_activity_at AS at, w.sessions
      FROM member m, LATERAL (
           SELECT jsonb_agg(o ORDER BY o.last_activity_at DESC, o.id) AS sessions FROM (
               SELECT s.id, coalesce(d.name, d.label) AS device, s.device_class, s.app, host(s.ip) AS ip, s.started_at,
                      greatest(s.last_activity_at, s.started_at) AS last_activity_at, s.last_activity_kind, s.last_resource
                 FROM session s LEFT JOIN device d ON d.id = s.device_id AND d.tenant = $1
                WHERE s.tenant = $1 AND s.member_id = m.id AND s.ended_at IS NULL AND s.expires_at > $2
                  AND greatest(s.last_activity_at, s.started_at) > $3
                ORDER BY greatest(s.last_activity_at, s.started_at) DESC, s.id LIMIT $4) o) w
     WHERE m.tenant = $1 AND coalesce(m.last_activity_at, '-infinity'::timestamptz) > $3 AND w.sessions IS NOT NULL
"""
LISTED: Final = Listing(
    select=ALONG,
    fixed=4,
    filters=(),
    place="(coalesce(m.last_activity_at, '-infinity'::timestamptz), m.id) <after> (?::timestamptz, ?)",
    order="coalesce(m.last_activity_at, '-infinity'::timestamptz) <order>, m.id <order>",
)

# The LIMIT within keeps it from being a join with all sessions.
COUNT: Final = """
    SELECT count(*) FROM (
        SELECT 1
          FROM member m, LATERAL (
               SELECT 1 FROM session s
                WHERE s.tenant = $1 AND s.member_id = m.id AND s.ended_at IS NULL AND s.expires_at > $2
                  AND greatest(s.last_activity_at, s.started_at) > $3
                LIMIT 1) o
         WHERE m.tenant = $1 AND coalesce(m.last_activity_at, '-infinity'::timestamptz) > $3
         LIMIT $4) n
"""


class PresentStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def listed(
        self, tenant: str, *, now: datetime, since: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Present]:
        """One page of the members who were active after `since` in a session that is open, the newest activity first."""
        statement, values = LISTED.page(
            tenant, now, since, MOST_SESSIONS, filters={}, after=after, descending=True, limit=limit
        )
        return [_present(row) for row in await self._db.fetch(statement, *values)]

    async def count(self, tenant: str, *, now: datetime, since: datetime, most: int) -> int:
        """How many they are; `most` when they are more."""
        return int(await self._db.value(COUNT, tenant, now, since, most))


def _present(row: Row) -> Present:
    sessions = msgspec.json.decode(row["sessions"], type=tuple[PresentSession, ...])
    plain = [name for name in Present.__struct_fields__ if name != "sessions"]
    return Present(sessions=sessions, **{name: row[name] for name in plain})
