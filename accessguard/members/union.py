"""Two members made one in PostgreSQL. The rows of both are held by whoever calls, the lesser id first."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.members.latest import LatestStore

MOST: Final = 5_000
"""Rows of the log that are moved at a time: some 100 ms."""

HOLD: Final = "SELECT id FROM member WHERE tenant = $1 AND id = ANY($2::text[]) ORDER BY id FOR UPDATE"

EARLIER: Final = "SELECT report FROM member_merge WHERE tenant = $1 AND id = $2 AND member_id = $3"

# The log, which is long, and names nobody but by id.
LOGS: Final = {
    "attempts": """
        WITH picked AS (SELECT id, at FROM login_attempt WHERE tenant = $1 AND member_id = $2 ORDER BY at DESC, id LIMIT $4), moved AS (
            UPDATE login_attempt a SET member_id = $3 FROM picked s WHERE a.tenant = $1 AND a.id = s.id AND a.at = s.at RETURNING 1
        ) SELECT count(*) FROM moved
    """,
    "activity": """
        WITH picked AS (SELECT session_id, at FROM activity WHERE tenant = $1 AND member_id = $2 ORDER BY at DESC, session_id LIMIT $4), moved AS (
            UPDATE activity a SET member_id = $3 FROM picked s
             WHERE a.tenant = $1 AND a.session_id = s.session_id AND a.at = s.at RETURNING 1
        ) SELECT count(*) FROM moved
    """,
    "violations": """
        WITH picked AS (SELECT id, first_at FROM violation WHERE tenant = $1 AND member_id = $2 ORDER BY last_at DESC, id LIMIT $4), moved AS (
            UPDATE violation v SET member_id = $3 FROM picked s
             WHERE v.tenant = $1 AND v.id = s.id AND v.first_at = s.first_at RETURNING 1
        ) SELECT count(*) FROM moved
    """,
}

# What has a key of its own goes over as it is. A table that a later migration gives to members needs a line here, or is
# named in LEFT (tests/members/test_union.py looks).
MOVED: Final = {
    "device": "UPDATE device SET member_id = $3 WHERE tenant = $1 AND member_id = $2 RETURNING 1",
    "session": "UPDATE session SET member_id = $3 WHERE tenant = $1 AND member_id = $2 RETURNING 1",
    "enrolment_change": "UPDATE enrolment_change SET member_id = $3 WHERE tenant = $1 AND member_id = $2 RETURNING 1",
    "event": "UPDATE event SET member_id = $3 WHERE tenant = $1 AND member_id = $2 RETURNING 1",
    "webhook_delivery": "UPDATE webhook_delivery SET member_id = $3 WHERE tenant = $1 AND member_id = $2 RETURNING 1",
    "pass": "UPDATE pass SET member_id = $3 WHERE tenant = $1 AND member_id = $2 RETURNING 1",
    "challenge": "UPDATE challenge SET member_id = $3 WHERE tenant = $1 AND member_id = $2 RETURNING 1",
    "member_merge": "UPDATE member_merge SET member_id = $3 WHERE tenant = $1 AND member_id = $2 RETURNING 1",
    "member_alias": """
        INSERT INTO member_alias (tenant, member_id, email, at)
        SELECT tenant, $3, email, at FROM member_alias WHERE tenant = $1 AND member_id = $2 ON CONFLICT DO NOTHING RETURNING 1
    """,
    "member_network": """
        INSERT INTO member_network AS n (tenant, member_id, session_id, ip, device_id, first_at, last_at, admitted_at, country, asn,
                                         city, latitude, longitude)
        SELECT tenant, $3, session_id, ip, device_id, first_at, last_at, admitted_at, country, asn, city, latitude, longitude
          FROM member_network WHERE tenant = $1 AND member_id = $2
            ON CONFLICT (tenant, member_id, session_id, ip) DO UPDATE
           SET first_at = least(n.first_at, excluded.first_at), last_at = greatest(n.last_at, excluded.last_at),
               admitted_at = least(n.admitted_at, excluded.admitted_at)
        RETURNING 1
    """,
    "product_access": """
        INSERT INTO product_access AS p (tenant, member_id, product_id, first_at, last_at)
        SELECT tenant, $3, product_id, first_at, last_at FROM product_access WHERE tenant = $1 AND member_id = $2
            ON CONFLICT (tenant, member_id, product_id) DO UPDATE
           SET first_at = least(p.first_at, excluded.first_at), last_at = greatest(p.last_at, excluded.last_at)
        RETURNING 1
    """,
    "run_access": """
        INSERT INTO run_access AS r (tenant, member_id, resource, run, product_id, first_at)
        SELECT tenant, $3, resource, run, product_id, first_at FROM run_access WHERE tenant = $1 AND member_id = $2
            ON CONFLICT (tenant, member_id, resource, run) DO UPDATE
           SET first_at = least(r.first_at, excluded.first_at), product_id = coalesce(r.product_id, excluded.product_id)
        RETURNING 1
    """,
    # What neither list has yet is younger than what pages were last made of, and makes the survivor's come up again.
    "member_page": """
        INSERT INTO member_page (tenant, member_id, pages)
        SELECT $1, $3, jsonb_agg(page ORDER BY page ->> 'at' DESC)
          FROM (SELECT DISTINCT ON (page ->> 'resource') page
                  FROM member_page m, jsonb_array_elements(m.pages) page
                 WHERE m.tenant = $1 AND m.member_id IN ($2, $3)
                 ORDER BY page ->> 'resource', page ->> 'at' DESC) both_of_them
        HAVING count(*) > 0
            ON CONFLICT (tenant, member_id) DO UPDATE SET pages = excluded.pages
        RETURNING 1
    """,
    # Whoever was told of either was told of both.
    "member_risk": """
        INSERT INTO member_risk AS r (tenant, member_id, told_at)
        SELECT tenant, $3, told_at FROM member_risk WHERE tenant = $1 AND member_id = $2
            ON CONFLICT (tenant, member_id) DO UPDATE SET told_at = greatest(r.told_at, excluded.told_at)
        RETURNING 1
    """,
    "comment": "UPDATE comment SET member_id = $3 WHERE tenant = $1 AND member_id = $2 RETURNING 1",
    "member_notice": """
        INSERT INTO member_notice AS n (tenant, member_id, version, shown_at)
        SELECT tenant, $3, version, shown_at FROM member_notice WHERE tenant = $1 AND member_id = $2
            ON CONFLICT (tenant, member_id, version) DO UPDATE SET shown_at = least(n.shown_at, excluded.shown_at)
        RETURNING 1
    """,
    # In the form of its index; what a line says stays as it was said.
    "audit": """
        UPDATE audit SET member_id = $3
         WHERE tenant = $1 AND coalesce(member_id, target_id) = $2
           AND (member_id IS NOT NULL OR target_kind IN ('member', 'sessions'))
        RETURNING 1
    """,
    # Of two open cases of one cause the later one goes on; the other is over, and stays in the log.
    "violation_case": """
        WITH gone AS (
            DELETE FROM violation_case WHERE tenant = $1 AND member_id = $2 RETURNING *
        )
        INSERT INTO violation_case AS c (tenant, member_id, cause, subject, violation_id, first_at, last_at)
        SELECT tenant, $3, cause, subject, violation_id, first_at, last_at FROM gone
            ON CONFLICT (tenant, member_id, cause, subject) DO UPDATE
           SET violation_id = excluded.violation_id, first_at = excluded.first_at, last_at = excluded.last_at
         WHERE c.last_at < excluded.last_at
        RETURNING 1
    """,
    # Counted anew for everybody who reads.
    "unread_member": """
        WITH gone AS (
            DELETE FROM unread_member WHERE tenant = $1 AND member_id = $2
        )
        INSERT INTO unread_moved AS m (tenant, member_id) SELECT $1, id FROM unnest(ARRAY[$2, $3]) AS id ORDER BY id
            ON CONFLICT (tenant, member_id, reader) DO UPDATE SET moved = excluded.moved, at = excluded.at
        RETURNING 1
    """,
}

PLACES: Final = frozenset({"sharing_mark", "page_mark", "tally_past"})
LEFT: Final = (
    frozenset({"enrolment", "login_attempt", "activity", "violation"})
    | {"sharing_day", "member_search", "member_activity", "unread_moved"}
    | PLACES
)
"""Moved by a statement of its own, or made anew of what is moved, or a mere place in an order."""

# Of two enrolments in one product the one that lasts longer: active before frozen before deactivated, then the later end.
ENROLMENTS: Final = """
    WITH theirs AS (
        SELECT * FROM enrolment WHERE tenant = $1 AND member_id = $2
    ), mine AS MATERIALIZED (
        SELECT e.* FROM enrolment e WHERE e.tenant = $1 AND e.member_id = $3
    ), kept AS (
        INSERT INTO enrolment AS e (tenant, member_id, product_id, starts_at, ends_at, purchased_at, status, reopens_at, updated_at)
        SELECT tenant, $3, product_id, starts_at, ends_at, purchased_at, status, reopens_at, $4 FROM theirs ORDER BY product_id
            ON CONFLICT (tenant, member_id, product_id) DO UPDATE
           SET starts_at = excluded.starts_at, ends_at = excluded.ends_at,
               purchased_at = coalesce(least(e.purchased_at, excluded.purchased_at), excluded.purchased_at, e.purchased_at),
               status = excluded.status, reopens_at = excluded.reopens_at, updated_at = excluded.updated_at
         WHERE (array_position(ARRAY['deactivated', 'frozen', 'active'], excluded.status), coalesce(excluded.ends_at, 'infinity'))
             > (array_position(ARRAY['deactivated', 'frozen', 'active'], e.status), coalesce(e.ends_at, 'infinity'))
        RETURNING e.*
    ), noted AS (
        INSERT INTO enrolment_change (tenant, member_id, product_id, id, at, actor, reason, before, after)
        SELECT $1, $3, k.product_id, gen_random_uuid(), $4, $5, $6, to_jsonb(m), to_jsonb(k)
          FROM kept k LEFT JOIN mine m ON m.product_id = k.product_id
    )
    SELECT product_id FROM kept
