"""Webhooks and their deliveries in PostgreSQL: made out from the outbox, sent until they are taken, kept for a week."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from accessguard.database import Database, Row
from accessguard.events.caep import COUNTERPARTS
from accessguard.events.sealed import Locked, locked

Digest: TypeAlias = Literal["day", "week"]


class WebhookEvent(StrEnum):
    """What may be sent; stored names, never renamed."""

    SESSION_ENDED = "session_ended"
    VIOLATION = "violation"
    DEVICE_BLOCKED = "device_blocked"
    DEVICE_ALLOWED = "device_allowed"
    DEVICE_NEW = "device_new"
    MEMBER_AT_RISK = "member_at_risk"


class WebhookFormat(StrEnum):
    """How it is said: as Standard Webhooks, or as security event tokens of OpenID's Shared Signals (CAEP)."""

    STANDARD = "standard"
    CAEP = "caep"


class WebhookStatus(StrEnum):
    """`disabled`: nothing was taken for too long, or the receiver said that it is gone."""

    ACTIVE = "active"
    DISABLED = "disabled"


class DeliveryState(StrEnum):
    """Where a message stands: still to be taken, taken, or given up."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class Webhook(msgspec.Struct, frozen=True, kw_only=True):
    """Whom a tenant wants told of what; `failing_since` is when the receiver first failed, None when it takes what it gets.

    `audience` is what the tokens of the format `caep` say as `aud`, None in the other format.
    """

    id: UUID
    url: str
    events: tuple[WebhookEvent, ...]
    format: WebhookFormat
    audience: str | None
    digest: Digest | None
    status: WebhookStatus
    failing_since: datetime | None
    created_at: datetime


class Delivery(msgspec.Struct, frozen=True, kw_only=True):
    """One message on its way; `id` is its `webhook-id`, `due_at` when it is tried next (None: no more)."""

    id: UUID
    event: str
    member_id: str | None
    state: DeliveryState
    attempts: int
    created_at: datetime
    due_at: datetime | None
    last_at: datetime | None
    last_status: int | None
    last_error: str | None


class Parcel(msgspec.Struct, frozen=True, kw_only=True):
    """A message to be sent now; `attempts` counts this one. With `sealed`, `secret` is still to be opened."""

    tenant: str
    webhook_id: UUID
    id: UUID
    number: int
    member_id: str | None
    kind: str
    payload: str
    created_at: datetime
    attempts: int
    url: str
    format: WebhookFormat
    audience: str | None
    secret: str
    sealed: str | None


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a receiver answered: its status, or (None) what went wrong before there was one.

    `error` besides a status is why it refused; `final`: so that no other try would be taken.
    """

    status: int | None
    error: str | None
    final: bool = False

    @property
    def taken(self) -> bool:
        """Whether it has the message; what is redirected is not."""
        return self.status is not None and 200 <= self.status < 300


LATER: Final = tuple(timedelta(seconds=each) for each in (5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400))
"""Rests after each failure, three days in all (Standard Webhooks 1.0, "Reliability and retries")."""
LEASE: Final = timedelta(seconds=60)
"""How long a message is somebody's who sends it; a worker that dies leaves it to the next one after that."""
DISABLED_AFTER: Final = timedelta(days=5)
GONE: Final = 410
KEPT: Final = timedelta(days=7)
MOST_KEPT: Final = 10_000
"""Messages of one webhook that wait, and that its log holds."""
AT_ONCE: Final = 16
"""Messages under way to one receiver, and to all of one tenant's: nobody's dead receivers keep what all share."""
PAGE: Final = 20
"""Webhooks for which one transaction makes out messages, so that none takes long."""
MOST_WEBHOOKS: Final = 20

# A retry with the same id changes nothing. What happened before is not sent.
CREATE: Final = """
    INSERT INTO webhook (tenant, id, url, events, digest, digest_at, digest_from, secret, sealed, created_at, format, audience)
    SELECT $1, $2, $3, $4, $5, $6, $8, '', $7, $8, $9, $10
     WHERE (SELECT count(*) FROM webhook WHERE tenant = $1) < $11
        ON CONFLICT (tenant, id) DO NOTHING
"""
ONE: Final = "SELECT * FROM webhook WHERE tenant = $1 AND id = $2"
ALL: Final = "SELECT * FROM webhook WHERE tenant = $1 ORDER BY created_at, id LIMIT 100"
DELETE: Final = "DELETE FROM webhook WHERE tenant = $1 AND id = $2 RETURNING *"

