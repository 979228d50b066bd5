"""Retries of calls that create something: the same key leads to the same id, and the id to the same row."""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError

CLAIM: Final = """
    INSERT INTO idempotency AS i (tenant, caller, key, fingerprint, made_id, at)
    VALUES ($1, $2, $3, $4, $5, $6)
        ON CONFLICT (tenant, caller, key) DO UPDATE SET key = i.key
    RETURNING made_id, fingerprint
"""

EXPIRE: Final = """
    WITH gone AS (
        DELETE FROM idempotency WHERE ctid = ANY(ARRAY(
            SELECT ctid FROM idempotency WHERE at < $1 ORDER BY at LIMIT $2 FOR UPDATE SKIP LOCKED))
        RETURNING 1
    )
    SELECT count(*) FROM gone
"""

KEPT: Final = timedelta(hours=72)
"""How long a retry leads to the same row: a weekend during which a caller's queue stood still."""


class IdempotencyStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def made_id(self, tenant: str, caller: str, key: str, content: bytes, *, fresh: UUID, at: datetime) -> UUID:
        """The id of what `key` creates: `fresh` the first time, the same again on every retry.

        Raises GuardError(UNPROCESSABLE) when the key came with another content
        before (draft-ietf-httpapi-idempotency-key-header, section 2.7).
        """
        fingerprint = hashlib.sha256(content).digest()
        row = await self._db.row(CLAIM, tenant, caller, key, fingerprint, fresh, at)
        if row is None:
            raise GuardError(ErrorCode.UNAVAILABLE, "The idempotency key could not be kept; try again shortly.")
        if not hmac.compare_digest(row["fingerprint"], fingerprint):
            raise GuardError(ErrorCode.UNPROCESSABLE, "This Idempotency-Key was used for another request.")
        made: UUID = row["made_id"]
        return made

    async def expire(self, now: datetime, most: int) -> int:
        """Delete at most so many keys that are older than KEPT, the oldest first; how many."""
        return int(await self._db.value(EXPIRE, now - KEPT, most))
