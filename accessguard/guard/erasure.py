"""Erasing a member, or keeping what counts without the name; see docs/privacy.md.

Most of it goes in portions, while the member may still log in. The last step
is one transaction under the member's lock, in which nobody drains the spool:
what came in between goes with the member, and whoever logs in afterwards is
somebody new.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError
from accessguard.guard.acts import Act, log
from accessguard.guard.bulk import Batch, ErasureMode
from accessguard.guard.changes import Changes
from accessguard.guard.model import Actor
from accessguard.guard.spooling import Spooling
from accessguard.guard.subjects import subject_of
from accessguard.jobs.parts import PartStore
from accessguard.members.erasure import KEPT, MOST, ErasureStore, Pseudonym, Subjects
from accessguard.members.redacting import Redaction, Subject
from accessguard.members.redaction import Names
from accessguard.members.store import MemberStore
from accessguard.sessions.bars import BarStore, lines_of
from accessguard.sessions.live import Change, Live

ECHO_S: Final = 0.3
"""How long a beat may be on its way that had not heard; then live keys go once more."""
TRIES: Final = 50
AGAIN_S: Final = 0.1
EVER: Final = datetime(1970, 1, 1, tzinfo=UTC)
OVERLAP: Final = timedelta(minutes=5)
"""What was written to the audit log since is looked at again, by clocks that may differ by as much."""
LEFT_ALONE: Final = frozenset({"member", "erasure", "retention_mark", "tally_past"})
"""Not rows of one member: itself, which goes last, what names nobody, and a place in the order of ids."""


class Receipt(msgspec.Struct, frozen=True, kw_only=True):
    """What an erasure did, without the identity: `subject` is a keyed hash of it, `rows` counts by table."""

    id: UUID
    mode: ErasureMode
    subject: str
    at: datetime
    rows: dict[str, int]


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One erasure under way."""

    tenant: str
    member_id: str
    mode: ErasureMode
    actor: Actor
    reason: str | None
    at: datetime
    subject: str
    nobody: Pseudonym


