"""What the wider rules look at, read for one member: networks, enrolments, passes, cases, challenges, failures."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import msgspec

from accessguard.database import Database
from accessguard.rules.needs import STORED
from accessguard.rules.networks import Address
from accessguard.sessions.failures import FAILURES, Failures
from accessguard.sessions.networks import bounds
from accessguard.sessions.past import Evidence

# What is wanted of a member's past: $3 says which parts, in the numbers of `Need` (rules/needs.py), and of networks those
# used after $4 (NULL: all of them) are. OFFSET keeps both from being folded into a plan, which would be made anew for
# each call: planning takes three times as long as the rest.
WANTED: Final = "(SELECT $3::integer AS needs, $4::timestamptz AS since OFFSET 0) w"

# Pairs for a jsonb_build_object on a member's row `m`, where $1 is the tenant; a part that is not wanted costs nothing.
# SNAPSHOT takes them as they stand. But for networks no time is asked for, so that a snapshot stays true while it is
# held: what is too old, rules pass over. Each part is bounded by what a rule can need; of enrolments, those that end first
# go first.
PASSES: Final = """(
            SELECT coalesce(jsonb_agg(jsonb_build_object('kind', p.kind, 'until', p.until)), '[]')
              FROM (SELECT * FROM pass WHERE tenant = $1 AND member_id = m.id ORDER BY until DESC LIMIT 50) p)"""

PARTS: Final = """
        'networks', CASE WHEN w.needs & 1 <> 0 THEN (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'ip', host(n.ip), 'session_id', nullif(n.session_id, ''), 'device_id', n.device_id, 'first_at', n.first_at,
                       'last_at', n.last_at, 'admitted_at', n.admitted_at, 'place', jsonb_build_object(
                           'country', n.country, 'asn', n.asn, 'city', n.city, 'latitude', n.latitude, 'longitude', n.longitude))), '[]')
              FROM (SELECT * FROM member_network
                     WHERE tenant = $1 AND member_id = m.id AND last_at > coalesce(w.since, '-infinity')
                     ORDER BY last_at DESC, session_id, ip LIMIT 500) n) ELSE '[]' END,
        'enrolments', CASE WHEN w.needs & 2 <> 0 THEN (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'product_id', e.product_id, 'starts_at', e.starts_at, 'ends_at', e.ends_at, 'status', e.status,
                       'reopens_at', e.reopens_at)), '[]')
              FROM (SELECT * FROM enrolment WHERE tenant = $1 AND member_id = m.id
                     ORDER BY ends_at DESC NULLS FIRST, product_id LIMIT 1000) e) END,
        'passes', <passes>,
        'cases', CASE WHEN w.needs & 8 <> 0 THEN (
            SELECT coalesce(jsonb_agg(jsonb_build_object('rule_id', v.rule_id, 'at', v.first_at)), '[]')
              FROM (SELECT * FROM violation
                     WHERE tenant = $1 AND member_id = m.id AND rule_id IS NOT NULL AND resolution <> 'false_alarm' AND effect <> 'exempt'
                     ORDER BY first_at DESC, id LIMIT 500) v) ELSE '[]' END,
        'settled', CASE WHEN w.needs & 16 <> 0 THEN (
            SELECT coalesce(jsonb_agg(jsonb_build_object('rule_id', c.rule_id, 'subject', c.subject, 'until', c.good_until)), '[]')
              FROM (SELECT * FROM challenge
                     WHERE tenant = $1 AND member_id = m.id AND outcome = 'passed' AND good_until IS NOT NULL
                     ORDER BY good_until DESC, id LIMIT 100) c) ELSE '[]' END,
        'freed', CASE WHEN w.needs & 32 <> 0 THEN (
            SELECT coalesce(jsonb_agg(jsonb_build_object('rule_id', c.rule_id, 'at', c.settled_at)), '[]')
              FROM (SELECT * FROM challenge WHERE tenant = $1 AND member_id = m.id AND freed IS NOT NULL
                     ORDER BY settled_at DESC, id LIMIT 100) c) ELSE '[]' END,
        'forgotten', CASE WHEN w.needs & 64 <> 0 THEN (
            SELECT coalesce(jsonb_agg(jsonb_build_object('id', f.id, 'device_class', f.device_class,
                       'first_admitted_at', f.first_admitted_at, 'last_seen_at', f.last_seen_at)), '[]')
              FROM (SELECT * FROM device
                     WHERE tenant = $1 AND member_id = m.id AND forgotten_at IS NOT NULL AND first_admitted_at IS NOT NULL
                       AND merged_into IS NULL
                     ORDER BY last_seen_at DESC, id LIMIT 200) f) ELSE '[]' END
""".replace("<passes>", PASSES)

EVIDENCE: Final = (
    ("SELECT jsonb_build_object(<parts>) FROM <wanted>, member m WHERE m.tenant = $1 AND m.id = $2")
    .replace("<parts>", PARTS)
    .replace("<wanted>", WANTED)
)


class EvidenceStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of_member(self, tenant: str, member_id: str) -> Evidence | None:
        """Everything but failures; None for an unknown member."""
        found = await self._db.value(EVIDENCE, tenant, member_id, STORED, None)
        return None if found is None else msgspec.json.decode(found, type=Evidence)

    async def failures(self, tenant: str, member_id: str | None, *, at: Address | None, since: datetime) -> Failures:
        """Failed logins after `since`, of the member and of anybody at that address; 500 of each at most, the newest."""
        first, last = (None, None) if at is None else bounds(at)
        found = await self._db.value(f"SELECT {FAILURES}", tenant, member_id, since, first, last)
        return msgspec.json.decode(found, type=Failures)
