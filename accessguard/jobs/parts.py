"""What jobs leave to be fetched, in parts: any worker can give it, and it goes with its job."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from accessguard.database import Database

# The lock: nothing comes to a job that somebody else is ending (`DROP_NAMES`).
PUT: Final = """
    INSERT INTO job_part (tenant, job_id, number, body)
    SELECT tenant, id, $3::integer, $4::bytea FROM job
     WHERE tenant = $1 AND id = $2 AND state IN ('waiting', 'running') FOR SHARE
        ON CONFLICT DO NOTHING
"""

GET: Final = "SELECT body FROM job_part WHERE tenant = $1 AND job_id = $2 AND number = $3"

# Days name nobody. What is still being written ends at its next part.
DROP_NAMES: Final = """
    WITH ended AS (
        UPDATE job SET state = 'failed', result = NULL, error = 'a member was erased since'
         WHERE tenant = $1 AND kind = 'report' AND state <> 'failed' AND (result IS NULL OR result ->> 'report' IN ('access', 'sharing'))
        RETURNING id
    )
    DELETE FROM job_part WHERE tenant = $1 AND job_id IN (SELECT id FROM ended)
"""


class PartStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def put(self, tenant: str, job_id: UUID, number: int, body: bytes) -> None:
        """Keep a part; numbers begin at 0 and leave none out. Nothing is kept for a job that is over or gone."""
        await self._db.row(PUT, tenant, job_id, number, body)

    async def drop_names(self, tenant: str) -> None:
        """Let go of every file that names members; to be called when one of them is erased."""
        await self._db.row(DROP_NAMES, tenant)

    async def get(self, tenant: str, job_id: UUID, number: int) -> bytes | None:
        """One part; None after the last."""
        found: bytes | None = await self._db.value(GET, tenant, job_id, number)
        return found