class Erasure:
    """Every method raises GuardError: NOT_FOUND where there is nothing to erase, UNAVAILABLE when a store does not answer.

    A file of members that is being taken in brings nobody back: its lines about who was erased meanwhile are refused.
    What was cut off half-way goes on when it is asked for again.
    """

    def __init__(
        self,
        *,
        db: Database,
        live: Live,
        changes: Changes,
        spooling: Spooling,
        key: str,
        new_id: Callable[[], UUID],
    ) -> None:
        self._db = db
        self._live = live
        self._changes = changes
        self._spooling = spooling
        self._key = key
        self._new_id = new_id
        self._store = ErasureStore(db)
        self._bars = BarStore(live)

    async def erase(
        self, tenant: str, member_id: str, mode: ErasureMode, actor: Actor, *, reason: str | None, at: datetime
    ) -> Receipt:
        """Erase one member, or make its traces nobody's; the receipt."""
        receipt = await self._done(tenant, member_id, mode, actor, reason=reason, at=at)
        if receipt is None:
            raise GuardError(ErrorCode.NOT_FOUND, "There is no such member.")
        await asyncio.sleep(ECHO_S)
        await self._live.erase(tenant, member_id)
        return receipt

    async def batch(self, batch: Batch) -> int:
        """The same for some at once: how many there were (`guard/bulk.py`). Why it is done says nobody's name afterwards."""
        mode, reason, done = batch.order.mode or ErasureMode.ERASE, batch.order.reason, list[str]()
        await self._out_of_log(batch)
        for each in batch.member_ids:
            await self._store.alive(batch.tenant, batch.job_id)
            names = await self._store.names(batch.tenant, each)
            receipt = await self._done(batch.tenant, each, mode, batch.actor, reason=reason, at=batch.at, logged=True)
            if receipt is not None:
                done.append(each)
            reason = names.out_of(reason)
        if reason is not None and reason != batch.order.reason:
            await self._store.reword(batch.tenant, batch.job_id, reason)
        if done:
            await asyncio.sleep(ECHO_S)
        for each in done:
            await self._live.erase(batch.tenant, each)
        return len(done)

    async def _out_of_log(self, batch: Batch) -> None:
        """Take all of them out of the audit log at once: by themselves each would have it read to its end."""
        subjects = []
        for each in batch.member_ids:
            names = await self._store.names(batch.tenant, each)
            of = await self._store.subjects(batch.tenant, each)
            as_ = self.subject(batch.tenant, each)
            subjects.append(Subject(member_id=each, names=names, targets=of.targets, as_=as_))
        redaction, place = Redaction(self._db, batch.tenant, subjects), None
        while True:
            await self._store.alive(batch.tenant, batch.job_id)
            place = await redaction.page(place)
            if place is None:
                return

    async def _done(
        self,
        tenant: str,
        member_id: str,
        mode: ErasureMode,
        actor: Actor,
        *,
        reason: str | None,
        at: datetime,
        logged: bool = False,
    ) -> Receipt | None:
        if not await self._store.there(tenant, member_id) and not await self._store.traces(tenant, member_id):
            return None
        await self._live.ping()
        task = Task(
            tenant=tenant,
            member_id=member_id,
            mode=mode,
            actor=actor,
            reason=reason,
            at=at,
            subject=self.subject(tenant, member_id),
            nobody=Pseudonym(id=f"anonymous-{self._new_id()}", salt=self._new_id().hex),
        )
        rows = await self._in_portions(task, since=at if logged else EVER)
        for _ in range(TRIES):
            receipt = await self._finished(task, rows)
            if receipt is not None:
                return receipt
            await asyncio.sleep(AGAIN_S)
        raise GuardError(ErrorCode.UNAVAILABLE, "Logins that waited are being written; try again shortly.")

    def subject(self, tenant: str, member_id: str) -> str:
        """By what the receipt says who it was."""
        return subject_of(self._key, tenant, member_id)

    async def _in_portions(self, task: Task, *, since: datetime) -> Counter[str]:
        """All that is there now, a thousand rows at a time, each portion by itself; of the audit log, from `since` on."""
        rows = Counter[str]()
        names = await self._store.names(task.tenant, task.member_id)
        of = await self._store.subjects(task.tenant, task.member_id)
        await self._texts(self._store, task, names, of, since=since, rows=rows)
        await PartStore(self._db).drop_names(task.tenant)
        await self._bars.drop(lines_of(task.tenant, of.targets))
        if task.mode is ErasureMode.ANONYMISE:
            await self._store.stand_in(task.tenant, task.member_id, task.nobody)
        for table in await self._of_members():
            await self._emptied(self._store, task, table, rows)
        return rows

    async def _finished(self, task: Task, before: Counter[str]) -> Receipt | None:
        """The rest in one transaction, and the receipt; None when somebody drains the spool."""
        rows, names, erasure_id = Counter(before), await self._store.names(task.tenant, task.member_id), self._new_id()
        async with self._db.transaction() as tx:
            if not await self._spooling.forget(tx, task.tenant, task.member_id):
                return None
            store = ErasureStore(tx)
            await store.keep_out(task.tenant, task.subject, now=task.at)
            await MemberStore(tx).lock(task.tenant, task.member_id)
            sessions = tuple(await store.open_sessions(task.tenant, task.member_id))
            of = await store.subjects(task.tenant, task.member_id)
            await self._texts(store, task, names, of, since=task.at - OVERLAP, rows=rows)
            await PartStore(tx).drop_names(task.tenant)
            if task.mode is ErasureMode.ANONYMISE:
                await store.stand_in(task.tenant, task.member_id, task.nobody)
            for table in await self._of_members():
                await self._emptied(store, task, table, rows)
            if await store.gone(task.tenant, task.member_id):
                rows["member"] += 1
            receipt = Receipt(
                id=erasure_id,
                mode=task.mode,
                subject=task.subject,
                at=task.at,
                rows={k: n for k, n in rows.items() if n},
            )
            await store.note(task.tenant, erasure_id, at=task.at)
            await self._receipt(tx, task, receipt, names)
        change = Change(
            tenant=task.tenant,
            kind="member_erased",
            member_id=task.member_id,
            session_ids=sessions,
            erasure=erasure_id,
        )
        await self._changes.announce(change)
        await self._live.erase(task.tenant, task.member_id)
        await self._bars.drop(lines_of(task.tenant, of.targets))
        return receipt

    async def _receipt(self, tx: Database, task: Task, receipt: Receipt, names: Names) -> None:
        reason = None if task.reason is None else names.out_of(task.reason)
        act = Act(
            tenant=task.tenant,
            actor=task.actor,
            action=f"member.{task.mode}",
            target=task.subject,
            reason=reason,
            at=task.at,
        )
        await log(tx, act, None, {"rows": receipt.rows}, entry_id=receipt.id)

    async def _texts(
        self, store: ErasureStore, task: Task, names: Names, of: Subjects, *, since: datetime, rows: Counter[str]
    ) -> None:
        """What others wrote about the member, and what is kept for whoever asks again."""
        rows["audit"] += await store.redact(task.tenant, task.member_id, of, names, as_=task.subject, since=since)
        rows["job"] += await store.forget_jobs(task.tenant, names)
        await store.forget_preferences(task.tenant, names)
        await store.step_back(task.tenant, task.member_id)
        await store.forget_former(task.tenant, task.member_id)
        await store.forget_retries(task.tenant, of, names)

    async def _of_members(self) -> list[str]:
        """Tables with rows of members; those that others refer to come last."""
        tables = [name for name, of_member in (await self._store.tables()).items() if of_member]
        return sorted(
            (each for each in tables if each not in LEFT_ALONE), key=lambda each: (each == "login_attempt", each)
        )

    async def _emptied(self, store: ErasureStore, task: Task, table: str, rows: Counter[str]) -> None:
        done = MOST
        while done >= MOST:
            if task.mode is ErasureMode.ANONYMISE and table in KEPT:
                done = await store.keep_portion(table, task.tenant, task.member_id, task.nobody)
            else:
                done = await store.portion(table, task.tenant, task.member_id)
            rows[table] += done
