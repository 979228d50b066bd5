"""Sessions, logins and last activity in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import reduce
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.rules.needs import NOTHING, STORED, WIDE, Need
from accessguard.sessions.evidence import PARTS, PASSES, WANTED
from accessguard.sessions.model import Beat, Snapshot

# One member, its open sessions (and the one asked for) and its devices, in one snapshot of the database.
# A second index scan by member is cheaper than a join that repeats the member's row.
MEMBER: Final = """
    SELECT jsonb_build_object(
        'tenant', m.tenant, 'member_id', m.id, 'generation', m.generation, 'staff', m.staff, 'tags', m.tags,
        'locale', m.locale, 'time_zone', m.time_zone, 'checks_enabled', m.checks_enabled, 'checks_disabled_until', m.checks_disabled_until,
        'sessions', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'id', s.id, 'device_id', s.device_id, 'device_class', s.device_class, 'app', s.app,
                       'method', s.method, 'started_at', s.started_at, 'expires_at', s.expires_at,
                       'last_activity_at', s.last_activity_at, 'last_activity_kind', s.last_activity_kind,
                       'ended_at', s.ended_at, 'end_reason', s.end_reason)), '[]')
              FROM (SELECT * FROM session
                     WHERE tenant = $1 AND member_id = m.id AND ended_at IS NULL
                     ORDER BY started_at DESC, id DESC LIMIT 1000) s),
        'devices', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'id', d.id, 'browser_id', d.browser_id, 'access', d.access, 'label', coalesce(d.name, d.label), 'browser', d.browser,
                       'os', d.os, 'device_class', d.device_class, 'admitted_at', d.admitted_at,
                       'first_admitted_at', d.first_admitted_at, 'last_seen_at', d.last_seen_at,
                       'rotated_at', d.rotated_at, 'shown', d.shown_at IS NOT NULL, 'marks', replace(encode(
                           substr(d.secret_hash, 1, 8) || coalesce(substr(d.previous_hash, 1, 8), '\\x0000000000000000')
                           || coalesce(d.older_hashes, ''), 'base64'), chr(10), ''), 'merged_ids', d.merged_ids)), '[]')
              FROM (SELECT * FROM device
                     WHERE tenant = $1 AND member_id = m.id AND forgotten_at IS NULL
                     ORDER BY last_seen_at DESC, id LIMIT 1000) d),
        <past>)
      FROM <wanted>member m WHERE m.tenant = $1 AND m.id = $2
"""

# With its passes, and with all that rules look at besides: a statement of so many parts takes twice as long, even where
# none of them is wanted.
PLAIN: Final = MEMBER.replace("<past>", f"'parts', 4, 'evidence', jsonb_build_object('passes', {PASSES})").replace(
    "<wanted>", ""
)
SNAPSHOT: Final = MEMBER.replace("<past>", f"'parts', w.needs, 'evidence', jsonb_build_object({PARTS})").replace(
    "<wanted>", f"{WANTED}, "
)


def by_session(snapshot: str) -> str:
    """The same for a check that knows only the session's id, which comes along even when it has ended: in one round trip."""
    both = "FROM (SELECT * FROM session WHERE tenant = $1 AND id = $2 AND ended_at IS NOT NULL UNION ALL (SELECT * FROM session"
    found = snapshot.replace("m.id = $2", "m.id = (SELECT member_id FROM session WHERE tenant = $1 AND id = $2)")
    return found.replace("FROM (SELECT * FROM session", both).replace("LIMIT 1000) s)", "LIMIT 1000)) s)")


PLAIN_BY_SESSION: Final = by_session(PLAIN)
BY_SESSION: Final = by_session(SNAPSHOT)


def by_sessions(snapshot: str) -> str:
    """The same for many at once, in the order of asking: each by its keys, whatever the planner thinks of their number."""
    own = ("$1", "a.tenant"), ("$2", "a.session_id"), ("$3", "a.needs"), ("$4", "a.since")
    one = reduce(lambda text, pair: text.replace(*pair), own, by_session(snapshot))
    return f"""
        SELECT ({one}) AS snapshot
          FROM ROWS FROM (jsonb_to_recordset($1) AS (tenant text, session_id text, needs integer, since timestamptz)) WITH ORDINALITY AS a
         ORDER BY a.ordinality
    """  # noqa: S608 - all parts are constants


