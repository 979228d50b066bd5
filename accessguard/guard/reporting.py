"""Reports that take longer than a call: written portion by portion, as a job of this worker's, to be fetched for a week."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias
from uuid import UUID

import msgspec
import structlog

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.facts import from_ms
from accessguard.jobs.model import Job, JobKind
from accessguard.jobs.parts import PartStore
from accessguard.jobs.store import JobStore

MOST_RUNNING: Final = 2
"""In one worker, so that reports never take more than a part of its connections."""
PART_BYTES: Final = 256 * 1024
MOST_BYTES: Final = 1_073_741_824
"""A report of some ten million lines; what is longer is streamed, or asked for in parts."""
LOG: Final = structlog.get_logger("accessguard.reports")

Lines: TypeAlias = AsyncIterator[tuple[bytes, int]]
"""Portions of the file, each with the number of its rows."""


class ReportFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a report's job leaves: which report, how many rows and bytes, in which form, under which path."""

    report: str
    rows: int
    bytes: int
    content_type: str
    path: str


class Work(msgspec.Struct, frozen=True, kw_only=True):
    """A report to be written: `lines` begins it, `total` counts its rows."""

    report: str
    lines: Callable[[], Lines]
    total: Callable[[], Awaitable[int]]
    content_type: str


class Reporting:
    """At most two reports are written at a time in a worker; a third is refused with CONFLICT."""

    def __init__(self, *, db: Database, now_ms: Callable[[], int]) -> None:
        self._db = db
        self._now_ms = now_ms
        self._running: set[asyncio.Task[None]] = set()

    async def begin(self, tenant: str, job_id: UUID, work: Work) -> Job:
        """Begin to write; with an id that is already stored (a retry), answer how far that is.

        Raises GuardError: CONFLICT when as many are written as may, UNAVAILABLE.
        """
        store, now = JobStore(self._db), from_ms(self._now_ms())
        known = await store.one(tenant, job_id, now=now)
        if known is None and len(self._running) >= MOST_RUNNING:
            raise GuardError(ErrorCode.CONFLICT, "Two reports are written already; try again when one is done.")
        if known is None and await store.make(tenant, job_id, JobKind.REPORT, total=None, at=now):
            task = asyncio.create_task(self._write(tenant, job_id, work))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        job = known or await store.one(tenant, job_id, now=now)
        if job is None:
            raise GuardError(ErrorCode.UNAVAILABLE, "The job could not be kept; try again shortly.")
        return job

    async def stop(self) -> None:
        """End what is being written; its jobs say that they were interrupted."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _write(self, tenant: str, job_id: UUID, work: Work) -> None:
        store, error = JobStore(self._db), None
        try:
            await store.advance(tenant, job_id, 0, at=from_ms(self._now_ms()), total=await work.total())
            rows, size = await self._parts(tenant, job_id, work.lines())
            path = f"/v1/jobs/{job_id}/result"
            found = ReportFile(report=work.report, rows=rows, bytes=size, content_type=work.content_type, path=path)
            await store.finish(tenant, job_id, found, at=from_ms(self._now_ms()))
        except _TooLargeError:
            error = "too large"
        except GuardError:
            error = "the data could not be read"
        except asyncio.CancelledError:
            error = "interrupted"
        except Exception as failure:
            LOG.exception("report_failed", exc_info=failure)
            error = "failed"
        if error is not None:
            await self._fail(tenant, job_id, error)

    async def _parts(self, tenant: str, job_id: UUID, lines: Lines) -> tuple[int, int]:
        """Keep the file in parts; how many rows and bytes it has."""
        kept, number, rows, size = bytearray(), 0, 0, 0
        async for portion, more in lines:
            kept += portion
            rows, size = rows + more, size + len(portion)
            if size > MOST_BYTES:
                raise _TooLargeError
            if len(kept) >= PART_BYTES:
                await self._keep(tenant, job_id, number, bytes(kept), rows)
                kept.clear()
                number += 1
        await self._keep(tenant, job_id, number, bytes(kept), rows)
        return rows, size

    async def _keep(self, tenant: str, job_id: UUID, number: int, body: bytes, rows: int) -> None:
        await PartStore(self._db).put(tenant, job_id, number, body)
        if not await JobStore(self._db).advance(tenant, job_id, rows, at=from_ms(self._now_ms())):
            raise asyncio.CancelledError  # the job is gone, and nobody waits for it

    async def _fail(self, tenant: str, job_id: UUID, error: str) -> None:
        try:
            await JobStore(self._db).fail(tenant, job_id, error, at=from_ms(self._now_ms()))
        except GuardError:
            LOG.warning("report_not_ended", reason=error)  # whoever asks is told so after five minutes


class _TooLargeError(Exception):
    """The report grows beyond what is kept."""
