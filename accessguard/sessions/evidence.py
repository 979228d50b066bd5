"""What the wider rules look at, read for one member: networks, enrolments, passes, cases, challenges, failures."""

from __future__ import annotations

from datetime import datetime
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.rules.model import FailureFact
from accessguard.rules.needs import STORED
from accessguard.rules.networks import Address, address
from accessguard.sessions.networks import bounds
from accessguard.sessions.past import Evidence

# Pairs for a jsonb_build_object on a member's row `m`, where $1 is the tenant and $3 says which parts are wanted, in the
# numbers of `Need` (rules/needs.py); one that is not costs nothing. SNAPSHOT takes them as they stand.
# No time is asked for, so that a snapshot stays true while it is held: what is too old, rules pass over. Each part is
# bounded by what a rule can need; of enrolments, those that end first go first.
PARTS: Final = """
        'networks', CASE WHEN $3 & 1 <> 0 THEN (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'ip', host(n.ip), 'session_id', nullif(n.session_id, ''), 'device_id', n.device_id, 'first_at', n.first_at,
                       'last_at', n.last_at, 'admitted_at', n.admitted_at, 'place', jsonb_build_object(
                           'country', n.country, 'asn', n.asn, 'city', n.city, 'latitude', n.latitude, 'longitude', n.longitude))), '[]')
              FROM (SELECT * FROM member_network WHERE tenant = $1 AND member_id = m.id
                     ORDER BY last_at DESC, session_id, ip LIMIT 500) n) ELSE '[]' END,
        'enrolments', CASE WHEN $3 & 2 <> 0 THEN (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'product_id', e.product_id, 'starts_at', e.starts_at, 'ends_at', e.ends_at, 'status', e.status,
                       'reopens_at', e.reopens_at)), '[]')
              FROM (SELECT * FROM enrolment WHERE tenant = $1 AND member_id = m.id
                     ORDER BY ends_at DESC NULLS FIRST, product_id LIMIT 1000) e) END,
        'passes', CASE WHEN $3 & 4 <> 0 THEN (
            SELECT coalesce(jsonb_agg(jsonb_build_object('kind', p.kind, 'until', p.until)), '[]')
              FROM (SELECT * FROM pass WHERE tenant = $1 AND member_id = m.id ORDER BY until DESC LIMIT 50) p) ELSE '[]' END,
        'cases', CASE WHEN $3 & 8 <> 0 THEN (
            SELECT coalesce(jsonb_agg(jsonb_build_object('rule_id', v.rule_id, 'at', v.first_at)), '[]')
              FROM (SELECT * FROM violation
                     WHERE tenant = $1 AND member_id = m.id AND rule_id IS NOT NULL AND resolution <> 'false_alarm' AND effect <> 'exempt'
                     ORDER BY first_at DESC, id LIMIT 500) v) ELSE '[]' END,
        'settled', CASE WHEN $3 & 16 <> 0 THEN (
            SELECT coalesce(jsonb_agg(jsonb_build_object('rule_id', c.rule_id, 'subject', c.subject, 'until', c.good_until)), '[]')
              FROM (SELECT * FROM challenge
                     WHERE tenant = $1 AND member_id = m.id AND outcome = 'passed' AND good_until IS NOT NULL
                     ORDER BY good_until DESC, id LIMIT 100) c) ELSE '[]' END,
        'freed', CASE WHEN $3 & 32 <> 0 THEN (
            SELECT coalesce(jsonb_agg(jsonb_build_object('rule_id', c.rule_id, 'at', c.settled_at)), '[]')
              FROM (SELECT * FROM challenge WHERE tenant = $1 AND member_id = m.id AND freed IS NOT NULL
                     ORDER BY settled_at DESC, id LIMIT 100) c) ELSE '[]' END,
        'forgotten', CASE WHEN $3 & 64 <> 0 THEN (
            SELECT coalesce(jsonb_agg(jsonb_build_object('id', f.id, 'device_class', f.device_class,
                       'first_admitted_at', f.first_admitted_at, 'last_seen_at', f.last_seen_at)), '[]')
              FROM (SELECT * FROM device
                     WHERE tenant = $1 AND member_id = m.id AND forgotten_at IS NOT NULL AND first_admitted_at IS NOT NULL
                     ORDER BY last_seen_at DESC, id LIMIT 200) f) ELSE '[]' END
"""

EVIDENCE: Final = "SELECT jsonb_build_object(<parts>) FROM member m WHERE m.tenant = $1 AND m.id = $2".replace(
    "<parts>", PARTS
)

# Failures of the member, and of anybody at its address (the /64 of IPv6); the success that clears the same counter.
FAILURES: Final = """
    WITH failed AS (
        (SELECT id, at, ip, device_id, true AS own FROM login_attempt
          WHERE tenant = $1 AND member_id = $2 AND counted AND at > $3 ORDER BY at DESC LIMIT 500)
        UNION ALL
        (SELECT id, at, ip, device_id, false FROM login_attempt
          WHERE tenant = $1 AND ip BETWEEN $4::inet AND $5::inet AND counted AND at > $3 AND ($2::text IS NULL OR member_id IS DISTINCT FROM $2)
          ORDER BY at DESC LIMIT 500)
    )
    SELECT (SELECT coalesce(jsonb_agg(jsonb_build_object('at', f.at, 'ip', host(f.ip), 'device_id', f.device_id, 'own', f.own)), '[]')
              FROM failed f) AS failures,
           (SELECT max(at) FROM login_attempt
             WHERE tenant = $1 AND member_id = $2 AND at > $3 AND outcome = 'success' AND decision = 'allow'
               AND (device_id = $6 OR ($6::uuid IS NULL AND device_new))) AS succeeded_at
"""


class Failed(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One failed login as it is read."""

    at: datetime
    ip: str | None
    device_id: UUID | None
    own: bool


class Failures(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Counted failures, and the last success on the same counter; None: none since then."""

    facts: tuple[FailureFact, ...]
    succeeded_at: datetime | None


class EvidenceStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of_member(self, tenant: str, member_id: str) -> Evidence | None:
        """Everything but failures; None for an unknown member."""
        found = await self._db.value(EVIDENCE, tenant, member_id, STORED)
        return None if found is None else msgspec.json.decode(found, type=Evidence)

    async def failures(
        self, tenant: str, member_id: str | None, *, at: Address | None, device_id: UUID | None, since: datetime
    ) -> Failures:
        """Failed logins after `since`, of the member and of anybody at that address; 500 of each at most, the newest.

        `device_id` is the device that the member is known by, None for a stranger's.
        """
        first, last = (None, None) if at is None else bounds(at)
        row = await self._db.row(FAILURES, tenant, member_id, since, first, last, device_id)
        if row is None:
            raise LookupError("a row of two values is always there")
        found = msgspec.json.decode(row["failures"], type=tuple[Failed, ...])
        facts = (FailureFact(at=f.at, address=address(f.ip), device_id=f.device_id, own=f.own) for f in found)
        return Failures(facts=tuple(facts), succeeded_at=row["succeeded_at"])