"""

# `filed_as`: the directory is to take it in anew, also where nothing but its aliases is new.
# What operators and the platform said of the survivor holds; the other's is taken where there is none. An exemption is an
# operator's word on one of them, and lets nobody else in.
FOLD: Final = """
    UPDATE member m
       SET name = CASE WHEN m.name = '' THEN o.name ELSE m.name END, email = coalesce(m.email, o.email),
           phone = coalesce(m.phone, o.phone), phone_e164 = CASE WHEN m.phone IS NULL THEN o.phone_e164 ELSE m.phone_e164 END,
           tags = m.tags || ARRAY(SELECT t FROM unnest(o.tags) t WHERE NOT t = ANY(m.tags)),
           locale = coalesce(m.locale, o.locale), time_zone = coalesce(m.time_zone, o.time_zone),
           country = CASE WHEN coalesce(m.country, m.city) IS NULL THEN o.country ELSE m.country END,
           city = CASE WHEN coalesce(m.country, m.city) IS NULL THEN o.city ELSE m.city END, filed_as = NULL,
           note = left(concat_ws(chr(10), nullif(m.note, ''), nullif(o.note, '')), 10000),
           first_access_at = least(m.first_access_at, o.first_access_at),
           last_access_at = greatest(m.last_access_at, o.last_access_at),
           last_activity_at = greatest(m.last_activity_at, o.last_activity_at),
           last_activity_kind = CASE WHEN o.last_activity_at > coalesce(m.last_activity_at, '-infinity') THEN o.last_activity_kind ELSE m.last_activity_kind END,
           last_activity_session = CASE WHEN o.last_activity_at > coalesce(m.last_activity_at, '-infinity') THEN o.last_activity_session ELSE m.last_activity_session END,
           created_at = least(m.created_at, o.created_at), generation = nextval('generation')
      FROM member o
     WHERE m.tenant = $1 AND m.id = $3 AND o.tenant = $1 AND o.id = $2
    RETURNING NOT m.checks_enabled AS exempt, NOT o.checks_enabled AS other_exempt, o.email, m.email AS kept, m.staff, o.staff AS other_staff