PLAIN_BY_SESSIONS: Final = by_sessions(PLAIN)
BY_SESSIONS: Final = by_sessions(SNAPSHOT)

# The member's row before the session's, as at a login: two that wait for each other would be two that fail.
# One that was replaced by a login at the same instant, and might come back (30 s), is ended for good.
END: Final = """
    WITH owner AS (
        SELECT id FROM member
         WHERE tenant = $1 AND id = (SELECT member_id FROM session WHERE tenant = $1 AND id = $2)
           FOR NO KEY UPDATE
    ), ending AS (
        UPDATE session s SET ended_at = $3, end_reason = $4, ended_by = $5
          FROM owner o
         WHERE s.tenant = $1 AND s.id = $2 AND s.member_id = o.id
           AND (s.ended_at IS NULL OR (s.ended_by = 'twin' AND s.started_at >= $3::timestamptz - interval '30 seconds'))
        RETURNING s.member_id
    ), changed AS (
        UPDATE member SET generation = nextval('generation')
         WHERE tenant = $1 AND id IN (SELECT member_id FROM ending)
    )
    SELECT member_id FROM ending
"""

END_ALL: Final = """
    WITH ending AS (
        UPDATE session SET ended_at = $3, end_reason = $4, ended_by = $5
         WHERE tenant = $1 AND member_id = $2 AND ended_at IS NULL
        RETURNING id
    ), replaced AS (
        UPDATE session SET ended_by = $5
         WHERE tenant = $1 AND member_id = $2 AND ended_by = 'twin' AND started_at >= $3::timestamptz - interval '30 seconds'
    ), changed AS (
        UPDATE member SET generation = nextval('generation')
         WHERE tenant = $1 AND id = $2 AND EXISTS (SELECT FROM ending)
    )
    SELECT id FROM ending ORDER BY id
"""

