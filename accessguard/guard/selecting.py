"""Many members chosen by their ids or by the directory's filter, for one action: prepared, confirmed where it must be, done as a job."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.bulk import CONFIRMED, Actions, Batch, BulkAction, Order
from accessguard.guard.confirmation import Confirmation, Confirmations
from accessguard.guard.facts import from_ms
from accessguard.guard.model import Actor
from accessguard.guard.running import Runner
from accessguard.jobs.model import Job, JobKind, JobState, Portion, Task
from accessguard.jobs.portions import PortionStore
from accessguard.jobs.store import JobStore
from accessguard.listing import onward
from accessguard.members.bulk import BulkStore
from accessguard.members.directory import Directory
from accessguard.members.model import MemberFilter, MemberSort
from accessguard.policies.book import PolicyBook

MOST_SELECTED: Final = 100_000
"""Members of one job; a filter that fits more is too wide to be meant."""
PAGE: Final = 200
"""Members of one portion, and of one transaction: some 100 ms."""
SHOWN: Final = 20


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """Either the ids themselves, in order and each once, or a filter as the list of members takes it."""

    ids: tuple[str, ...] | None = None
    filter: MemberFilter | None = None


class Preview(msgspec.Struct, frozen=True, kw_only=True):
    """What a call would do, and to whom; it has done nothing yet. Shown again with `confirmation`, exactly that is done."""

    action: BulkAction
    members: int
    examples: tuple[str, ...]
    confirmation: str
    expires_at: datetime


class Bulk:
    """Every method raises GuardError: INVALID, CONFLICT when as many jobs are going on as may, UNAVAILABLE."""

    def __init__(
        self,
        *,
        db: Database,
        members: Directory,
        book: PolicyBook,
        actions: Actions,
        confirmations: Confirmations,
        runner: Runner,
        now_ms: Callable[[], int],
    ) -> None:
        self._db = db
        self._members = members
        self._book = book
        self._actions = actions
        self._confirmations = confirmations
        self._runner = runner
        self._now_ms = now_ms

    async def ask(self, tenant: str, actor: Actor, job_id: UUID, order: Order, selection: Selection) -> Job | Preview:
        """Begin a job, or say what it would do where that cannot be undone; with an id that is there (a retry), the same again.

        The members are those of this moment, whatever a filter fits later.
        """
        if order.action not in self._actions:
            raise _refused("/action", "is not among what this service can do")
        store, now = JobStore(self._db), from_ms(self._now_ms())
        job = await store.one(tenant, job_id, now=now)
        if job is None:
            await self._prepared(tenant, actor, job_id, order, selection)
            if order.action not in CONFIRMED:
                await self._begun(tenant, job_id)
            job = await store.one(tenant, job_id, now=now)
        if job is None:
            raise GuardError(ErrorCode.UNAVAILABLE, "The job could not be kept; try again shortly.")
        if order.action in CONFIRMED and job.state is JobState.WAITING:
            return await self._preview(tenant, actor, job, order, selection)
        return job

    async def confirm(self, tenant: str, actor: Actor, order: Order, selection: Selection, token: str) -> Job:
        """Begin what was prepared, once; shown again, the token leads to the same job."""
        now = from_ms(self._now_ms())
        job_id = self._confirmations.read(token, tenant, actor, _what(order, selection), now=now)
        if not self._runner.room:
            raise GuardError(ErrorCode.CONFLICT, "Too many jobs are going on already; try again when one is done.")
        await self._begun(tenant, job_id)
        job = await JobStore(self._db).one(tenant, job_id, now=now)
        if job is None or job.state is JobState.WAITING:
            raise _refused("/confirmation", "has expired; ask again without it")
        return job

    async def _begun(self, tenant: str, job_id: UUID) -> None:
        if await PortionStore(self._db).ready(tenant, job_id, at=from_ms(self._now_ms())):
            self._runner.start(tenant, job_id)

    async def _preview(self, tenant: str, actor: Actor, job: Job, order: Order, selection: Selection) -> Preview:
        now = from_ms(self._now_ms())
        given: Confirmation = self._confirmations.give(tenant, actor, _what(order, selection), about=job.id, now=now)
        first = await PortionStore(self._db).next(tenant, job.id)
        examples = _ids(first)[:SHOWN] if first else ()
        return Preview(
            action=order.action,
            members=job.total or 0,
            examples=examples,
            confirmation=given.token,
            expires_at=given.expires_at,
        )

    async def _prepared(self, tenant: str, actor: Actor, job_id: UUID, order: Order, selection: Selection) -> None:
        store, now = PortionStore(self._db), from_ms(self._now_ms())
        with self._runner.place():
            try:
                await store.begin(
                    tenant, job_id, JobKind.BULK, actor=actor.subject, role=actor.role, asked=order, at=now
                )
                await self._staged(store, tenant, actor, job_id, selection)
            except BaseException:
                with contextlib.suppress(GuardError):
                    await store.drop(tenant, job_id)
                raise

    async def _staged(self, store: PortionStore, tenant: str, actor: Actor, job_id: UUID, selection: Selection) -> None:
        number, first = 0, 1
        async for ids in self._pages(tenant, actor, selection):
            if first + len(ids) > MOST_SELECTED + 1:
                raise _refused("/filter", f"fits more than {MOST_SELECTED} members; narrow it")
            portion = Portion(number=number, first_line=first, lines=len(ids), body=msgspec.json.encode(ids))
            if not await store.put(tenant, job_id, portion, at=from_ms(self._now_ms())):
                raise GuardError(ErrorCode.CONFLICT, "This took too long; ask again.")
            number, first = number + 1, first + len(ids)
        if not number:
            raise _refused("/ids" if selection.filter is None else "/filter", "fits no member")

    async def _pages(self, tenant: str, actor: Actor, selection: Selection) -> AsyncIterator[tuple[str, ...]]:
        """The ids of those that are there, page by page."""
        if selection.filter is None:
            ids = selection.ids or ()
            for begin in range(0, len(ids), PAGE):
                found = await BulkStore(self._db).there(tenant, ids[begin : begin + PAGE])
                if found:
                    yield found
            return
        policy = await self._book.policy(tenant)
        after: tuple[str, str] | None = None
        while True:
            page = await self._members.listed(
                tenant,
                selection.filter,
                reader=actor.subject,
                now=from_ms(self._now_ms()),
                sort=MemberSort.NAME,
                descending=False,
                after=after,
                limit=PAGE,
                country=policy.settings.country if policy else None,
            )
            if page:
                yield tuple(sorted(member.member_id for member, _ in page))
            after = onward(page, PAGE)
            if after is None:
                return


class BulkStep:
    """Carries out what was begun, batch by batch."""

    def __init__(self, *, db: Database, actions: Actions, now_ms: Callable[[], int]) -> None:
        self._store = PortionStore(db)
        self._actions = actions
        self._now_ms = now_ms

    async def step(self, task: Task) -> bool:
        """Carry it out for the next batch; who died before it was noted does it again, which changes nothing."""
        portion = await self._store.next(task.tenant, task.id)
        if portion is None:
            return False
        order, now = msgspec.json.decode(task.asked, type=Order), from_ms(self._now_ms())
        batch = Batch(
            tenant=task.tenant,
            job_id=task.id,
            member_ids=_ids(portion),
            order=order,
            actor=Actor(subject=task.actor, role=task.role),
            at=now,
        )
        changed = await self._actions[order.action](batch)
        counts = {"members": portion.lines, "changed": changed}
        await self._store.done(task.tenant, task.id, portion, counts, at=from_ms(self._now_ms()))
        return True

    async def result(self, tx: Database, task: Task) -> Mapping[str, Any]:
        """To how many it was done, and how many of them were not as asked before."""
        return {"members": 0, "changed": 0, **task.counts}

    def audited(self, task: Task) -> tuple[str, str | None]:
        """The action, and the operator's reason."""
        order = msgspec.json.decode(task.asked, type=Order)
        return f"bulk.{order.action}", order.reason


def _ids(portion: Portion) -> tuple[str, ...]:
    return msgspec.json.decode(portion.body, type=tuple[str, ...])


def _what(order: Order, selection: Selection) -> bytes:
    """The same bytes for the same call."""
    said: Sequence[Any] = (order, selection)
    return msgspec.json.encode(said, order="deterministic")


def _refused(pointer: str, detail: str) -> GuardError:
    return GuardError(ErrorCode.INVALID, "The body was refused.", Problem(pointer=pointer, detail=detail))
