"""What is old enough to go, in PostgreSQL: whole months where they are too old for everybody, else rows, some at a time.

Every tenant keeps for as long as its settings say. `$1` is by when, `$2` how
many rows at most, `$3` the days of tenants that say nothing. A place within
one partition may be that of another row in the next one, so each statement says
twice which rows are old.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from accessguard.database import Database

SINCE: Final = "$1::timestamptz - make_interval(days => coalesce((t.settings #>> '{retention,<days>}')::int, $3))"

OLD_ROWS: Final = """
    WITH gone AS (
        DELETE FROM <table> x
         WHERE ctid = ANY(ARRAY(
               SELECT old.ctid
                 FROM tenant t CROSS JOIN LATERAL (
                      SELECT o.ctid FROM <table> o WHERE o.tenant = t.id AND <age> < <since> LIMIT $2) old
                LIMIT $2))
           AND EXISTS (SELECT FROM tenant t, LATERAL (SELECT x.*) o WHERE t.id = x.tenant AND <age> < <since>)
        RETURNING *
    )<more>
    SELECT count(*) FROM gone
"""
# A case goes with its read marks; where the next hit would have been folded in, a new case begins.
MARKS_TOO: Final = """, marks AS (
        DELETE FROM read_mark r USING gone g WHERE r.tenant = g.tenant AND r.violation_id = g.id
    ), cases AS (
        DELETE FROM violation_case c USING gone g
         WHERE c.tenant = g.tenant AND c.member_id = g.member_id AND c.violation_id = g.id
    ), noted AS (
        INSERT INTO unread_moved AS m (tenant, member_id)
        SELECT DISTINCT tenant, member_id FROM gone ORDER BY tenant, member_id
            ON CONFLICT (tenant, member_id, reader) DO UPDATE SET moved = excluded.moved, at = excluded.at
    )"""


def _old(table: str, age: str, days: str, more: str = "") -> str:
    since = SINCE.replace("<days>", days)
    words = {"<table>": table, "<age>": age, "<since>": since, "<more>": more}
    statement = OLD_ROWS
    for word, text in words.items():
        statement = statement.replace(word, text)
    return statement


# Of a session that may still go on nothing is old. In the form of the index by age.
OLD_SESSIONS: Final = """
    WITH gone AS (
        DELETE FROM session WHERE ctid = ANY(ARRAY(
            SELECT old.ctid
              FROM tenant t CROSS JOIN LATERAL (
                   SELECT s.ctid FROM session s
                    WHERE (s.tenant || '') = t.id AND s.started_at < <since> AND coalesce(s.ended_at, s.expires_at) < <since>
                    ORDER BY s.started_at LIMIT $2 FOR UPDATE SKIP LOCKED) old
             LIMIT $2))
        RETURNING 1
    )
    SELECT count(*) FROM gone