"""

# Found by its former e-mail and by its former id.
ALIAS: Final = """
    INSERT INTO member_alias (tenant, member_id, email, at) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING
"""

TWINS: Final = """
    SELECT a.id AS one, b.id AS other
      FROM device a JOIN device b ON b.tenant = a.tenant AND b.member_id = a.member_id AND b.browser_id = a.browser_id
     WHERE a.tenant = $1 AND a.member_id = $2 AND a.id = ANY($3::uuid[]) AND NOT b.id = ANY($3::uuid[])
       AND a.forgotten_at IS NULL AND b.forgotten_at IS NULL
     ORDER BY a.id, b.id
"""

DEVICES: Final = "SELECT id FROM device WHERE tenant = $1 AND member_id = $2"
OPEN: Final = "SELECT id FROM session WHERE tenant = $1 AND member_id = $2 AND ended_at IS NULL ORDER BY id"
MARKS: Final = """
    SELECT count(*) FROM read_mark r JOIN violation v ON v.tenant = r.tenant AND v.id = r.violation_id
     WHERE r.tenant = $1 AND v.tenant = $1 AND v.member_id = $2
"""
GONE: Final = "DELETE FROM member WHERE tenant = $1 AND id = $2"

NOTE: Final = """
    INSERT INTO member_merge (tenant, id, member_id, at, report) VALUES ($1, $2, $3, $4, $5)
        ON CONFLICT (tenant, id) DO UPDATE SET member_id = excluded.member_id, at = excluded.at, report = excluded.report
