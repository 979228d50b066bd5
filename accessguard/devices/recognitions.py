"""What was told of each distinct string, in PostgreSQL: of all tenants together, and nobody's."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from accessguard.database import Database
from accessguard.devices.browser import DeviceClass
from accessguard.devices.refinement import Refined

CLAIM: Final = timedelta(minutes=3)
"""How long one worker has for one string before another may take it over: three times the slowest answer."""
READ_S: Final = 0.25
"""How long a login waits for what was told before; then the first look stands."""
TOUCH: Final = timedelta(days=1)
"""How exactly it is known when a string was used last."""
UNUSED: Final = timedelta(days=90)
MOST: Final = 500_000
"""About 100 MB; ten times what a school of a million sends in three months."""
AT_ONCE: Final = 10_000

# No tenant: it is the same string for all of them, and which of them sent it is not kept.
READ: Final = """
    WITH touched AS (
        UPDATE recognition SET used_at = $3::timestamptz WHERE key = $1 AND version = $2 AND used_at < $3::timestamptz - $4::interval
    )
    SELECT device_class, model, name FROM recognition WHERE key = $1 AND version = $2 AND refined_at IS NOT NULL
"""

CLAIMED: Final = """
    INSERT INTO recognition AS r (key, version, claimed_at, used_at) VALUES ($1, $2, $3, $3)
        ON CONFLICT (key, version) DO UPDATE SET claimed_at = excluded.claimed_at
     WHERE r.refined_at IS NULL AND r.claimed_at < excluded.claimed_at - $4::interval
 RETURNING key
"""

KEEP: Final = """
    UPDATE recognition SET refined_at = $3, device_class = $4, model = $5, name = $6 WHERE key = $1 AND version = $2
"""

SWEEP: Final = """
    WITH over AS (
        SELECT key, version FROM recognition
         WHERE used_at < greatest($1::timestamptz, (SELECT used_at FROM recognition ORDER BY used_at DESC OFFSET $2 LIMIT 1))
         ORDER BY used_at LIMIT $3 FOR UPDATE SKIP LOCKED
    ), gone AS (
        DELETE FROM recognition r USING over o WHERE r.key = o.key AND r.version = o.version RETURNING 1
    )
    SELECT count(*) FROM gone
"""


class RecognitionStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach. `version` is the recogniser's."""

    def __init__(self, db: Database, *, version: str) -> None:
        self._db = db
        self._version = version

    async def read(self, key: bytes, *, now: datetime) -> Refined | None:
        """What was told of a string, noting that it was asked for; None when nobody has told yet."""
        row = await self._db.row(READ, key, self._version, now, TOUCH, timeout_s=READ_S)
        if row is None:
            return None
        told = row["device_class"]
        return Refined(device_class=told and DeviceClass(told), model=row["model"], name=row["name"])

    async def claim(self, key: bytes, *, now: datetime) -> bool:
        """Take a string on; False when it is told already, or another worker is at it."""
        return await self._db.row(CLAIMED, key, self._version, now, CLAIM) is not None

    async def keep(self, key: bytes, told: Refined, *, now: datetime) -> None:
        """Store what was told of a string that was claimed."""
        await self._db.row(KEEP, key, self._version, now, told.device_class, told.model, told.name)

    async def sweep(self, *, now: datetime, unused: timedelta = UNUSED, most: int = MOST, limit: int = AT_ONCE) -> int:
        """Drop what nobody has used for `unused`, and what is more than `most`, longest unused first.

        At most `limit` rows at a time; returns how many. May run on all workers at once.
        """
        row = await self._db.row(SWEEP, now - unused, most, limit)
        return int(row[0]) if row is not None else 0
