"""Work that takes longer than a page: how far it is, and what came of it."""

from __future__ import annotations

from typing import Final

import msgspec
from aiohttp import web

from accessguard.api import jobs as api_jobs
from accessguard.console.charts import days
from accessguard.console.pen import page
from accessguard.guard.simulation import Simulation
from accessguard.jobs.model import Job, JobKind, JobState

OVER: Final = frozenset({JobState.DONE, JobState.FAILED})


async def progress(request: web.Request) -> web.StreamResponse:
    """How far a job is, and what came of it; a rule that was tried says whom it would have stopped."""
    job = await api_jobs.seen(request)
    found = _simulated(job)
    chart = days([(each.day, each.denials) for each in found.by_day]) if found else ()
    return page(request, "job.html", {"job": job, "over": job.state in OVER, "found": found, "chart": chart})


def _simulated(job: Job) -> Simulation | None:
    if job.kind is not JobKind.SIMULATE or job.state is not JobState.DONE:
        return None
    return msgspec.convert(job.result, Simulation, strict=False)
