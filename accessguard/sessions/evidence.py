"""What the wider rules look at, read for one member: networks, enrolments, passes, cases, challenges, failures."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.rules.model import CaseFact, EnrolmentFact, NetworkFact, Place, Settled
from accessguard.rules.networks import Address, address
from accessguard.sessions.failures import FAILURES, Failures
from accessguard.sessions.networks import bounds

# Pairs for a jsonb_build_object on a member's row `m`, where $1 is the tenant: SNAPSHOT may take them as they stand.
# No time is asked for, so that a snapshot stays true while it is held: what is too old, rules pass over. Each part is
# bounded by what a rule can need; of enrolments, those that end first go first.
PARTS: Final = """
        'networks', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'ip', host(n.ip), 'session_id', nullif(n.session_id, ''), 'device_id', n.device_id, 'first_at', n.first_at,
                       'last_at', n.last_at, 'admitted_at', n.admitted_at, 'place', jsonb_build_object(
                           'country', n.country, 'asn', n.asn, 'city', n.city, 'latitude', n.latitude, 'longitude', n.longitude))), '[]')
              FROM (SELECT * FROM member_network WHERE tenant = $1 AND member_id = m.id
                     ORDER BY last_at DESC, session_id, ip LIMIT 500) n),
        'enrolments', (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                       'product_id', e.product_id, 'starts_at', e.starts_at, 'ends_at', e.ends_at, 'status', e.status,
                       'reopens_at', e.reopens_at)), '[]')
              FROM (SELECT * FROM enrolment WHERE tenant = $1 AND member_id = m.id
                     ORDER BY ends_at DESC NULLS FIRST, product_id LIMIT 1000) e),
        'passes', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('kind', p.kind, 'until', p.until)), '[]')
              FROM (SELECT * FROM pass WHERE tenant = $1 AND member_id = m.id ORDER BY until DESC LIMIT 50) p),
        'cases', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('rule_id', v.rule_id, 'at', v.first_at)), '[]')
              FROM (SELECT * FROM violation
                     WHERE tenant = $1 AND member_id = m.id AND rule_id IS NOT NULL AND resolution <> 'false_alarm' AND effect <> 'exempt'
                     ORDER BY first_at DESC, id LIMIT 500) v),
        'settled', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('rule_id', c.rule_id, 'subject', c.subject, 'until', c.good_until)), '[]')
              FROM (SELECT * FROM challenge
                     WHERE tenant = $1 AND member_id = m.id AND outcome = 'passed' AND good_until IS NOT NULL
                     ORDER BY good_until DESC, id LIMIT 100) c),
        'freed', (
            SELECT coalesce(jsonb_agg(jsonb_build_object('rule_id', c.rule_id, 'at', c.settled_at)), '[]')
              FROM (SELECT * FROM challenge WHERE tenant = $1 AND member_id = m.id AND freed IS NOT NULL
                     ORDER BY settled_at DESC, id LIMIT 100) c)
"""

EVIDENCE: Final = "SELECT jsonb_build_object(<parts>) FROM member m WHERE m.tenant = $1 AND m.id = $2".replace(
    "<parts>", PARTS
)


class NetworkSeen(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One address that one session was used from; `session_id` None: a login that got no session."""

    ip: str
    session_id: str | None
    device_id: UUID | None
    first_at: datetime
    last_at: datetime
    admitted_at: datetime | None
    place: Place


class PassHeld(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A pass, ended or not."""

    kind: Literal["extra_device", "extra_session", "suspend_checks"]
    until: datetime


class FreedAt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """When the member freed a place that a rule asked for."""

    rule_id: UUID
    at: datetime


class Evidence(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What is stored of one member besides its sessions and devices, whatever its age."""

    networks: tuple[NetworkSeen, ...]
    enrolments: tuple[EnrolmentFact, ...]
    passes: tuple[PassHeld, ...]
    cases: tuple[CaseFact, ...]
    settled: tuple[Settled, ...]
    freed: tuple[FreedAt, ...]

    def network_facts(self) -> Iterator[NetworkFact]:
        """The networks as rules see them."""
        for seen in self.networks:
            found = address(seen.ip)
            if found is not None:
                yield NetworkFact(
                    address=found,
                    place=None if seen.place == Place() else seen.place,
                    session_id=seen.session_id,
                    device_id=seen.device_id,
                    first_at=seen.first_at,
                    last_at=seen.last_at,
                    admitted_at=seen.admitted_at,
                )

    def live(self, kind: str, now: datetime) -> int:
        """How many passes of a kind have not ended."""
        return sum(held.kind == kind and held.until > now for held in self.passes)

    def next_end(self, now: datetime) -> datetime | None:
        """When the first pass that has not ended will; None without one."""
        return min((held.until for held in self.passes if held.until > now), default=None)


class EvidenceStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def of_member(self, tenant: str, member_id: str) -> Evidence | None:
        """Everything but failures; None for an unknown member."""
        found = await self._db.value(EVIDENCE, tenant, member_id)
        return None if found is None else msgspec.json.decode(found, type=Evidence)

    async def failures(self, tenant: str, member_id: str | None, *, at: Address | None, since: datetime) -> Failures:
        """Failed logins after `since`, of the member and of anybody at that address; 500 of each at most, the newest."""
        first, last = (None, None) if at is None else bounds(at)
        found = await self._db.value(f"SELECT {FAILURES}", tenant, member_id, since, first, last)
        return msgspec.json.decode(found, type=Failures)