ACTIVE: Final = "SELECT EXISTS (SELECT FROM webhook WHERE status = 'active' AND tenant <> '')"

LOG: Final = """
    SELECT * FROM webhook_delivery
     WHERE tenant = $1 AND webhook_id = $2 AND ($3::bigint IS NULL OR number < $3) ORDER BY number DESC LIMIT $4
"""

# Whoever asks for it takes it to be there again.
REDELIVER: Final = """
    WITH again AS (
        UPDATE webhook_delivery SET state = 'pending', attempts = 0, due_at = $4
         WHERE tenant = $1 AND webhook_id = $2 AND id = $3
        RETURNING *
    ), able AS (
        UPDATE webhook SET status = 'active', failing_since = NULL
         WHERE tenant = $1 AND id = $2 AND status = 'disabled' AND EXISTS (SELECT FROM again)
    )
    SELECT * FROM again
"""

# The text that is signed is made here once. A block that is lifted lets a device be used as an operator's word does. Of
# tokens there is one where it changes what a device may do.
MAKE_OUT: Final = """
    WITH hook AS MATERIALIZED (
        SELECT w.* FROM webhook w
         WHERE w.status = 'active' AND w.tenant <> '' AND $2 > (
               SELECT count(*) FROM (SELECT FROM webhook_delivery d
                                      WHERE d.tenant = w.tenant AND d.webhook_id = w.id AND d.state = 'pending' LIMIT $2) waiting)
           AND EXISTS (SELECT FROM event e WHERE e.tenant = w.tenant AND (e.xact, e.id) > (w.xact, w.event_id)
                                             AND e.xact < txid_snapshot_xmin(txid_current_snapshot()))
         ORDER BY random() LIMIT $3
           FOR UPDATE
    ), news AS MATERIALIZED (
        SELECT h.id AS webhook_id, h.events, h.format, e.*,
               CASE WHEN e.kind <> 'device_changed' THEN e.kind
                    WHEN e.body ->> 'change' = 'default' AND e.body ->> 'was' = 'blocked' THEN 'device_allowed'
                    ELSE 'device_' || (e.body ->> 'change') END AS name
          FROM hook h, LATERAL (
               SELECT * FROM event
                WHERE tenant = h.tenant AND (xact, id) > (h.xact, h.event_id) AND xact < txid_snapshot_xmin(txid_current_snapshot())
                ORDER BY xact, id LIMIT 500) e
    ), made AS (
        INSERT INTO webhook_delivery (tenant, webhook_id, member_id, kind, payload, created_at, due_at)
        SELECT n.tenant, n.webhook_id, n.member_id, n.name,
               jsonb_build_object('type', n.name,
                                  'timestamp', to_char(n.at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                                  'data', jsonb_build_object('tenant', n.tenant, 'member_id', n.member_id) || n.body)::text,
               $1, $1
          FROM news n
         WHERE n.name = ANY(n.events)
           AND (n.format = 'standard'
                OR n.name = ANY($4::text[]) AND (n.name <> 'device_allowed' OR coalesce(n.body ->> 'was', 'blocked') = 'blocked'))
         ORDER BY n.xact, n.id
        RETURNING 1
    ), moved AS (
        UPDATE webhook w SET xact = l.xact, event_id = l.id
          FROM (SELECT DISTINCT ON (tenant, webhook_id) * FROM news ORDER BY tenant, webhook_id, xact DESC, id DESC) l
         WHERE w.tenant = l.tenant AND w.id = l.webhook_id
    )
    SELECT count(*) = $3 FROM hook
"""

