"""Jobs that are done portion by portion: several at once in a worker, and those that another one left alone.

What a portion comes to and that it is done are one transaction where the
step's work is PostgreSQL's alone; so a worker may die at any moment.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol
from uuid import UUID

import structlog

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.acts import Act, log
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.jobs.model import JobKind, Task
from accessguard.jobs.portions import PortionStore
from accessguard.jobs.store import JobStore

MOST_AT_ONCE: Final = 4
"""Jobs of one worker, those whose file still comes among them."""
LOOK_S: Final = 30.0
MOST_GIVEN_UP: Final = 100
PAUSE_S: Final = 0.001
"""How long checks and logins have the loop to themselves after each portion."""
LONGEST_PAUSE_S: Final = 5.0
TRIES: Final = 200
"""In a row, with pauses: a quarter of an hour, in which PostgreSQL takes nothing."""
LOG: Final = structlog.get_logger("accessguard.jobs")


class Step(Protocol):
    """Does jobs of one kind."""

    async def step(self, task: Task) -> bool:
        """Do the next portion; False when none is left. Raises GuardError: UNAVAILABLE is tried again."""

    async def result(self, tx: Database, task: Task) -> Mapping[str, Any]:
        """What came of all of it."""

    def audited(self, task: Task) -> tuple[str, str | None]:
        """The action as the audit log names it, and why it was done."""


class Runner:
    """One in each worker."""

    def __init__(
        self,
        *,
        db: Database,
        steps: Mapping[JobKind, Step],
        new_id: Callable[[], UUID],
        now_ms: Callable[[], int],
    ) -> None:
        self._db = db
        self._steps = steps
        self._new_id = new_id
        self._now_ms = now_ms
        self._going: dict[UUID, asyncio.Task[None]] = {}
        self.coming = 0

    @property
    def room(self) -> int:
        """How many more jobs this worker takes."""
        return max(0, MOST_AT_ONCE - len(self._going) - self.coming)

    @contextlib.contextmanager
    def place(self) -> Any:
        """Take a place for a job whose portions still come. Raises GuardError(CONFLICT) when there is none."""
        if not self.room:
            raise GuardError(
                ErrorCode.CONFLICT, f"{MOST_AT_ONCE} jobs are going on already; try again when one is done."
            )
        self.coming += 1
        try:
            yield
        finally:
            self.coming -= 1

    def start(self, tenant: str, job_id: UUID) -> None:
        """Begin with a job, or go on with it."""
        if job_id in self._going:
            return
        going = asyncio.create_task(self._go(tenant, job_id))
        self._going[job_id] = going
        going.add_done_callback(lambda _: self._going.pop(job_id, None))

    async def run(self) -> None:
        """Take up what others left, until cancelled."""
        while True:
            try:
                await self.look()
            except GuardError as error:
                LOG.warning("jobs_not_looked_at", reason=error.code)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """End what never began, and take up what nobody works on."""
        now, store = from_ms(self._now_ms()), PortionStore(self._db)
        await store.give_up(now, MOST_GIVEN_UP)
        for tenant, job_id in await store.take_up(now, self.room) if self.room else ():
            self.start(tenant, job_id)

    async def stop(self) -> None:
        """Leave what is going on to whoever looks next."""
        going = tuple(self._going.values())
        for each in going:
            each.cancel()
        await asyncio.gather(*going, return_exceptions=True)

    async def wait(self, job_id: UUID) -> None:
        """Until this worker has done with a job, well or badly."""
        going = self._going.get(job_id)
        if going is not None:
            await asyncio.wait({going})

    async def _go(self, tenant: str, job_id: UUID) -> None:
        failures = 0
        while True:
            try:
                if await self._over(tenant, job_id):
                    return
                failures = 0
                await asyncio.sleep(PAUSE_S)
            except GuardError as error:
                failures += 1
                if error.code is not ErrorCode.UNAVAILABLE or failures >= TRIES:
                    await self._failed(tenant, job_id, error)
                    return
                await asyncio.sleep(min(LONGEST_PAUSE_S, 0.05 * 2 ** min(failures, 10)))
            except Exception as error:
                LOG.exception("job_failed", job=str(job_id), exc_info=error)
                await self._failed(tenant, job_id, error)
                return

    async def _over(self, tenant: str, job_id: UUID) -> bool:
        """Do one portion; True when there is nothing left to do."""
        task = await PortionStore(self._db).task(tenant, job_id)
        if task is None:
            return True
        step = self._steps[task.kind]
        if await step.step(task):
            return False
        await self._finish(step, task)
        return True

    async def _finish(self, step: Step, task: Task) -> None:
        now = from_ms(self._now_ms())
        action, reason = step.audited(task)
        async with self._db.transaction() as tx:
            last = await PortionStore(tx).task(task.tenant, task.id)
            if last is None:
                return
            result = await step.result(tx, last)
            if await JobStore(tx).finish(task.tenant, task.id, result, at=now):
                actor = Actor(subject=task.actor, role=task.role)
                act = Act(tenant=task.tenant, actor=actor, action=action, target=str(task.id), reason=reason, at=now)
                await log(tx, act, None, last.counts, entry_id=self._new_id())

    async def _failed(self, tenant: str, job_id: UUID, error: Exception) -> None:
        """Say that it came to nothing more; what was done by then stays done."""
        why = error.message if isinstance(error, GuardError) else "something went wrong here; it has been logged"
        with contextlib.suppress(GuardError):
            await JobStore(self._db).fail(tenant, job_id, why, at=from_ms(self._now_ms()))
