"""Messages about members that no change of theirs makes: who wants them, and making them out."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from accessguard.database import Database
from accessguard.events.webhooks import WebhookEvent

# Tenants who want to be told of members at risk, one that was not looked at for the longest; whoever asks has it.
LOOK: Final = """
    WITH next AS (
        SELECT tenant, id FROM webhook
         WHERE tenant <> '' AND status = 'active' AND 'member_at_risk' = ANY(events)
           AND coalesce(risk_at, '-infinity') <= $1::timestamptz - $2::interval
         ORDER BY risk_at NULLS FIRST, tenant, id LIMIT 1 FOR UPDATE SKIP LOCKED
    ), looked AS (
        UPDATE webhook w SET risk_at = $1 FROM next WHERE w.tenant = next.tenant AND 'member_at_risk' = ANY(w.events)
    )
    SELECT tenant FROM next
"""

TELL: Final = """
    INSERT INTO webhook_delivery (tenant, webhook_id, member_id, kind, payload, created_at, due_at)
    SELECT w.tenant, w.id, t.member_id, $2::text,
           jsonb_build_object('type', $2::text, 'timestamp', to_char($3::timestamptz AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'),
                              'data', jsonb_build_object('tenant', w.tenant, 'member_id', t.member_id) || t.body)::text, $3, $3
      FROM webhook w, jsonb_to_recordset($4) AS t(member_id text, body jsonb)
     WHERE w.tenant = $1 AND w.status = 'active' AND $2::text = ANY(w.events)
"""


class TellingStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def look(self, now: datetime, *, every: timedelta) -> str | None:
        """A tenant whose members are to be looked at now, by whoever asks; None when there is none."""
        found: str | None = await self._db.value(LOOK, now, every)
        return found

    async def tell(self, tenant: str, event: WebhookEvent, about: Mapping[str, Any], *, at: datetime) -> None:
        """Make out messages about members, by their ids, for those who want them."""
        told = [{"member_id": member_id, "body": body} for member_id, body in about.items()]
        await self._db.row(TELL, tenant, event, at, told)
