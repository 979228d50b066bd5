"""Jobs in PostgreSQL."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.jobs.model import KEPT, Job, JobKind, JobState, as_it_stands

# What nobody can read any more goes when something new comes.
MAKE: Final = """
    WITH expired AS (
        DELETE FROM job WHERE tenant = $1 AND expires_at <= $4
    )
    INSERT INTO job (tenant, id, kind, state, total, created_at, updated_at, expires_at)
    VALUES ($1, $2, $3, 'waiting', $6, $4, $4, $5) ON CONFLICT (tenant, id) DO NOTHING RETURNING id
"""

ADVANCE: Final = """
    UPDATE job SET state = 'running', progress = greatest(progress, $3), total = coalesce($4, total), updated_at = greatest(updated_at, $5)
     WHERE tenant = $1 AND id = $2 AND state IN ('waiting', 'running') RETURNING id
"""

# What was asked for has been told to the audit log by then, and may name somebody.
FINISH: Final = """
    UPDATE job SET state = $3, result = $4, error = $5, asked = NULL, updated_at = greatest(updated_at, $6), expires_at = $7
     WHERE tenant = $1 AND id = $2 AND state IN ('waiting', 'running') RETURNING id
"""

ONE: Final = "SELECT * FROM job WHERE tenant = $1 AND id = $2 AND expires_at > $3"

# Of every tenant, by its own index.
EXPIRE: Final = """
    WITH gone AS (
        DELETE FROM job WHERE ctid = ANY(ARRAY(
            SELECT old.ctid
              FROM tenant t CROSS JOIN LATERAL (
                   SELECT j.ctid FROM job j WHERE j.tenant = t.id AND j.expires_at <= $1 LIMIT $2 FOR UPDATE SKIP LOCKED) old
             LIMIT $2))
        RETURNING 1
    )
    SELECT count(*) FROM gone
"""


class JobStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def make(self, tenant: str, job_id: UUID, kind: JobKind, *, total: int | None, at: datetime) -> bool:
        """Store a job that waits; False when one of that id is there already (a retry)."""
        return await self._db.row(MAKE, tenant, job_id, kind, at, at + KEPT, total) is not None

    async def advance(
        self, tenant: str, job_id: UUID, progress: int, *, at: datetime, total: int | None = None
    ) -> bool:
        """Say how far it is; to be told every minute or so. False when it is over or unknown, and nobody need go on."""
        return await self._db.row(ADVANCE, tenant, job_id, progress, total, at) is not None

    async def finish(self, tenant: str, job_id: UUID, result: Any, *, at: datetime) -> bool:
        """Store the result; False when it is over or unknown."""
        return await self._db.row(FINISH, tenant, job_id, JobState.DONE, result, None, at, at + KEPT) is not None

    async def fail(self, tenant: str, job_id: UUID, error: str, *, at: datetime) -> bool:
        """Store why it came to nothing, in a word or a sentence without anything personal; False when it is over."""
        return await self._db.row(FINISH, tenant, job_id, JobState.FAILED, None, error, at, at + KEPT) is not None

    async def expire(self, now: datetime, most: int) -> int:
        """Delete at most so many jobs whose result nobody can read any more; how many."""
        return int(await self._db.value(EXPIRE, now, most))

    async def one(self, tenant: str, job_id: UUID, *, now: datetime) -> Job | None:
        """A job as it stands; None when it is unknown or its result is no longer kept."""
        row = await self._db.row(ONE, tenant, job_id, now)
        if row is None:
            return None
        words = {"kind", "state", "result"}
        job = Job(
            kind=JobKind(row["kind"]),
            state=JobState(row["state"]),
            result=None if row["result"] is None else msgspec.json.decode(row["result"]),
            **{name: row[name] for name in Job.__struct_fields__ if name not in words},
        )
        return as_it_stands(job, now)
