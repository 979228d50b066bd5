"""A job as it is done and as callers see it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

import msgspec

SILENT: Final = timedelta(minutes=5)
"""Whoever does a job tells of its progress more often than this; after such a silence, its process has ended."""

KEPT: Final = timedelta(days=7)
"""How long the result of a job can be read."""


class JobKind(StrEnum):
    """What there is to do."""

    IMPORT = "import"
    SIMULATE = "simulate"
    REPORT = "report"
    BULK = "bulk"


class JobState(StrEnum):
    """Waiting and running go on; done and failed are the end."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """One job: `progress` out of `total` (None: not known), its `result` when done, `error` when failed."""

    id: UUID
    kind: JobKind
    state: JobState
    progress: int
    total: int | None
    result: Any
    error: str | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A job from the side of whoever does it: `asked` by whom, and what came of it so far."""

    tenant: str
    id: UUID
    kind: JobKind
    actor: str
    role: str
    asked: msgspec.Raw
    counts: Mapping[str, int]


class Portion(msgspec.Struct, frozen=True, kw_only=True):
    """A part of what a job still has to do: `lines` of them, the first of which is `first_line` (from 1)."""

    number: int
    first_line: int
    lines: int
    body: bytes


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """A line that was not taken, and why; `pointer` is a JSON pointer to the field (empty: the line itself)."""

    line: int
    pointer: str
    detail: str


def as_it_stands(job: Job, now: datetime) -> Job:
    """The job, failed when nobody has worked on it for too long."""
    if job.state in {JobState.DONE, JobState.FAILED} or now - job.updated_at < SILENT:
        return job
    return msgspec.structs.replace(job, state=JobState.FAILED, error="interrupted")
