"""Sessions, login attempts and activity as operators read them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import msgspec

from accessguard.database import Database, Row, both_ways


class SessionItem(msgspec.Struct, frozen=True, kw_only=True):
    """One session; `status` is open, ended or expired, times are aware UTC."""

    id: str
    member_id: str
    device_id: UUID | None
    device_class: str
    app: str | None
    host: str | None
    method: str
    ip: str | None
    user_agent: str | None
    status: Literal["open", "ended", "expired"]
    started_at: datetime
    expires_at: datetime
    last_activity_at: datetime | None
    last_activity_kind: str | None
    last_resource: str | None
    ended_at: datetime | None
    end_reason: str | None
    ended_by: str | None
    retained_until: datetime


class LoginItem(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the access log."""

    id: UUID
    at: datetime
    member_id: str | None
    outcome: str
    failure_reason: str | None
    method: str
    decision: str
    code: str | None
    rule_id: UUID | None
    rule_version: int | None
    exempt: bool
    degraded: bool
    session_id: str | None
    device_id: UUID | None
    device_new: bool
    device_token: str
    browser: str | None
    os: str | None
    device_class: str | None
    app: str | None
    host: str | None
    ip: str | None
    country: str | None
    asn: int | None
    city: str | None
    user_agent: str | None
    retained_until: datetime


class ActivityItem(msgspec.Struct, frozen=True, kw_only=True):
    """One counted interaction."""

    at: datetime
    kind: str
    session_id: str
    resource: str | None
    product_id: str | None
    ip: str | None
    retained_until: datetime


# By when upkeep takes a row away, at its next run; `365` is what `Retention` says for tenants that say nothing.
SESSION: Final = """
    SELECT *, host(ip) AS address, coalesce(ended_at, expires_at) + make_interval(days => coalesce((SELECT (settings #>> '{retention,logins_days}')::int FROM tenant WHERE id = $1), 365)) AS retained_until,
           CASE WHEN ended_at IS NOT NULL THEN 'ended' WHEN expires_at <= $2 THEN 'expired' ELSE 'open' END AS status
      FROM session WHERE tenant = $1
"""

ONE: Final = SESSION + " AND id = $3"

SESSIONS: Final = both_ways(
    SESSION
    + """
       AND member_id = $3 AND ($4::timestamptz IS NULL OR (started_at, id) <after> ($4, $5))
     ORDER BY started_at <order>, id <order> LIMIT $6
"""
)

OPEN: Final = (
    SESSION + " AND member_id = $3 AND ended_at IS NULL AND expires_at > $2 ORDER BY started_at DESC, id DESC LIMIT $4"
)

LOGINS: Final = both_ways("""
    SELECT *, host(ip) AS address,
           at + make_interval(days => coalesce((SELECT (settings #>> '{retention,logins_days}')::int FROM tenant WHERE id = $1), 365)) AS retained_until
      FROM login_attempt
     WHERE tenant = $1 AND member_id = $2 AND ($3::timestamptz IS NULL OR (at, id) <after> ($3, $4::uuid))
     ORDER BY at <order>, id <order> LIMIT $5
""")

ACTIVITY: Final = both_ways("""
    SELECT *, host(ip) AS address,
           at + make_interval(days => coalesce((SELECT (settings #>> '{retention,activity_days}')::int FROM tenant WHERE id = $1), 365)) AS retained_until
      FROM activity
     WHERE tenant = $1 AND member_id = $2 AND ($3::timestamptz IS NULL OR (at, session_id) <after> ($3, $4))
     ORDER BY at <order>, session_id <order> LIMIT $5
""")


class HistoryStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def session(self, tenant: str, session_id: str, *, now: datetime) -> SessionItem | None:
        """One session; None when unknown."""
        row = await self._db.row(ONE, tenant, now, session_id)
        return None if row is None else _session(row)

    async def sessions(
        self,
        tenant: str,
        member_id: str,
        *,
        now: datetime,
        after: tuple[datetime, str] | None,
        limit: int,
        descending: bool,
    ) -> Sequence[SessionItem]:
        """One page of a member's sessions, by their start."""
        rows = await self._db.fetch(SESSIONS[descending], tenant, now, member_id, *(after or (None, None)), limit)
        return [_session(row) for row in rows]

    async def open_sessions(self, tenant: str, member_id: str, *, now: datetime, limit: int) -> Sequence[SessionItem]:
        """A member's open sessions, the newest first."""
        return [_session(row) for row in await self._db.fetch(OPEN, tenant, now, member_id, limit)]

    async def logins(
        self, tenant: str, member_id: str, *, after: tuple[datetime, UUID] | None, limit: int, descending: bool
    ) -> Sequence[LoginItem]:
        """One page of a member's login attempts, by time."""
        rows = await self._db.fetch(LOGINS[descending], tenant, member_id, *(after or (None, None)), limit)
        plain = [name for name in LoginItem.__struct_fields__ if name != "ip"]
        return [LoginItem(ip=row["address"], **{name: row[name] for name in plain}) for row in rows]

    async def activity(
        self, tenant: str, member_id: str, *, after: tuple[datetime, str] | None, limit: int, descending: bool
    ) -> Sequence[ActivityItem]:
        """One page of a member's counted interactions, by time."""
        rows = await self._db.fetch(ACTIVITY[descending], tenant, member_id, *(after or (None, None)), limit)
        plain = [name for name in ActivityItem.__struct_fields__ if name != "ip"]
        return [ActivityItem(ip=row["address"], **{name: row[name] for name in plain}) for row in rows]


def _session(row: Row) -> SessionItem:
    plain = [name for name in SessionItem.__struct_fields__ if name != "ip"]
    return SessionItem(ip=row["address"], **{name: row[name] for name in plain})