""".replace("<since>", SINCE.replace("<days>", "logins_days"))

OLD: Final[Mapping[str, str]] = {
    "login_attempt": _old("login_attempt", "o.at", "logins_days"),
    "activity": _old("activity", "o.at", "activity_days"),
    "violation": _old("violation", "greatest(o.first_at, o.last_at)", "violations_days", MARKS_TOO),
    "session": OLD_SESSIONS,
}

# Months that have ended for everybody: the longest that any tenant keeps, and a day for clocks. A case may go on after the
# month in which it began, so its months go when they are empty.
MONTHS: Final = """
    SELECT c.relname::text AS name
      FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
     WHERE i.inhparent = to_regclass($1) AND c.relname ~ '_[0-9]{6}$'
       AND to_date(right(c.relname, 6), 'YYYYMM') + interval '1 month'
           < $2::timestamptz - make_interval(days => 1 + greatest($3, (SELECT max((settings #>> ARRAY['retention', $4])::int) FROM tenant)))
     ORDER BY c.relname LIMIT 1
"""
DROP: Final = "SELECT drop_partition($1, $2)"
DAYS: Final = {"login_attempt": "logins_days", "activity": "activity_days", "violation": "violations_days"}

EMPTY_VIOLATIONS: Final = """
    SELECT count(*) FROM violation
     WHERE first_at >= to_date(right($1, 6), 'YYYYMM') AND first_at < to_date(right($1, 6), 'YYYYMM') + interval '1 month'
"""

# Tenants that have addresses cut short, and how far that has come in a table.
DUE: Final = """
    SELECT t.id AS tenant, coalesce(m.at, '-infinity') AS since,
           $1::timestamptz - make_interval(days => (t.settings #>> '{retention,truncate_ip_after_days}')::int) AS until
      FROM tenant t LEFT JOIN retention_mark m ON m.tenant = t.id AND m.ledger = $2
     WHERE t.settings #>> '{retention,truncate_ip_after_days}' IS NOT NULL
       AND coalesce(m.at, '-infinity') < $1::timestamptz - make_interval(days => (t.settings #>> '{retention,truncate_ip_after_days}')::int)
                                         - interval '1 hour'
     ORDER BY t.id LIMIT 1
"""
# What was written late (logins that waited) is found for a week after.
CUT: Final = """
    WITH cut AS (
        UPDATE <table> x SET <column> = cut_address(<column>)
         WHERE tenant = $1 AND <column> <> cut_address(<column>) AND <age> < $3
           AND ctid = ANY(ARRAY(SELECT ctid FROM <table>
                                 WHERE tenant = $1 AND <column> <> cut_address(<column>)
                                   AND <age> >= $2::timestamptz - interval '7 days' AND <age> < $3 LIMIT $4))
        RETURNING 1
    )
    SELECT count(*) FROM cut
"""
# The same network twice becomes one line; where it was on the map goes with the last bits of its address.
CUT_NETWORKS: Final = """
    WITH old AS MATERIALIZED (
        DELETE FROM member_network
         WHERE ctid = ANY(ARRAY(SELECT ctid FROM member_network
                                 WHERE tenant = $1 AND ip <> cut_address(ip) AND last_at >= $2::timestamptz - interval '7 days'
                                   AND last_at < $3 LIMIT $4))
        RETURNING *
    ), cut AS (
        INSERT INTO member_network AS n (tenant, member_id, session_id, ip, device_id, first_at, last_at, admitted_at, country, asn)
        SELECT DISTINCT ON (tenant, member_id, session_id, cut_address(ip))
               tenant, member_id, session_id, cut_address(ip), device_id, min(first_at) OVER same, max(last_at) OVER same, admitted_at,
               country, asn
          FROM old WINDOW same AS (PARTITION BY tenant, member_id, session_id, cut_address(ip))
         ORDER BY tenant, member_id, session_id, cut_address(ip), last_at DESC
            ON CONFLICT (tenant, member_id, session_id, ip) DO UPDATE
           SET first_at = least(n.first_at, excluded.first_at), last_at = greatest(n.last_at, excluded.last_at)
    )
    SELECT count(*) FROM old
"""
REACHED: Final = """
    INSERT INTO retention_mark AS m (tenant, ledger, at) VALUES ($1, $2, $3)
        ON CONFLICT (tenant, ledger) DO UPDATE SET at = greatest(m.at, excluded.at)
"""


def _cut(table: str, column: str, age: str) -> str:
    return CUT.replace("<table>", table).replace("<column>", column).replace("<age>", age)


CUTS: Final[Mapping[str, str]] = {
    "login_attempt": _cut("login_attempt", "ip", "at"),
    "activity": _cut("activity", "ip", "at"),
    "violation": _cut("violation", "ip", "first_at"),
    "session": _cut("session", "ip", "started_at"),
    "device": _cut("device", "last_ip", "last_seen_at"),
    "member_network": CUT_NETWORKS,
}


class RetentionStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach, or a table is in use."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def expire(self, table: str, now: datetime, most: int, *, default_days: int) -> int:
        """Delete at most so many rows that are older than their tenant keeps them; how many."""
        return int(await self._db.value(OLD[table], now, most, default_days))

    async def drop_month(self, table: str, now: datetime, *, default_days: int) -> int:
        """Drop the oldest month that is too old for every tenant; about how many rows it held, 0 when there is none."""
        name = await self._db.value(MONTHS, table, now, default_days, DAYS[table])
        if name is None or (table == "violation" and await self._db.value(EMPTY_VIOLATIONS, name)):
            return 0
        return max(1, int(await self._db.value(DROP, table, name)))

    async def cut(self, table: str, now: datetime, most: int) -> int:
        """Cut at most so many addresses short that are old enough for it, of one tenant; how many, 0 when none is left anywhere."""
        while (due := await self._db.row(DUE, now, table)) is not None:
            done = int(await self._db.value(CUTS[table], due["tenant"], due["since"], due["until"], most))
            if done < most:
                await self._db.row(REACHED, due["tenant"], table, due["until"])
            if done:
                return done
        return 0