# Of each member the first that waits, and no other before that is taken or given up. Of each tenant so many as leave
# room for others; who comes first is left to chance, so that nobody is always last.
CLAIM: Final = """
    UPDATE webhook_delivery d SET due_at = $1::timestamptz + $2::interval, attempts = d.attempts + 1, last_at = $1
      FROM (SELECT *, row_number() OVER (PARTITION BY tenant ORDER BY random())
                      + (SELECT count(*) FROM unnest($6::text[]) busy WHERE busy = due.tenant) AS place
              FROM (SELECT p.tenant, p.webhook_id, p.id, w.url, w.format, w.audience, w.secret, w.sealed
                      FROM webhook w, LATERAL (
                           SELECT * FROM webhook_delivery p
                            WHERE p.tenant = w.tenant AND p.webhook_id = w.id AND p.state = 'pending' AND p.due_at <= $1
                              AND NOT EXISTS (SELECT FROM webhook_delivery q
                                               WHERE q.tenant = p.tenant AND q.webhook_id = p.webhook_id AND q.state = 'pending'
                                                 AND coalesce(q.member_id, '') = coalesce(p.member_id, '') AND q.number < p.number)
                            LIMIT $3) p
                     WHERE w.status = 'active' AND w.tenant <> '' AND w.id <> ALL($4::uuid[])) due
             ORDER BY place, random() LIMIT $5) p
     WHERE p.place <= $3 AND d.tenant = p.tenant AND d.webhook_id = p.webhook_id AND d.id = p.id
    RETURNING d.*, p.url, p.format, p.audience, p.secret, p.sealed
"""

TAKEN: Final = """
    WITH able AS (
        UPDATE webhook SET failing_since = NULL WHERE tenant = $1 AND id = $2 AND failing_since IS NOT NULL
    )
    UPDATE webhook_delivery SET state = 'delivered', last_status = $4, last_error = NULL WHERE tenant = $1 AND webhook_id = $2 AND id = $3
"""

# What follows of the same member waits as long.
MISSED: Final = """
    WITH failing AS (
        UPDATE webhook SET failing_since = coalesce(failing_since, $4),
               status = CASE WHEN $8 OR failing_since < $4::timestamptz - $9::interval THEN 'disabled' ELSE status END
         WHERE tenant = $1 AND id = $2
        RETURNING status
    )
    UPDATE webhook_delivery d
       SET due_at = greatest(coalesce($5, d.due_at), CASE WHEN d.id = $3 THEN $5 ELSE d.due_at END),
           last_status = CASE WHEN d.id = $3 THEN $6 ELSE d.last_status END,
           last_error = CASE WHEN d.id = $3 THEN $7 ELSE d.last_error END,
           state = CASE WHEN f.status = 'disabled' OR (d.id = $3 AND $5::timestamptz IS NULL) THEN 'failed' ELSE d.state END
      FROM failing f, webhook_delivery m
     WHERE m.tenant = $1 AND m.webhook_id = $2 AND m.id = $3
       AND d.tenant = $1 AND d.webhook_id = $2 AND d.state = 'pending'
       AND (f.status = 'disabled' OR (coalesce(d.member_id, '') = coalesce(m.member_id, '') AND d.number >= m.number))
"""

EXPIRE: Final = """
    WITH old AS (
        SELECT d.tenant, d.webhook_id, d.id FROM webhook w, LATERAL (
               SELECT * FROM webhook_delivery
                WHERE tenant = w.tenant AND webhook_id = w.id AND state <> 'pending'
                  AND (created_at < $1 OR number < (SELECT number FROM webhook_delivery
                                                     WHERE tenant = w.tenant AND webhook_id = w.id ORDER BY number DESC OFFSET $3 LIMIT 1))
                LIMIT $2) d
         WHERE w.tenant <> '' LIMIT $2
    ), gone AS (
        DELETE FROM webhook_delivery d USING old o WHERE d.tenant = o.tenant AND d.webhook_id = o.webhook_id AND d.id = o.id RETURNING 1
    )
    SELECT count(*) FROM gone
"""


class WebhookStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(
        self, tenant: str, hook: Webhook, sealed: str, *, digest_at: datetime | None
    ) -> tuple[Webhook, Locked] | None:
        """Store a webhook if its id is new; it and its secret as they are stored, None when there are too many."""
        h = hook
        await self._db.row(
            CREATE,
            tenant,
            h.id,
            h.url,
            list(h.events),
            h.digest,
            digest_at,
            sealed,
            h.created_at,
            h.format,
            h.audience,
            MOST_WEBHOOKS,
        )
        row = await self._db.row(ONE, tenant, h.id)
        return None if row is None else (_webhook(row), locked(row))

    async def one(self, tenant: str, webhook_id: UUID) -> Webhook | None:
        """One webhook; None when there is none."""
        row = await self._db.row(ONE, tenant, webhook_id)
        return None if row is None else _webhook(row)

    async def all(self, tenant: str) -> Sequence[Webhook]:
        """The tenant's webhooks, the oldest first."""
        return [_webhook(row) for row in await self._db.fetch(ALL, tenant)]

    async def delete(self, tenant: str, webhook_id: UUID) -> Webhook | None:
        """Take one away with what it has; None when there is none."""
        row = await self._db.row(DELETE, tenant, webhook_id)
        return None if row is None else _webhook(row)

    async def log(
        self, tenant: str, webhook_id: UUID, *, after: int | None, limit: int
    ) -> Sequence[tuple[Delivery, int]]:
        """One page of a webhook's messages with their places, the newest first."""
        rows = await self._db.fetch(LOG, tenant, webhook_id, after, limit)
        return [(_delivery(row), row["number"]) for row in rows]

    async def redeliver(self, tenant: str, webhook_id: UUID, delivery_id: UUID, *, at: datetime) -> Delivery | None:
        """Send a message again, from `at` on, and switch its webhook on; None when there is no such message."""
        row = await self._db.row(REDELIVER, tenant, webhook_id, delivery_id, at)
        return None if row is None else _delivery(row)

    async def active(self) -> bool:
        """Whether any tenant has a webhook that is on."""
        return bool(await self._db.value(ACTIVE))

    async def make_out(self, now: datetime) -> bool:
        """Make out messages for what is new in the outbox, for PAGE webhooks; whether there may be more of them."""
        return bool(await self._db.value(MAKE_OUT, now, MOST_KEPT, PAGE, list(COUNTERPARTS)))

    async def claim(self, now: datetime, *, busy: Sequence[Parcel], most: int) -> Sequence[Parcel]:
        """At most so many messages that are due, for LEASE, AT_ONCE of a tenant with those that are `busy`; none of their webhooks."""
        hooks, tenants = list({each.webhook_id for each in busy}), [each.tenant for each in busy]
        rows = await self._db.fetch(CLAIM, now, LEASE, AT_ONCE, hooks, most, tenants)
        return [_parcel(row) for row in rows]

    async def settle(self, parcel: Parcel, outcome: Outcome, *, now: datetime) -> None:
        """Write down what became of a message; one that was not taken is tried again, or given up."""
        p = parcel
        if outcome.taken:
            await self._db.row(TAKEN, p.tenant, p.webhook_id, p.id, outcome.status)
            return
        due = now + LATER[p.attempts - 1] if p.attempts <= len(LATER) and not outcome.final else None
        gone = outcome.status == GONE
        await self._db.row(
            MISSED,
            p.tenant,
            p.webhook_id,
            p.id,
            now,
            due,
            outcome.status,
            outcome.error,
            gone,
            DISABLED_AFTER,
        )

    async def expire(self, now: datetime, most: int) -> int:
        """Delete at most so many messages of the log that are too old or too many; how many."""
        return int(await self._db.value(EXPIRE, now - KEPT, most, MOST_KEPT))


def _webhook(row: Row) -> Webhook:
    found: dict[str, Any] = {name: row[name] for name in Webhook.__struct_fields__}
    told = {"events": tuple(map(WebhookEvent, row["events"])), "format": WebhookFormat(row["format"])}
    return Webhook(**found | told | {"status": WebhookStatus(row["status"])})


def _parcel(row: Row) -> Parcel:
    found: dict[str, Any] = {name: row[name] for name in Parcel.__struct_fields__}
    return Parcel(**found | {"format": WebhookFormat(row["format"])})


def _delivery(row: Row) -> Delivery:
    plain = [name for name in Delivery.__struct_fields__ if name not in {"event", "due_at", "state"}]
    state = DeliveryState(row["state"])
    due = row["due_at"] if state is DeliveryState.PENDING else None
    return Delivery(event=row["kind"], due_at=due, state=state, **{name: row[name] for name in plain})