# Times only go forward, rows are taken in the order of their keys, members before sessions as at a login, and ids that
# are gone are passed over, so flushes and logins of several workers neither deadlock nor undo each other. The 30 s are
# tested again here, for workers without Valkey. A member's last activity lies beside its row (members/latest.py). What outlives the raw rows moves with them: days, products, runs. One JSON text is a tenth of the work of nine arrays for the driver.
# The planner takes every step for one of a few rows and would compare each with each: so no step joins another one
# (`IN ... IS TRUE` is looked up, a join would not be), and what must come first is counted.
FLUSH: Final = """
    WITH asked AS MATERIALIZED (
        SELECT * FROM json_to_recordset($1)
            AS b(tenant text, member_id text, session_id text, at timestamptz, kind text, resource text, product_id text, ip inet)
    ), beat AS (
        SELECT DISTINCT ON (tenant, session_id) * FROM asked ORDER BY tenant, session_id, at DESC
    ), held_members AS (
        SELECT m.tenant, m.id FROM member m
         WHERE (m.tenant, m.id) IN (SELECT tenant, member_id FROM beat)
         ORDER BY m.tenant, m.id FOR NO KEY UPDATE OF m
    ), held AS (
        SELECT b.* FROM beat b JOIN session s ON s.tenant = b.tenant AND s.id = b.session_id AND s.member_id = b.member_id
         WHERE (SELECT count(*) FROM held_members) > 0
         ORDER BY s.tenant, s.id FOR NO KEY UPDATE OF s
    ), moved AS (
        UPDATE session s SET last_activity_at = h.at, last_activity_kind = h.kind, last_resource = h.resource
          FROM held h
         WHERE s.tenant = h.tenant AND s.id = h.session_id
           AND (s.last_activity_at IS NULL OR s.last_activity_at <= h.at - $2::interval)
        RETURNING s.tenant, s.member_id, s.id, s.device_id, h.at, h.kind, h.ip
    ), kept AS (
        INSERT INTO activity (tenant, member_id, session_id, at, kind, resource, product_id, ip)
        SELECT a.tenant, a.member_id, a.session_id, a.at, a.kind, a.resource, a.product_id, a.ip
          FROM asked a WHERE ((a.tenant, a.session_id) IN (SELECT tenant, session_id FROM held)) IS TRUE
            ON CONFLICT DO NOTHING
        RETURNING tenant, member_id, at, kind, product_id, left(split_part(resource, '?', 1), 400) AS resource,
                  left((regexp_match(resource, '[?&]run=([^&#]+)'))[1], 128) AS run
    ), tallied AS (
        INSERT INTO tally_new (tenant, at, kind, one, amount)
        SELECT tenant, date_bin('15 minutes', at, '2000-01-01'), 'activity', kind, count(*) FROM kept GROUP BY 1, 2, 4
    ), used AS (
        INSERT INTO product_access AS p (tenant, member_id, product_id, first_at, last_at)
        SELECT tenant, member_id, product_id, min(at), max(at) FROM kept WHERE product_id IS NOT NULL
         GROUP BY tenant, member_id, product_id ORDER BY tenant, member_id, product_id
            ON CONFLICT (tenant, member_id, product_id) DO UPDATE
           SET first_at = least(p.first_at, excluded.first_at), last_at = greatest(p.last_at, excluded.last_at)
         WHERE p.first_at > excluded.first_at OR p.last_at < excluded.last_at
    ), entered AS (
        INSERT INTO run_access AS r (tenant, member_id, resource, run, product_id, first_at)
        SELECT tenant, member_id, resource, run, min(product_id), min(at) FROM kept WHERE run IS NOT NULL AND resource IS NOT NULL
         GROUP BY tenant, member_id, resource, run ORDER BY tenant, member_id, resource, run
            ON CONFLICT (tenant, member_id, resource, run) DO UPDATE SET first_at = excluded.first_at
         WHERE r.first_at > excluded.first_at
    ), members AS (
        INSERT INTO member_activity AS a (tenant, member_id, at, kind, session_id)
        SELECT tenant, member_id, at, kind, id
          FROM (SELECT DISTINCT ON (tenant, member_id) * FROM moved ORDER BY tenant, member_id, at DESC, id) n
         WHERE coalesce((SELECT m.last_activity_at FROM member m WHERE m.tenant = n.tenant AND m.id = n.member_id), '-infinity') < n.at
            ON CONFLICT (member_id, tenant) DO UPDATE
           SET at = excluded.at, kind = excluded.kind, session_id = excluded.session_id
         WHERE a.at < excluded.at
    ), held_devices AS (
        SELECT d.tenant, d.id FROM device d
         WHERE (d.tenant, d.id) IN (SELECT tenant, device_id FROM moved WHERE device_id IS NOT NULL)
         ORDER BY d.tenant, d.id FOR NO KEY UPDATE OF d
    ), devices AS (
        UPDATE device d SET last_seen_at = greatest(d.last_seen_at, n.at), last_ip = coalesce(n.ip, d.last_ip)
          FROM (SELECT DISTINCT ON (tenant, device_id) * FROM moved ORDER BY tenant, device_id, at DESC, id) n
         WHERE (SELECT count(*) FROM held_devices) > 0
           AND d.tenant = n.tenant AND d.id = n.device_id
    )
    SELECT count(*) FROM moved
"""

# "AG" 2: any number works, as long as every worker takes the same.
UPKEEP_LOCK: Final = 0x4147_0002

PARTITIONED: Final = ("login_attempt", "activity", "violation")
MONTHS_AHEAD: Final = 2

PARTITION: Final = """
    SELECT ensure_partition($1, (date_trunc('month', $2::timestamptz) + make_interval(months => $3))::date)
     WHERE pg_try_advisory_xact_lock($4)
"""

CHANGED: Final = """
    SELECT tenant, id, generation FROM member WHERE generation > $1 ORDER BY generation LIMIT $2
"""

