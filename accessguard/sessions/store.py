"""Sessions, logins and last activity in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.sessions.model import Beat, ClaimedDevice, LoginRows, Opening, Replay, Snapshot

# One member, its open sessions (and the one asked for) and its devices, in one snapshot of the database.
# A second index scan by member is cheaper than a join that repeats the member's row.
SNAPSHOT: Final = """
    SELECT jsonb_build_object(
        'tenant', m.tenant, 'member_id', m.id, 'generation', m.generation, 'staff', m.staff, 'tags', m.tags,
        'locale', m.locale, 'time_zone', m.time_zone, 'checks_enabled', m.checks_enabled, 'checks_disabled_until', m.checks_disabled_until,
        'sessions', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'id', s.id, 'device_id', s.device_id, 'device_class', s.device_class, 'app', s.app,
                       'method', s.method, 'started_at', s.started_at, 'expires_at', s.expires_at,
                       'last_activity_at', s.last_activity_at, 'ended_at', s.ended_at, 'end_reason', s.end_reason)), '[]')
              FROM (SELECT * FROM session
                     WHERE tenant = $1 AND member_id = m.id AND ended_at IS NULL
                     ORDER BY started_at DESC, id DESC LIMIT 1000) s),
        'devices', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'id', d.id, 'browser_id', d.browser_id, 'access', d.access, 'label', coalesce(d.name, d.label), 'browser', d.browser,
                       'os', d.os, 'device_class', d.device_class, 'admitted_at', d.admitted_at,
                       'last_seen_at', d.last_seen_at)), '[]')
              FROM (SELECT * FROM device
                     WHERE tenant = $1 AND member_id = m.id AND forgotten_at IS NULL
                     ORDER BY last_seen_at DESC, id LIMIT 1000) d))
      FROM member m WHERE m.tenant = $1 AND m.id = $2