"""


class Folded(msgspec.Struct, frozen=True, kw_only=True):
    """What the two were: exempt, staff; and the other's e-mail."""

    exempt: bool
    other_exempt: bool
    staff: bool
    other_staff: bool
    email: str | None
    kept: str | None


class UnionStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach; `old` becomes part of `new`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def hold(self, tenant: str, *ids: str) -> frozenset[str]:
        """Hold the rows of these members; those that are there."""
        return frozenset(row["id"] for row in await self._db.fetch(HOLD, tenant, list(ids)))

    async def earlier(self, tenant: str, old: str, new: str) -> msgspec.Raw | None:
        """What came of the same merge before; None when there was none."""
        found: msgspec.Raw | None = await self._db.value(EARLIER, tenant, old, new)
        return found

    async def move_log(self, tenant: str, old: str, new: str, what: str) -> int:
        """Move at most MOST rows of one of LOGS; how many."""
        return int(await self._db.value(LOGS[what], tenant, old, new, MOST))

    async def marks(self, tenant: str, member_id: str) -> int:
        """How many read marks are on a member's cases."""
        return int(await self._db.value(MARKS, tenant, member_id))

    async def devices(self, tenant: str, member_id: str) -> tuple[UUID, ...]:
        """All devices of a member."""
        return tuple(row["id"] for row in await self._db.fetch(DEVICES, tenant, member_id))

    async def open_sessions(self, tenant: str, member_id: str) -> tuple[str, ...]:
        """Ids of a member's open sessions."""
        return tuple(row["id"] for row in await self._db.fetch(OPEN, tenant, member_id))

    async def move(self, tenant: str, old: str, new: str) -> Mapping[str, int]:
        """Move what is in MOVED; how many rows, by table."""
        return {name: len(await self._db.fetch(statement, tenant, old, new)) for name, statement in MOVED.items()}

    async def enrolments(
        self, tenant: str, old: str, new: str, *, at: datetime, actor: str, reason: str | None
    ) -> tuple[str, ...]:
        """Move enrolments, with their history; the products that came over, or were better."""
        rows = await self._db.fetch(ENROLMENTS, tenant, old, new, at, actor, reason)
        return tuple(row["product_id"] for row in rows)

    async def fold(self, tenant: str, old: str, new: str, *, at: datetime) -> Folded:
        """Make one member's row of two, and the former ways to find the other ones of the survivor; the other is gone."""
        await LatestStore(self._db).settle_some(tenant, (old, new))
        row = await self._db.row(FOLD, tenant, old, new)
        if row is None:
            raise LookupError("a row that is held is not there")
        folded = Folded(**dict(row))
        for text in {folded.email, old} - {None, folded.kept}:
            await self._db.row(ALIAS, tenant, new, text, at)
        await self._db.row(GONE, tenant, old)
        return folded

    async def twins(self, tenant: str, member_id: str, moved: tuple[UUID, ...]) -> tuple[tuple[UUID, UUID], ...]:
        """Devices that came over, each with one of the survivor's that is the same browser."""
        rows = await self._db.fetch(TWINS, tenant, member_id, moved)
        return tuple((row["one"], row["other"]) for row in rows)

    async def note(self, tenant: str, old: str, new: str, report: Any, *, at: datetime) -> None:
        """Remember what became of the old id."""
        await self._db.row(NOTE, tenant, old, new, at, report)
