"""Who is on now, over all members of a tenant, by the newest activity."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

import msgspec

from accessguard.database import Database, Row
from accessguard.members.latest import OWN, RESTS

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


# The open sessions of a member that were active after $3, the newest activity first; none of them is NULL.
OPEN: Final = """
    SELECT jsonb_agg(o ORDER BY o.last_activity_at DESC, o.id) AS sessions FROM (
        SELECT s.id, coalesce(d.name, d.label) AS device, s.device_class, s.app, host(s.ip) AS ip, s.started_at,
               greatest(s.last_activity_at, s.started_at) AS last_activity_at, s.last_activity_kind, s.last_resource
          FROM session s LEFT JOIN device d ON d.id = s.device_id AND d.tenant = $1
         WHERE s.tenant = $1 AND s.member_id = <member> AND s.ended_at IS NULL AND s.expires_at > $2
           AND greatest(s.last_activity_at, s.started_at) > $3
         ORDER BY greatest(s.last_activity_at, s.started_at) DESC, s.id LIMIT $4) o
"""
# Of each of the two places that last activity lies in (members/latest.py), along its index, as many as fit on a page, and
# of those the first; whose sessions have all ended since is passed over.
LISTED: Final = """
    SELECT p.id AS member_id, m.name, m.email, m.staff, p.at, p.sessions
      FROM (SELECT id, at, sessions FROM (
                (SELECT r.member_id AS id, r.at, w.sessions
                   FROM member_activity r, LATERAL (<moving>) w
                  WHERE r.tenant = $1 AND r.at > $3 AND (r.at, r.member_id) < ($5, $6) AND w.sessions IS NOT NULL
                  ORDER BY r.at DESC, r.member_id DESC LIMIT $7)
                UNION ALL
                (SELECT m.id, <own> AS at, w.sessions
                   FROM member m, LATERAL (<resting>) w
                  WHERE m.tenant = $1 AND <own> > $3 AND (<own>, m.id) < ($5, $6) AND <rests> AND w.sessions IS NOT NULL
                  ORDER BY <own> DESC, m.id DESC LIMIT $7)) both_places
             ORDER BY at DESC, id DESC LIMIT $7) p
      JOIN member m ON m.tenant = $1 AND m.id = p.id
     ORDER BY p.at DESC, p.id DESC
"""

# The LIMIT within keeps it from being a join with all sessions.
HAS_ONE: Final = """
    SELECT 1 FROM session s
     WHERE s.tenant = $1 AND s.member_id = <member> AND s.ended_at IS NULL AND s.expires_at > $2
       AND greatest(s.last_activity_at, s.started_at) > $3
     LIMIT 1
"""
COUNT: Final = """
    SELECT count(*) FROM (
        SELECT 1 FROM (
            SELECT r.member_id FROM member_activity r, LATERAL (<moving>) o WHERE r.tenant = $1 AND r.at > $3
            UNION ALL
            SELECT m.id FROM member m, LATERAL (<resting>) o WHERE m.tenant = $1 AND <own> > $3 AND <rests>) both_places
         LIMIT $4) n
"""


def _filled(statement: str, part: str) -> str:
    """The statement with `part` for the members of either place."""
    words = {"<moving>": part.replace("<member>", "r.member_id"), "<resting>": part.replace("<member>", "m.id")}
    for word, text in (words | {"<own>": OWN, "<rests>": RESTS}).items():
        statement = statement.replace(word, text)
    return statement


PAGE: Final = _filled(LISTED, OPEN)
HOW_MANY: Final = _filled(COUNT, HAS_ONE)
LAST: Final = (datetime.max.replace(tzinfo=UTC), "")
"""A place after which all come."""


class PresentStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def listed(
        self, tenant: str, *, now: datetime, since: datetime, after: tuple[datetime, str] | None, limit: int
    ) -> Sequence[Present]:
        """One page of the members who were active after `since` in a session that is open, the newest activity first."""
        at, member = after or LAST
        rows = await self._db.fetch(PAGE, tenant, now, since, MOST_SESSIONS, at, member, limit)
        return [_present(row) for row in rows]

    async def count(self, tenant: str, *, now: datetime, since: datetime, most: int) -> int:
        """How many they are; `most` when they are more."""
        return int(await self._db.value(HOW_MANY, tenant, now, since, most))


def _present(row: Row) -> Present:
    sessions = msgspec.json.decode(row["sessions"], type=tuple[PresentSession, ...])
    plain = [name for name in Present.__struct_fields__ if name != "sessions"]
    return Present(sessions=sessions, **{name: row[name] for name in plain})