"""

# The same for a check that knows only the session's id, which comes along even when it has ended: in one round trip.
BY_SESSION: Final = (
    SNAPSHOT.replace("m.id = $2", "m.id = (SELECT member_id FROM session WHERE tenant = $1 AND id = $2)")
    .replace(
        "FROM (SELECT * FROM session",
        "FROM (SELECT * FROM session WHERE tenant = $1 AND id = $2 AND ended_at IS NOT NULL UNION ALL (SELECT * FROM session",
    )
    .replace("LIMIT 1000) s)", "LIMIT 1000)) s)")
)

OPENING: Final = SNAPSHOT.replace(
    "FROM member m WHERE",
    """ AS snapshot,
           (SELECT jsonb_build_object('id', c.id, 'member_id', c.member_id, 'browser_id', c.browser_id,
                                      'secret_hash', encode(c.secret_hash, 'base64'), 'rotated_at', c.rotated_at,
                                      'previous_hash', encode(c.previous_hash, 'base64'),
                                      'forgotten', c.forgotten_at IS NOT NULL)
              FROM device c WHERE c.tenant = $1 AND c.id = $3) AS claimed,
           (SELECT member_id FROM session WHERE tenant = $1 AND id = $4) AS owner
      FROM member m WHERE""",
)

REPLAY: Final = "SELECT fingerprint, salt, answer FROM login_key WHERE tenant = $1 AND attempt_id = $2"

LOCK: Final = "SELECT 1 FROM member WHERE tenant = $1 AND id = $2 FOR UPDATE"

# Everything a login leaves behind, or nothing: the first step takes the member's row, and only at the generation
# that the decision was made on. Whoever comes second finds another generation and decides again.
RECORD: Final = """
    WITH claim AS (
        UPDATE member
           SET generation = nextval('generation'),
               first_access_at = coalesce(first_access_at, CASE WHEN $6::jsonb IS NOT NULL AND $10::boolean THEN $9::timestamptz END),
               last_access_at = CASE WHEN $6::jsonb IS NOT NULL AND $10 THEN greatest(last_access_at, $9::timestamptz) ELSE last_access_at END
         WHERE tenant = $1 AND id = $2 AND generation = $3
        RETURNING generation
    ), attempted AS (
        INSERT INTO login_attempt (tenant, id, at, member_id, identifier_hash, outcome, failure_reason, method, app, host, ip,
                                   user_agent, browser, os, device_class, device_id, device_new, device_token, session_id, decision, code,
                                   rule_id, rule_version, exempt, degraded)
        SELECT $1, r.id, r.at, r.member_id, r.identifier_hash, r.outcome, r.failure_reason, r.method, r.app, r.host, r.ip,
               r.user_agent, r.browser, r.os, r.device_class, r.device_id, r.device_new, r.device_token, r.session_id, r.decision, r.code,
               r.rule_id, r.rule_version, r.exempt, r.degraded
          FROM claim, jsonb_populate_record(NULL::login_attempt, $4) r
    ), recognised AS (
        INSERT INTO device AS d (tenant, id, member_id, browser_id, secret_hash, rotated_at, label, browser, browser_version, os,
                                 device_class, model, first_seen_at, last_seen_at, last_ip, admitted_at)
        SELECT $1, r.id, r.member_id, r.browser_id, r.secret_hash, r.rotated_at, r.label, r.browser, r.browser_version, r.os,
               r.device_class, r.model, r.first_seen_at, r.last_seen_at, r.last_ip, r.admitted_at
          FROM claim, jsonb_populate_record(NULL::device, $5) r WHERE $5::jsonb IS NOT NULL
            ON CONFLICT (tenant, id) DO UPDATE
           SET previous_hash = d.secret_hash, secret_hash = excluded.secret_hash, rotated_at = excluded.rotated_at,
               label = excluded.label, browser = excluded.browser, browser_version = excluded.browser_version, os = excluded.os,
               device_class = excluded.device_class, model = coalesce(excluded.model, d.model),
               last_seen_at = greatest(d.last_seen_at, excluded.last_seen_at), last_ip = excluded.last_ip,
               admitted_at = excluded.admitted_at
    ), closed AS (
        UPDATE session s SET ended_at = $9, end_reason = e.reason
          FROM claim, jsonb_to_recordset($7) AS e(id text, reason text)
         WHERE s.tenant = $1 AND s.id = e.id AND s.ended_at IS NULL
    ), opened AS (
        INSERT INTO session AS s (tenant, id, member_id, device_id, device_class, app, host, method, ip, user_agent,
                                  started_at, expires_at)
        SELECT $1, r.id, r.member_id, r.device_id, r.device_class, r.app, r.host, r.method, r.ip, r.user_agent,
               r.started_at, r.expires_at
          FROM claim, jsonb_populate_record(NULL::session, $6) r WHERE $6::jsonb IS NOT NULL
            ON CONFLICT (tenant, id) DO UPDATE
           SET device_id = excluded.device_id, device_class = excluded.device_class, app = excluded.app, host = excluded.host,
               method = excluded.method, ip = excluded.ip, user_agent = excluded.user_agent, started_at = excluded.started_at,
               expires_at = excluded.expires_at, last_activity_at = NULL, last_activity_kind = NULL, last_resource = NULL,
               ended_at = NULL, end_reason = NULL, ended_by = NULL,
               -- another member was faster to take this id: NULL is refused, and with it the whole login
               member_id = CASE WHEN s.member_id = excluded.member_id THEN s.member_id END
    ), found AS (
        SELECT v.id FROM claim, LATERAL record_violations($1, $8, $12) v WHERE jsonb_array_length($8) > 0
    ), remembered AS (
        INSERT INTO login_key (tenant, attempt_id, fingerprint, salt, answer, at)
        SELECT $1, r.attempt_id, r.fingerprint, r.salt,
               jsonb_set(r.answer, '{violations}', (SELECT coalesce(jsonb_agg(id), '[]') FROM found)), r.at
          FROM claim, jsonb_populate_record(NULL::login_key, $11) r WHERE $11::jsonb IS NOT NULL
    )
    SELECT generation, ARRAY(SELECT id FROM found) AS violations FROM claim
"""

RECORD_FAILURE: Final = """
    WITH attempted AS (
        INSERT INTO login_attempt (tenant, id, at, member_id, identifier_hash, outcome, failure_reason, method, app, host, ip,
                                   user_agent, browser, os, device_class, device_id, device_new, device_token, session_id, decision, code,
                                   rule_id, rule_version, exempt, degraded)
        SELECT $1, r.id, r.at, r.member_id, r.identifier_hash, r.outcome, r.failure_reason, r.method, r.app, r.host, r.ip,
               r.user_agent, r.browser, r.os, r.device_class, r.device_id, false, r.device_token, NULL, r.decision, r.code,
               r.rule_id, r.rule_version, r.exempt, r.degraded
          FROM jsonb_populate_record(NULL::login_attempt, $2) r
    )
    INSERT INTO login_key (tenant, attempt_id, fingerprint, salt, answer, at)
    SELECT $1, r.attempt_id, r.fingerprint, r.salt, r.answer, r.at
      FROM jsonb_populate_record(NULL::login_key, $3) r WHERE $3::jsonb IS NOT NULL
