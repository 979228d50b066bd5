"""What was recorded before anybody counted, counted once from what the logs still have: member by member, a few at a time."""

from __future__ import annotations

from typing import Final

from accessguard.database import Database

# One tenant after the other; whoever has been counted to the end is struck off. Logins of nobody known are left out, and a case
# counts on the day of its last hit.
COUNT: Final = """
    WITH mark AS MATERIALIZED (
        SELECT tenant, before, member_id FROM tally_past ORDER BY tenant LIMIT 1
    ), someone AS MATERIALIZED (
        SELECT k.tenant, k.before, m.id
          FROM mark k, LATERAL (SELECT id FROM member WHERE tenant = k.tenant AND id > k.member_id ORDER BY id LIMIT $1) m
    ), used AS MATERIALIZED (
        SELECT s.tenant, s.id AS member_id, a.at, a.kind, a.product_id, left(split_part(a.resource, '?', 1), 400) AS resource,
               left((regexp_match(a.resource, '[?&]run=([^&#]+)'))[1], 128) AS run
          FROM someone s, LATERAL (
               SELECT at, kind, product_id, resource FROM activity WHERE tenant = s.tenant AND member_id = s.id AND at < s.before) a
    ), logins AS (
        INSERT INTO tally_new (tenant, at, kind, one, two, three, four, amount, fresh)
        SELECT s.tenant, date_bin('15 minutes', a.at, '2000-01-01'), 'login', a.outcome, a.decision, coalesce(a.device_class, ''),
               coalesce(a.browser, ''), count(*), count(*) FILTER (WHERE a.device_new)
          FROM someone s, LATERAL (
               SELECT at, outcome, decision, device_class, browser, device_new FROM login_attempt
                WHERE tenant = s.tenant AND member_id = s.id AND at < s.before) a
         GROUP BY 1, 2, 4, 5, 6, 7
    ), cases AS (
        INSERT INTO tally_new (tenant, at, kind, one, two, three, amount)
        SELECT s.tenant, date_bin('15 minutes', v.last_at, '2000-01-01'), 'refusal', coalesce(v.rule_id::text, ''), v.code, v.effect, sum(v.hits)
          FROM someone s, LATERAL (
               SELECT last_at, rule_id, code, effect, hits FROM violation
                WHERE tenant = s.tenant AND member_id = s.id AND last_at < s.before) v
         GROUP BY 1, 2, 4, 5, 6
    ), interactions AS (
        INSERT INTO tally_new (tenant, at, kind, one, amount)
        SELECT tenant, date_bin('15 minutes', at, '2000-01-01'), 'activity', kind, count(*) FROM used GROUP BY 1, 2, 4
    ), products AS (
        INSERT INTO product_access AS p (tenant, member_id, product_id, first_at, last_at)
        SELECT tenant, member_id, product_id, min(at), max(at) FROM used WHERE product_id IS NOT NULL
         GROUP BY tenant, member_id, product_id ORDER BY tenant, member_id, product_id
            ON CONFLICT (tenant, member_id, product_id) DO UPDATE
           SET first_at = least(p.first_at, excluded.first_at), last_at = greatest(p.last_at, excluded.last_at)
    ), runs AS (
        INSERT INTO run_access AS r (tenant, member_id, resource, run, product_id, first_at)
        SELECT tenant, member_id, resource, run, min(product_id), min(at) FROM used WHERE run IS NOT NULL
         GROUP BY tenant, member_id, resource, run ORDER BY tenant, member_id, resource, run
            ON CONFLICT (tenant, member_id, resource, run) DO UPDATE SET first_at = least(r.first_at, excluded.first_at)
    ), moved AS (
        UPDATE tally_past p SET member_id = (SELECT max(id) FROM someone) FROM mark k
         WHERE p.tenant = k.tenant AND EXISTS (SELECT FROM someone)
    ), over AS (
        DELETE FROM tally_past p USING mark k WHERE p.tenant = k.tenant AND NOT EXISTS (SELECT FROM someone)
    )
    SELECT greatest((SELECT count(*) FROM mark), (SELECT count(*) FROM someone))
"""


class PastStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def count(self, *, most: int) -> int:
        """Count what is recorded of at most so many members; 0 when everybody's is counted."""
        return int(await self._db.value(COUNT, most))
