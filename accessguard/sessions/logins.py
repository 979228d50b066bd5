"""What a login reads and what it leaves behind in PostgreSQL; each statement serves as many logins as are handed to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database, Row
from accessguard.rules.needs import WIDE
from accessguard.sessions.failures import FAILURES, Failures
from accessguard.sessions.model import ClaimedDevice, KeyRow, Knock, LoginRows, Opening, Reading, Replay, Snapshot
from accessguard.sessions.networks import AGAIN
from accessguard.sessions.store import PLAIN, SNAPSHOT

FAILED: Final = (
    FAILURES.replace("$1", "a.tenant")
    .replace("$2", "a.member_id")
    .replace("$3", "a.failures_since")
    .replace("$4", "a.first_ip")
    .replace("$5", "a.last_ip")
)

# One row for each login asked about, in the order of asking. The token of a merged device that has been used since is
# exchanged for one of the survivor's: the successor arrived when the survivor was seen with it. Every part is a subquery by key, so that no plan can join.
ASKED: Final = """
    SELECT (<snapshot>) AS snapshot,
           (SELECT json_build_object('id', c.id, 'member_id', c.member_id, 'browser_id', c.browser_id,
                                     'secret_hash', encode(c.secret_hash, 'base64'), 'rotated_at', c.rotated_at,
                                     'previous_hash', encode(c.previous_hash, 'base64'),
                                     'older_hashes', coalesce(encode(c.older_hashes, 'base64'), ''),
                                     'seed', encode(CASE WHEN s.id IS NULL THEN c.secret_seed ELSE s.secret_seed END, 'base64'),
                                     'survivor_hash', encode(s.secret_hash, 'base64'), 'survivor_rotated_at', s.rotated_at,
                                     'shown', c.shown_at IS NOT NULL OR (c.rotated_at >= c.forgotten_at
                                              AND (s.secret_hash <> c.secret_hash OR s.shown_at IS NOT NULL)) IS TRUE,
                                     'forgotten', CASE WHEN c.merged_into IS NULL THEN c.forgotten_at IS NOT NULL
                                                       ELSE s.forgotten_at IS NOT NULL OR s.id IS NULL END)
              FROM device c LEFT JOIN device s ON s.tenant = c.tenant AND s.id = c.merged_into
             WHERE c.tenant = a.tenant AND c.id = CASE WHEN a.twin_since IS NULL THEN a.device_id ELSE (
                    SELECT t.id FROM device t
                     WHERE t.tenant = a.tenant AND t.member_id = a.member_id AND t.last_seen_at >= a.twin_since
                       AND t.first_seen_at >= a.twin_since - interval '1 minute' AND t.forgotten_at IS NULL AND t.previous_hash IS NULL
                       AND t.last_ip = a.ip AND t.browser = a.browser AND t.os = a.os AND t.browser_version = a.browser_version
                     ORDER BY t.last_seen_at DESC, t.id LIMIT 1) END) AS claimed,
           (SELECT s.member_id FROM session s WHERE s.tenant = a.tenant AND s.id = a.session_id) AS owner,
           (SELECT json_build_object('fingerprint', encode(k.fingerprint, 'base64'), 'salt', encode(k.salt, 'base64'),
                                     'answer', k.answer)
              FROM login_key k WHERE k.tenant = a.tenant AND k.attempt_id = a.attempt_id) AS replay,
           <failures> AS failures
      FROM ROWS FROM (jsonb_to_recordset($1) AS (tenant text, member_id text, device_id uuid, session_id text, attempt_id uuid,
                                                 failures_since timestamptz, first_ip inet, last_ip inet, needs integer, since timestamptz,
                                                 twin_since timestamptz, ip inet, browser text, browser_version text, os text))
           WITH ORDINALITY AS a
     ORDER BY a.ordinality
