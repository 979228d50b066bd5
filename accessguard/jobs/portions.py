"""Jobs that are done portion by portion, in PostgreSQL: what is done is gone in the same transaction, so whoever goes on loses nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.database import Database, Row
from accessguard.jobs.model import KEPT, SILENT, JobKind, Portion, Refusal, Task

MOST_REFUSALS: Final = 10_000
"""Refused lines of one job that are kept; all of them are counted."""
ALONE: Final = timedelta(minutes=1)
"""Whoever does a job tells of it more often than this; then another worker goes on."""

# What nobody can read any more goes when something new comes.
BEGIN: Final = """
    INSERT INTO job (tenant, id, kind, state, total, created_at, updated_at, expires_at, actor, role, asked)
    VALUES ($1, $2, $3, 'waiting', 0, $4, $4, $5, $6, $7, $8) RETURNING id
"""

PUT: Final = """
    WITH grown AS (
        UPDATE job SET total = total + $5, updated_at = greatest(updated_at, $7)
         WHERE tenant = $1 AND id = $2 AND state = 'waiting' AND NOT ready RETURNING id
    )
    INSERT INTO job_portion (tenant, job_id, number, first_line, lines, body)
    SELECT $1, id, $3, $4, $5, $6 FROM grown RETURNING number
"""

READY: Final = """
    UPDATE job SET ready = true, state = 'running', total = coalesce($4, total), updated_at = greatest(updated_at, $3)
     WHERE tenant = $1 AND id = $2 AND state = 'waiting' AND NOT ready RETURNING id
"""

DROP: Final = "DELETE FROM job WHERE tenant = $1 AND id = $2"

TASK: Final = """
    SELECT tenant, id, kind, actor, role, asked, counts FROM job WHERE tenant = $1 AND id = $2 AND state = 'running' AND ready
"""

# The lock keeps two who do the same job (one was thought dead) from doing a portion twice.
NEXT: Final = """
    SELECT number, first_line, lines, body FROM job_portion
     WHERE tenant = $1 AND job_id = $2 ORDER BY number LIMIT 1 FOR UPDATE
"""

# Held from here on, so that an erasure comes before the portion or after it.
ERASED: Final = """
    SELECT ARRAY(SELECT subject FROM import_erased WHERE tenant = $1 AND job_id = $2) AS erased
"""
HOLD: Final = "SELECT id FROM job WHERE tenant = $1 AND id = $2 FOR NO KEY UPDATE"

DONE: Final = """
    WITH gone AS (
        DELETE FROM job_portion WHERE tenant = $1 AND job_id = $2 AND number = $3 RETURNING lines
    )
    UPDATE job SET progress = progress + gone.lines, updated_at = greatest(updated_at, $5),
                   counts = (SELECT jsonb_object_agg(coalesce(c.key, n.key), coalesce(c.value::bigint, 0) + coalesce(n.value::bigint, 0))
                               FROM jsonb_each_text(job.counts) c FULL JOIN jsonb_each_text($4) n ON n.key = c.key)
      FROM gone
     WHERE job.tenant = $1 AND job.id = $2 AND job.state = 'running'
    RETURNING job.id
"""

REFUSE: Final = """
    INSERT INTO job_refusal (tenant, job_id, line, pointer, detail)
    SELECT $1, $2, r.line, r.pointer, r.detail
      FROM jsonb_to_recordset($3) AS r(line bigint, pointer text, detail text)
     LIMIT greatest(0, $4 - (SELECT count(*) FROM job_refusal WHERE tenant = $1 AND job_id = $2))
        ON CONFLICT DO NOTHING
"""

REFUSALS: Final = """
    SELECT line, pointer, detail FROM job_refusal WHERE tenant = $1 AND job_id = $2 AND line > $3 ORDER BY line LIMIT $4
"""

# What has not begun when its time is over never will: the caller has gone, or did not confirm it.
GIVE_UP: Final = """
    WITH given AS (
        UPDATE job SET state = 'failed', error = 'interrupted'
         WHERE ctid = ANY(ARRAY(
               SELECT old.ctid
                 FROM tenant t CROSS JOIN LATERAL (
                      SELECT j.ctid FROM job j WHERE j.tenant = t.id AND j.expires_at > $1 AND j.state = 'waiting' AND j.actor IS NOT NULL
                         AND NOT j.ready AND j.updated_at < $1 - $2::interval FOR UPDATE SKIP LOCKED) old
                LIMIT $3))
        RETURNING tenant, id
    ), swept AS (
        DELETE FROM job_portion p USING given g WHERE p.tenant = g.tenant AND p.job_id = g.id
    )
    SELECT count(*) FROM given