"""

# The member's row before the session's, as at a login: two that wait for each other would be two that fail.
END: Final = """
    WITH owner AS (
        SELECT id FROM member
         WHERE tenant = $1 AND id = (SELECT member_id FROM session WHERE tenant = $1 AND id = $2)
           FOR NO KEY UPDATE
    ), ending AS (
        UPDATE session s SET ended_at = $3, end_reason = $4, ended_by = $5
          FROM owner o WHERE s.tenant = $1 AND s.id = $2 AND s.member_id = o.id AND s.ended_at IS NULL
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
    ), changed AS (
        UPDATE member SET generation = nextval('generation')
         WHERE tenant = $1 AND id = $2 AND EXISTS (SELECT FROM ending)
    )
    SELECT id FROM ending ORDER BY id
"""

# Times only go forward, rows are taken in the order of their keys, members before sessions as at a login, and ids that
# are gone are passed over, so flushes and logins of several workers neither deadlock nor undo each other. The 30 s are
# tested again here, for workers without Valkey. One JSON text is a tenth of the work of nine arrays for the driver.
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
    ), members AS (
        UPDATE member m
           SET last_activity_at = n.at, last_activity_kind = n.kind, last_activity_session = n.id
          FROM (SELECT DISTINCT ON (tenant, member_id) * FROM moved ORDER BY tenant, member_id, at DESC, id) n
         WHERE m.tenant = n.tenant AND m.id = n.member_id
           AND (m.last_activity_at IS NULL OR m.last_activity_at < n.at)
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

NEWEST: Final = "SELECT last_value FROM generation"


class SessionStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database, *, quiet: timedelta) -> None:
        self._db = db
        self._quiet = quiet

    async def snapshot(self, tenant: str, session_id: str, *, timeout_s: float) -> Snapshot | None:
        """The member of a session with all that a verdict needs; None for an unknown session."""
        found = await self._db.value(BY_SESSION, tenant, session_id, timeout_s=timeout_s)
        return None if found is None else msgspec.json.decode(found, type=Snapshot)

    async def opening(
        self, tenant: str, member_id: str, *, device_id: UUID | None, session_id: str | None
    ) -> Opening | None:
        """What a login is decided on, with whose the named device and session are; None for an unknown member."""
        row = await self._db.row(OPENING, tenant, member_id, device_id, session_id)
        if row is None:
            return None
        return Opening(
            snapshot=msgspec.json.decode(row["snapshot"], type=Snapshot),
            claimed=None if row["claimed"] is None else msgspec.json.decode(row["claimed"], type=ClaimedDevice),
            session_owner=row["owner"],
        )

    async def replay(self, tenant: str, attempt_id: UUID) -> Replay | None:
        """The login recorded under that attempt id before, if any."""
        row = await self._db.row(REPLAY, tenant, attempt_id)
        return None if row is None else Replay(fingerprint=row["fingerprint"], salt=row["salt"], answer=row["answer"])

    async def record(self, tenant: str, member_id: str, generation: int, rows: LoginRows) -> tuple[UUID, ...] | None:
        """Write a login decided at `generation`; answer its violations, or None when the member has changed since."""
        row = await self._db.row(
            RECORD,
            tenant,
            member_id,
            generation,
            rows.attempt,
            rows.device,
            rows.session,
            rows.ended,
            rows.violations,
            rows.attempt.at,
            rows.attempt.method != "impersonation",
            rows.key,
            self._quiet,
        )
        return None if row is None else tuple(row["violations"])

    async def record_failure(self, tenant: str, rows: LoginRows) -> None:
        """Write an attempt that the platform itself refused; it changes no session, no device and no verdict."""
        await self._db.row(RECORD_FAILURE, tenant, rows.attempt, rows.key)

    async def lock(self, tenant: str, member_id: str) -> None:
        """Hold the member's row until the transaction ends."""
        await self._db.row(LOCK, tenant, member_id)

    async def end(self, tenant: str, session_id: str, *, at: datetime, reason: str, by: str) -> str | None:
        """End a session; the member's id, or None when it was not open."""
        member_id: str | None = await self._db.value(END, tenant, session_id, at, reason, by)
        return member_id

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

    async def newest_generation(self) -> int:
        """The number of the last change of anything."""
        return int(await self._db.value(NEWEST))

    async def changed(self, since: int, *, most: int) -> Sequence[tuple[str, str, int]]:
        """At most so many members whose generation is past `since`: (tenant, member, generation), the lowest first."""
        return [(row["tenant"], row["id"], row["generation"]) for row in await self._db.fetch(CHANGED, since, most)]