"""


def _asked(snapshot: str, failures: str) -> str:
    """The statement with these parts, as they are said of a row that is asked about."""
    parts = {"$1": "a.tenant", "$2": "a.member_id", "$3": "a.needs", "$4": "a.since"}
    for parameter, column in parts.items():
        snapshot = snapshot.replace(parameter, column)
    return ASKED.replace("<snapshot>", snapshot).replace("<failures>", failures)


READ: Final = _asked(SNAPSHOT, f"CASE WHEN a.failures_since IS NOT NULL THEN {FAILED} END")
READ_PLAIN: Final = _asked(PLAIN, "NULL::jsonb")

REMEMBER: Final = """
    INSERT INTO login_key (tenant, attempt_id, fingerprint, salt, answer, at)
    SELECT $1, r.attempt_id, r.fingerprint, r.salt, r.answer, r.at FROM jsonb_populate_record(NULL::login_key, $2) r
"""

EXPIRE: Final = """
    WITH gone AS (
        DELETE FROM login_key WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM login_key WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED))
        RETURNING 1
    )
    SELECT count(*) FROM gone
"""

KEPT: Final = timedelta(hours=72)
"""How long a login that is sent again under its id is answered as it was: a weekend during which a queue stood still."""

# As strong as whatever changes a member, and no stronger: rows that only refer to it need not wait.
LOCK: Final = "SELECT 1 FROM member WHERE tenant = $1 AND id = $2 FOR NO KEY UPDATE"
LOCK_FREE: Final = """
    SELECT m.tenant, m.id FROM member m
     WHERE (m.tenant, m.id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
     ORDER BY m.tenant, m.id FOR NO KEY UPDATE OF m SKIP LOCKED
"""

# Everything that each login leaves behind, or nothing of it: the first step takes the members' rows, in the order of
# their keys, and only at the generation that the decision was made on. A member whom somebody else holds is passed over,
# so nobody waits for a companion's lock. Who comes second finds another generation; both are not among the rows that come
# back. A login without a generation claims nothing: it was refused by the platform and is only recorded.
# Keys that the caller chooses are taken in order too, so that two batches that share some do not wait for each other.
# What is updated is named by a join and by ANY as well: whatever the planner thinks of the join, it goes by the key.
RECORD: Final = f"""
    WITH asked AS MATERIALIZED (
        SELECT a.*, a.ordinality AS place
          FROM ROWS FROM (jsonb_to_recordset($1) AS (tenant text, member_id text, generation bigint, at timestamptz, counted boolean,
                          attempt jsonb, device jsonb, session jsonb, ended jsonb, violations jsonb, key jsonb,
                          network jsonb, challenge jsonb))
               WITH ORDINALITY AS a
    ), held AS MATERIALIZED (
        SELECT m.tenant, m.id, a.place, a.generation, a.at, a.counted
          FROM (SELECT * FROM asked ORDER BY tenant, member_id) a,
               LATERAL (SELECT tenant, id FROM member
                         WHERE tenant = a.tenant AND id = a.member_id AND generation = a.generation
                           FOR NO KEY UPDATE SKIP LOCKED) m
    ), claimed AS (
        UPDATE member m
           SET generation = nextval('generation'),
               first_access_at = CASE WHEN h.counted THEN coalesce(m.first_access_at, h.at) ELSE m.first_access_at END,
               last_access_at = CASE WHEN h.counted THEN greatest(m.last_access_at, h.at) ELSE m.last_access_at END
          FROM held h
         WHERE m.tenant = h.tenant AND m.id = h.id AND m.generation = h.generation
           AND m.generation = ANY(ARRAY(SELECT generation FROM held))
        RETURNING h.place
    ), granted AS MATERIALIZED (
        SELECT * FROM asked WHERE generation IS NULL OR place IN (SELECT place FROM claimed)
    ), attempted AS (
        INSERT INTO login_attempt (tenant, id, at, member_id, identifier_hash, outcome, failure_reason, method, app, host, ip,
                                   user_agent, browser, os, device_class, device_id, device_new, device_token, session_id, decision, code,
                                   rule_id, rule_version, exempt, degraded, counted, country, asn, city)
        SELECT g.tenant, r.id, r.at, r.member_id, r.identifier_hash, r.outcome, r.failure_reason, r.method, r.app, r.host, r.ip,
               r.user_agent, r.browser, r.os, r.device_class, r.device_id, r.device_new, r.device_token, r.session_id, r.decision, r.code,
               r.rule_id, r.rule_version, r.exempt, r.degraded, r.counted, r.country, r.asn, r.city
          FROM granted g, jsonb_populate_record(NULL::login_attempt, g.attempt) r
        RETURNING tenant, at, outcome, decision, device_class, browser, device_new
    ), tallied AS (
        INSERT INTO tally_new (tenant, at, kind, one, two, three, four, amount, fresh)
        SELECT tenant, date_bin('15 minutes', at, '2000-01-01'), 'login', outcome, decision, coalesce(device_class, ''),
               coalesce(browser, ''), 1, device_new::integer
          FROM attempted
    ), came AS MATERIALIZED (
        SELECT tenant, device, (device ->> 'through')::uuid AS through FROM granted WHERE device IS NOT NULL
    ), recognised AS (
        INSERT INTO device AS d (tenant, id, member_id, browser_id, secret_hash, rotated_at, label, browser, browser_version, os,
                                 device_class, model, first_seen_at, last_seen_at, last_ip, admitted_at, first_admitted_at,
                                 secret_seed, previous_hash, screen)
        SELECT g.tenant, r.id, r.member_id, r.browser_id, r.secret_hash, r.rotated_at, r.label, r.browser, r.browser_version, r.os,
               r.device_class, r.model, r.first_seen_at, r.last_seen_at, r.last_ip, r.admitted_at, r.admitted_at,
               r.secret_seed, CASE WHEN g.through IS NULL THEN r.previous_hash END, r.screen
          FROM came g, jsonb_populate_record(NULL::device, g.device) r
            ON CONFLICT (tenant, id) DO UPDATE
           -- the same secret again: several logins at once, and the token stays what it is
           SET older_hashes = CASE WHEN excluded.secret_hash = d.secret_hash THEN d.older_hashes ELSE
                   substr(coalesce(substr(CASE WHEN excluded.previous_hash = d.previous_hash THEN d.secret_hash ELSE d.previous_hash END, 1, 8), '')
                          || coalesce(d.older_hashes, ''), 1, 48) END,
               previous_hash = CASE WHEN excluded.secret_hash = d.secret_hash THEN d.previous_hash
                                    ELSE coalesce(excluded.previous_hash, d.secret_hash) END,
               rotated_at = CASE WHEN excluded.secret_hash = d.secret_hash THEN d.rotated_at ELSE excluded.rotated_at END,
               shown_at = CASE WHEN excluded.secret_hash = d.secret_hash THEN d.shown_at END,
               secret_hash = excluded.secret_hash, secret_seed = excluded.secret_seed,
               label = excluded.label, browser = excluded.browser, browser_version = excluded.browser_version, os = excluded.os,
               device_class = excluded.device_class, model = coalesce(excluded.model, d.model), screen = coalesce(excluded.screen, d.screen),
               last_seen_at = greatest(d.last_seen_at, excluded.last_seen_at), last_ip = excluded.last_ip,
               admitted_at = excluded.admitted_at,
               first_admitted_at = coalesce(d.first_admitted_at, d.admitted_at, excluded.admitted_at)
    ), exchanged AS (
        UPDATE device d
           SET older_hashes = substr(coalesce(substr(CASE WHEN r.previous_hash = d.previous_hash THEN d.secret_hash ELSE d.previous_hash END, 1, 8), '')
                          || coalesce(d.older_hashes, ''), 1, 48),
               previous_hash = coalesce(r.previous_hash, d.secret_hash), rotated_at = r.rotated_at, shown_at = NULL,
               secret_hash = r.secret_hash, secret_seed = r.secret_seed
          FROM came g, jsonb_populate_record(NULL::device, g.device) r
         WHERE d.tenant = g.tenant AND d.id = g.through AND d.secret_hash <> r.secret_hash
           AND d.id = ANY(ARRAY(SELECT through FROM came WHERE through IS NOT NULL))
    ), ending AS MATERIALIZED (
        SELECT g.tenant, g.member_id, g.at, e.* FROM granted g, jsonb_to_recordset(g.ended) AS e(id text, reason text, by text)
    ), closed AS (
        UPDATE session s SET ended_at = e.at, end_reason = e.reason, ended_by = e.by
          FROM ending e
         WHERE s.tenant = e.tenant AND s.id = e.id AND s.ended_at IS NULL
           AND s.tenant = ANY(ARRAY(SELECT tenant FROM ending)) AND s.member_id = ANY(ARRAY(SELECT member_id FROM ending))
           AND s.id = ANY(ARRAY(SELECT id FROM ending))
    ), opened AS (
        INSERT INTO session AS s (tenant, id, member_id, device_id, device_class, app, host, method, ip, user_agent,
                                  started_at, expires_at)
        SELECT g.tenant, r.id, r.member_id, r.device_id, r.device_class, r.app, r.host, r.method, r.ip, r.user_agent,
               r.started_at, r.expires_at
          FROM granted g, jsonb_populate_record(NULL::session, g.session) r WHERE g.session IS NOT NULL
         ORDER BY g.tenant, r.id
            ON CONFLICT (tenant, id) DO UPDATE
           SET device_id = excluded.device_id, device_class = excluded.device_class, app = excluded.app, host = excluded.host,
               method = excluded.method, ip = excluded.ip, user_agent = excluded.user_agent, started_at = excluded.started_at,
               expires_at = excluded.expires_at, last_activity_at = NULL, last_activity_kind = NULL, last_resource = NULL,
               ended_at = NULL, end_reason = NULL, ended_by = NULL,
               -- another member was faster to take this id: NULL is refused, and with it the whole login
               member_id = CASE WHEN s.member_id = excluded.member_id THEN s.member_id END
    ), seen AS (
        INSERT INTO member_network AS n (tenant, member_id, session_id, ip, device_id, first_at, last_at, admitted_at,
                                         country, asn, city, latitude, longitude)
        SELECT g.tenant, r.member_id, r.session_id, r.ip, r.device_id, r.at, r.at, r.admitted_at,
               r.country, r.asn, r.city, r.latitude, r.longitude
          FROM granted g, jsonb_to_record(g.network) AS r(member_id text, session_id text, ip inet, device_id uuid, at timestamptz,
                                                          admitted_at timestamptz, country text, asn bigint, city text,
                                                          latitude double precision, longitude double precision)
         WHERE g.network IS NOT NULL
         ORDER BY g.tenant, r.member_id, r.session_id, r.ip
        {AGAIN}
    ), found AS MATERIALIZED (
        SELECT g.place, v.id, v.cause
          FROM (SELECT * FROM granted WHERE jsonb_array_length(violations) > 0 ORDER BY tenant, member_id) g,
               LATERAL record_violations(g.tenant, g.violations, $2) v
    ), challenged AS (
        INSERT INTO challenge (tenant, id, member_id, session_id, device_id, rule_id, rule_version, subject, violation_id, stage, asked,
                               created_at, expires_at)
        SELECT g.tenant, r.id, r.member_id, r.session_id, r.device_id, r.rule_id, r.rule_version, r.subject,
               (SELECT f.id FROM found f WHERE f.place = g.place AND f.cause = r.rule_id::text LIMIT 1), r.stage, r.asked,
               r.created_at, r.expires_at
          FROM granted g, jsonb_populate_record(NULL::challenge, g.challenge) r WHERE g.challenge IS NOT NULL
    ), remembered AS (
        INSERT INTO login_key (tenant, attempt_id, fingerprint, salt, answer, at)
        SELECT g.tenant, r.attempt_id, r.fingerprint, r.salt,
               jsonb_set(r.answer, '{{violations}}', (SELECT coalesce(jsonb_agg(f.id), '[]') FROM found f WHERE f.place = g.place)), r.at
          FROM granted g, jsonb_populate_record(NULL::login_key, g.key) r WHERE g.key IS NOT NULL
         ORDER BY g.tenant, r.attempt_id
    )
    SELECT g.place, ARRAY(SELECT f.id FROM found f WHERE f.place = g.place) AS violations FROM granted g
"""  # noqa: S608 - all parts are constants

# The same for one who would rather wait than be passed over.
RECORD_ONE: Final = RECORD.replace(" SKIP LOCKED", "")


READ_S: Final = 2.0
WRITE_S: Final = 3.0
"""How long a login waits for each; then it is kept in Valkey (guard/spooling.py)."""


class LoginStore:
    """Every call raises GuardError: UNAVAILABLE when Postgres is out of reach, CONFLICT and INVALID for a row it refuses.

    `quiet` is the silence after which a case of a violation is over.
    """

    def __init__(self, db: Database, *, quiet: timedelta) -> None:
        self._db = db
        self._quiet = quiet

    async def read_all(self, knocks: Sequence[Knock]) -> Sequence[Reading]:
        """What each login is decided on, in the order of asking."""
        plain = not any(each.needs & WIDE or each.failures_since for each in knocks)
        return [_reading(row) for row in await self._db.fetch(READ_PLAIN if plain else READ, knocks, timeout_s=READ_S)]

    async def read(self, knock: Knock) -> Reading:
        """What one login is decided on."""
        (reading,) = await self.read_all((knock,))
        return reading

    async def record_all(self, logins: Sequence[LoginRows]) -> Sequence[tuple[UUID, ...] | None]:
        """Write each login that was decided on its member as it still is: its violations, in the order of asking.

        None for a login of which nothing was written: the member has changed
        since, or somebody else holds it. A row that is refused fails them all.
        """
        rows = await self._db.fetch(RECORD, logins, self._quiet, timeout_s=WRITE_S)
        violations = {row["place"]: tuple(row["violations"]) for row in rows}
        return [violations.get(place) for place in range(1, len(logins) + 1)]

    async def record(self, login: LoginRows) -> tuple[UUID, ...] | None:
        """Write one login, and wait for its member if need be; its violations, or None when the member has changed."""
        row = await self._db.row(RECORD_ONE, (login,), self._quiet, timeout_s=WRITE_S)
        return None if row is None else tuple(row["violations"])

    async def remember(self, tenant: str, key: KeyRow) -> None:
        """Keep an answer that was given under an id, for whoever asks again."""
        await self._db.row(REMEMBER, tenant, key)

    async def expire(self, now: datetime, most: int) -> int:
        """Delete at most so many remembered answers that are older than KEPT, the oldest first; how many."""
        return int(await self._db.value(EXPIRE, now - KEPT, most))

    async def lock(self, tenant: str, member_id: str) -> None:
        """Hold the member's row until the transaction ends."""
        await self._db.row(LOCK, tenant, member_id)

    async def lock_free(self, members: Sequence[tuple[str, str]]) -> frozenset[tuple[str, str]]:
        """Hold the rows of those members (tenant, id) whom nobody else holds until the transaction ends; who they are."""
        rows = await self._db.fetch(LOCK_FREE, [tenant for tenant, _ in members], [each for _, each in members])
        return frozenset((row["tenant"], row["id"]) for row in rows)


def _reading(row: Row) -> Reading:
    replay, failures = row["replay"], row["failures"]
    return Reading(
        opening=None if row["snapshot"] is None else _opening(row),
        replay=None if replay is None else msgspec.json.decode(replay, type=Replay),
        failures=None if failures is None else msgspec.json.decode(failures, type=Failures),
    )


def _opening(row: Row) -> Opening:
    claimed = row["claimed"]
    return Opening(
        snapshot=msgspec.json.decode(row["snapshot"], type=Snapshot),
        claimed=None if claimed is None else msgspec.json.decode(claimed, type=ClaimedDevice),
        session_owner=row["owner"],
    )