"""

TAKE_UP: Final = """
    UPDATE job SET updated_at = $1
     WHERE ctid = ANY(ARRAY(
           SELECT old.ctid
             FROM tenant t CROSS JOIN LATERAL (
                  SELECT j.ctid FROM job j WHERE j.tenant = t.id AND j.expires_at > $1 AND j.state = 'running' AND j.ready
                     AND j.updated_at < $1 - $2::interval FOR UPDATE SKIP LOCKED) old
            LIMIT $3))
    RETURNING tenant, id
"""


class PortionStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(
        self, tenant: str, job_id: UUID, kind: JobKind, *, actor: str, role: str, asked: Any, at: datetime
    ) -> None:
        """Store a job whose portions are to come; until `ready`, nobody does any of it."""
        await self._db.row(BEGIN, tenant, job_id, kind, at, at + KEPT, actor, role, asked)

    async def put(self, tenant: str, job_id: UUID, portion: Portion, *, at: datetime) -> bool:
        """Add a portion; False when the job waits for none (it was too slow, and has been given up)."""
        p = portion
        return await self._db.row(PUT, tenant, job_id, p.number, p.first_line, p.lines, p.body, at) is not None

    async def ready(self, tenant: str, job_id: UUID, *, at: datetime, total: int | None = None) -> bool:
        """Say that all portions are there; False when it was said before, or the job is gone."""
        return await self._db.row(READY, tenant, job_id, at, total) is not None

    async def drop(self, tenant: str, job_id: UUID) -> None:
        """Forget a job with all that belongs to it."""
        await self._db.row(DROP, tenant, job_id)

    async def task(self, tenant: str, job_id: UUID) -> Task | None:
        """What is to be done; None when that is over, or has not begun."""
        row = await self._db.row(TASK, tenant, job_id)
        return None if row is None else _task(row)

    async def next(self, tenant: str, job_id: UUID) -> Portion | None:
        """The first portion that is left, held until the transaction ends; None when all is done."""
        row = await self._db.row(NEXT, tenant, job_id)
        return None if row is None else Portion(**dict(row))

    async def erased(self, tenant: str, job_id: UUID) -> frozenset[str]:
        """Who was erased since the job began (`guard/subjects.py`); until the transaction ends, nobody else is."""
        await self._db.row(HOLD, tenant, job_id)
        return frozenset(await self._db.value(ERASED, tenant, job_id))

    async def done(
        self, tenant: str, job_id: UUID, portion: Portion, counts: Mapping[str, int], *, at: datetime
    ) -> bool:
        """Take a portion away, and add what came of it; False when another one did."""
        return await self._db.row(DONE, tenant, job_id, portion.number, counts, at) is not None

    async def refuse(self, tenant: str, job_id: UUID, refused: Sequence[Refusal]) -> None:
        """Keep which lines were refused, up to MOST_REFUSALS of a job."""
        if refused:
            await self._db.row(REFUSE, tenant, job_id, refused, MOST_REFUSALS)

    async def refusals(self, tenant: str, job_id: UUID, *, after: int, limit: int) -> Sequence[Refusal]:
        """Refused lines after a line, in order."""
        return [Refusal(**dict(row)) for row in await self._db.fetch(REFUSALS, tenant, job_id, after, limit)]

    async def give_up(self, now: datetime, most: int) -> int:
        """End what has not begun in time, and let go of what it was to do; how many."""
        return int(await self._db.value(GIVE_UP, now, SILENT, most))

    async def take_up(self, now: datetime, most: int) -> Sequence[tuple[str, UUID]]:
        """Jobs (tenant, id) that nobody works on any more; from now on it is the caller who does."""
        return [(row["tenant"], row["id"]) for row in await self._db.fetch(TAKE_UP, now, ALONE, most)]


def _task(row: Row) -> Task:
    return Task(
        tenant=row["tenant"],
        id=row["id"],
        kind=JobKind(row["kind"]),
        actor=row["actor"],
        role=row["role"],
        asked=row["asked"],
        counts=msgspec.json.decode(row["counts"], type=dict[str, int]),
    )