# What was merged is as blocked as the device that it became part of.
BLOCKED: Final = """
    SELECT d.id FROM device d
     WHERE d.tenant = $1 AND d.id = ANY($2::uuid[])
       AND coalesce((SELECT s.access FROM device s WHERE s.tenant = $1 AND s.id = d.merged_into), d.access) = 'blocked'
"""

# The index `device_blocked` (migrations/indexes.py) has the same condition.
BLOCKS: Final = """
    SELECT d.tenant, d.id, d.merged_ids, m.generation, ARRAY(
               (SELECT s.id FROM session s
                 WHERE s.tenant = d.tenant AND s.member_id = d.member_id AND s.device_id = d.id AND s.ended_at IS NULL
                 ORDER BY s.started_at DESC LIMIT 20)
                UNION
               (SELECT s.id FROM (SELECT id, device_id FROM session WHERE tenant = d.tenant AND member_id = d.member_id
                                   ORDER BY started_at DESC LIMIT 50) s
                 WHERE s.device_id = d.id LIMIT 20)) AS sessions
      FROM (SELECT * FROM device WHERE access = 'blocked' AND forgotten_at IS NULL
             ORDER BY access_at DESC LIMIT $1) d
      JOIN member m ON m.tenant = d.tenant AND m.id = d.member_id
     ORDER BY d.access_at
"""
MOST_BLOCKS: Final = 2_000
"""Blocks that a worker reads when it starts, and after a flush of Valkey: some 30 ms of PostgreSQL's time."""
BLOCKED_S: Final = 0.5
ERASED: Final = "SELECT id FROM erasure WHERE generation > $1 ORDER BY generation LIMIT 10000"

NEWEST: Final = "SELECT last_value FROM generation"


# Of logins of one browser at once, the session that it kept takes the place of the one that was last, which has to be
# there: what was ended besides stays so. The device's token is still the one that they were given (5 s: they are not
# decided in the order in which they came).
COME_BACK: Final = """
    WITH owner AS (
        SELECT m.id FROM member m
         WHERE m.tenant = $1 AND m.id = (
               SELECT s.member_id FROM session s
                 JOIN device d ON d.tenant = s.tenant AND d.id = s.device_id
                WHERE s.tenant = $1 AND s.id = $2 AND s.ended_by = 'twin' AND s.started_at >= $4 AND s.expires_at > $3
                  AND d.forgotten_at IS NULL AND d.rotated_at <= s.started_at + interval '5 seconds'
                  AND EXISTS (SELECT FROM session o
                               WHERE o.tenant = $1 AND o.member_id = s.member_id AND o.device_id = s.device_id AND o.ended_at IS NULL))
           FOR NO KEY UPDATE
    ), back AS (
        UPDATE session s SET ended_at = NULL, end_reason = NULL, ended_by = NULL
          FROM owner o WHERE s.tenant = $1 AND s.id = $2 AND s.member_id = o.id AND s.ended_by = 'twin'
        RETURNING s.member_id, s.device_id
    ), closed AS (
        UPDATE session s SET ended_at = $3, end_reason = 'replaced', ended_by = 'twin'
          FROM back b
         WHERE s.tenant = $1 AND s.member_id = b.member_id AND s.device_id = b.device_id AND s.id <> $2 AND s.ended_at IS NULL
        RETURNING s.id
    ), changed AS (
        UPDATE member SET generation = nextval('generation') WHERE tenant = $1 AND id IN (SELECT member_id FROM back)
    )
    SELECT ARRAY(SELECT id FROM closed ORDER BY id) AS closed FROM back
"""


DECODE: Final = msgspec.json.Decoder(Snapshot).decode


class Asked(msgspec.Struct, frozen=True):
    """A session whose member is wanted, with what of its past: `needs` says which parts, of networks those used after `since`."""

    tenant: str
    session_id: str
    needs: int = NOTHING
    since: datetime | None = None


class SessionStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @property
    def out(self) -> bool:
        """Whether PostgreSQL is left alone because it does not answer."""
        return self._db.breaker.open

    async def snapshot(
        self,
        tenant: str,
        session_id: str,
        *,
        timeout_s: float,
        needs: Need = NOTHING,
        since: datetime | None = None,
    ) -> Snapshot | None:
        """The member of a session with all that a verdict needs; None for an unknown session.

        Of its past there is what `needs` says, of networks those used after `since` (None: all of them).
        """
        if needs & WIDE:
            found = await self._db.value(BY_SESSION, tenant, session_id, needs & STORED, since, timeout_s=timeout_s)
        else:
            found = await self._db.value(PLAIN_BY_SESSION, tenant, session_id, timeout_s=timeout_s)
        return _snapshot(found)

    async def snapshots(self, asked: Sequence[Asked], *, timeout_s: float) -> list[Snapshot | None]:
        """The members of many sessions at once, in the order of asking."""
        wide = any(each.needs & WIDE for each in asked)
        rows = await self._db.fetch(BY_SESSIONS if wide else PLAIN_BY_SESSIONS, asked, timeout_s=timeout_s)
        return [_snapshot(row["snapshot"]) for row in rows]

    async def blocked(self, tenant: str, device_ids: Sequence[UUID]) -> frozenset[UUID]:
        """Which of these devices are blocked."""
        rows = await self._db.fetch(BLOCKED, tenant, list(device_ids), timeout_s=BLOCKED_S)
        return frozenset(row["id"] for row in rows)

    async def blocks(self) -> Sequence[tuple[str, Sequence[UUID], int, Sequence[str]]]:
        """The newest blocks, the oldest of them first: tenant, every id of the device, the member's generation, its newest open sessions."""
        rows = await self._db.fetch(BLOCKS, MOST_BLOCKS)
        return [(row["tenant"], (row["id"], *row["merged_ids"]), row["generation"], row["sessions"]) for row in rows]

    async def end(self, tenant: str, session_id: str, *, at: datetime, reason: str, by: str) -> str | None:
        """End a session; the member's id, or None when it was not open."""
        member_id: str | None = await self._db.value(END, tenant, session_id, at, reason, by)
        return member_id

    async def come_back(self, tenant: str, session_id: str, *, at: datetime, since: datetime) -> tuple[str, ...] | None:
        """Open a session again that a login at the same instant replaced, if it began after `since`.

        The sessions that it takes the place of, or None when it may not come back.
        """
        row = await self._db.row(COME_BACK, tenant, session_id, at, since)
        return None if row is None else tuple(row["closed"])

    async def end_all(self, tenant: str, member_id: str, *, at: datetime, reason: str, by: str) -> tuple[str, ...]:
        """End every open session of a member; their ids."""
        rows = await self._db.fetch(END_ALL, tenant, member_id, at, reason, by)
        return tuple(row["id"] for row in rows)

    async def flush(self, beats: Sequence[Beat], interval: timedelta) -> int:
        """Move last activity forward for all of them at once; how many sessions moved."""
        moved: int = await self._db.value(FLUSH, beats, interval)
        return moved

    async def ensure_partition(self, parent: str, *, at: datetime, ahead: int) -> None:
        """Make the partition of the month that is `ahead` of the one of `at`, unless another worker is at it.

        Raises GuardError, too, when rows of that month already lie in the default partition.
        """
        await self._db.row(PARTITION, parent, at, ahead, UPKEEP_LOCK)

    async def erased(self, since: int) -> Sequence[UUID]:
        """Erasures, of members or tenants, whose generation is past `since`; 10,000 at most."""
        return [row["id"] for row in await self._db.fetch(ERASED, since)]

    async def newest_generation(self) -> int:
        """The number of the last change of anything."""
        return int(await self._db.value(NEWEST))

    async def changed(self, since: int, *, most: int) -> Sequence[tuple[str, str, int]]:
        """At most so many members whose generation is past `since`: (tenant, member, generation), the lowest first."""
        return [(row["tenant"], row["id"], row["generation"]) for row in await self._db.fetch(CHANGED, since, most)]


def _snapshot(found: msgspec.Raw | None) -> Snapshot | None:
    return None if found is None else DECODE(found)
