"""Members and enrolments from a file: first all of it is here, then it is applied portion by portion.

A stream that breaks off has changed nothing. What is applied is applied whole
lines at a time, in the order of the file, so that the last line of a member or
an enrolment wins; a portion and its disappearance are one transaction.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final, TypeAlias
from uuid import UUID

import msgspec

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.guard.changes import Changes
from accessguard.guard.facts import from_ms
from accessguard.guard.lines import (
    BOM,
    TOO_LONG,
    Form,
    ImportedEnrolment,
    ImportedMember,
    Line,
    Reader,
    Splitter,
    columns_of,
)
from accessguard.guard.model import Actor
from accessguard.guard.running import Runner
from accessguard.guard.subjects import subject_of
from accessguard.jobs.model import Job, JobKind, Portion, Refusal, Task
from accessguard.jobs.portions import PortionStore
from accessguard.jobs.store import JobStore
from accessguard.members.intake import IntakeStore
from accessguard.members.phone import e164
from accessguard.policies.book import PolicyBook
from accessguard.sessions.live import Change

MOST_BYTES: Final = 1_073_741_824
"""Of one file, unpacked: some five million members."""
PORTION_LINES: Final = 500
PORTION_BYTES: Final = 262_144
SLICE_S: Final = 0.002
"""The time between two pauses, in which a worker answers nobody else."""
SHOWN: Final = 100
"""Refused lines that the job itself shows; the others are in its result's file."""
TOLD_AT_ONCE: Final = 50

Claim: TypeAlias = Callable[[Database, UUID, bytes], Awaitable[UUID]]


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What an import needs to go on by itself: the file's form, and the columns of a CSV file."""

    form: Form
    columns: tuple[str, ...] | None = None


class Read(msgspec.Struct, kw_only=True):
    """What some lines come to: members and enrolments by their ids, the last line of each, and what was refused."""

    members: dict[str, dict[str, Any]]
    enrolments: dict[tuple[str, str], dict[str, Any]]
    refused: list[Refusal]
    lines: int = 0
    numbers: dict[str, list[int]] = msgspec.field(default_factory=dict)
    """On which lines a member is named."""


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What changed: members that are new, those that are another now, and enrolments."""

    made: frozenset[str]
    changed: frozenset[str]
    enrolled: Sequence[str]


class Imports:
    """Takes files in. Every method raises GuardError(UNAVAILABLE)."""

    def __init__(self, *, db: Database, runner: Runner, new_id: Callable[[], UUID], now_ms: Callable[[], int]) -> None:
        self._db = db
        self._runner = runner
        self._new_id = new_id
        self._now_ms = now_ms

    async def take(self, tenant: str, actor: Actor, form: Form, chunks: AsyncIterator[bytes], claim: Claim) -> Job:
        """Take in a file to its end, and begin to apply it; the job.

        `claim` gets the id of the job and the SHA-256 of the file, and answers
        the id of the job that the same call made before. Raises GuardError:
        INVALID for a file that has no lines, TOO_LARGE, CONFLICT when as many
        jobs are going on as may.
        """
        job_id = self._new_id()
        staging = Staging(db=self._db, tenant=tenant, actor=actor, job_id=job_id, form=form, now_ms=self._now_ms)
        with self._runner.place():
            try:
                made = await self._staged(staging, chunks, claim)
            except BaseException:
                with contextlib.suppress(GuardError):
                    await PortionStore(self._db).drop(tenant, job_id)
                raise
        if made == job_id:
            self._runner.start(tenant, job_id)
        else:
            await PortionStore(self._db).drop(tenant, job_id)
        job = await JobStore(self._db).one(tenant, made, now=from_ms(self._now_ms()))
        if job is None:
            raise GuardError(ErrorCode.NOT_FOUND, "The job of that idempotency key is no longer kept.")
        return job

    async def refused(self, tenant: str, job_id: UUID, *, after: int, limit: int) -> Sequence[Refusal]:
        """Refused lines of an import after a line, in order. Raises GuardError(NOT_FOUND) when there is no such import."""
        job = await JobStore(self._db).one(tenant, job_id, now=from_ms(self._now_ms()))
        if job is None or job.kind is not JobKind.IMPORT:
            raise GuardError(ErrorCode.NOT_FOUND, "There is no such import.")
        return await PortionStore(self._db).refusals(tenant, job_id, after=after, limit=limit)

    async def _staged(self, staging: Staging, chunks: AsyncIterator[bytes], claim: Claim) -> UUID:
        digest = hashlib.sha256()
        async for chunk in chunks:
            digest.update(chunk)
            await staging.feed(chunk)
        await staging.end()
        async with self._db.transaction() as tx:
            made = await claim(tx, staging.job_id, digest.digest())
            if made == staging.job_id:
                await PortionStore(tx).ready(staging.tenant, made, at=from_ms(self._now_ms()))
        return made


class Staging:
    """A file on its way into PostgreSQL, some hundred lines in memory at a time.

    The job begins with the first line, which names the columns of a CSV file.
    """

    def __init__(
        self, *, db: Database, tenant: str, actor: Actor, job_id: UUID, form: Form, now_ms: Callable[[], int]
    ) -> None:
        self._store = PortionStore(db)
        self.tenant = tenant
        self.job_id = job_id
        self._actor = actor
        self._form = form
        self._now_ms = now_ms
        self._splitter = Splitter(form)
        self._stored = False
        self._first = self._next = 1
        self._number = self._bytes = self._size = 0
        self._lines: list[bytes] = []

    async def feed(self, chunk: bytes) -> None:
        """Take some bytes. Raises GuardError(TOO_LARGE), and INVALID for a first line that names no columns."""
        self._size += len(chunk)
        if self._size > MOST_BYTES:
            raise GuardError(ErrorCode.TOO_LARGE, f"A file has {MOST_BYTES} bytes at most.")
        for line, breaks in self._splitter.feed(chunk):
            await self._line(line, breaks)

    async def end(self) -> None:
        """The stream is at its end. Raises GuardError(INVALID) when there was nothing in it."""
        for line, breaks in self._splitter.end():
            await self._line(line, breaks)
        if not self._stored:
            raise GuardError(ErrorCode.INVALID, "The file has no lines.")
        await self._put()

    async def _line(self, line: bytes, breaks: int) -> None:
        if not self._stored:
            line = line.removeprefix(BOM)
            await self._begin(line)
            if self._form is Form.CSV:
                self._first = self._next = 1 + breaks
                return
        # What a longer line held is not kept, but that it was there.
        self._lines += [line, *([b""] * (breaks - 1))] if line == TOO_LONG else [line]
        self._next += breaks
        self._bytes += len(line)
        if self._next - self._first >= PORTION_LINES or self._bytes >= PORTION_BYTES:
            await self._put()

    async def _begin(self, line: bytes) -> None:
        columns = columns_of(line) if self._form is Form.CSV else None
        await self._store.begin(
            self.tenant,
            self.job_id,
            JobKind.IMPORT,
            actor=self._actor.subject,
            role=self._actor.role,
            asked=Asked(form=self._form, columns=columns),
            at=from_ms(self._now_ms()),
        )
        self._stored = True

    async def _put(self) -> None:
        if not self._lines:
            return
        portion = Portion(
            number=self._number,
            first_line=self._first,
            lines=self._next - self._first,
            body=b"\n".join([*self._lines, b""]),
        )
        if not await self._store.put(self.tenant, self.job_id, portion, at=from_ms(self._now_ms())):
            raise GuardError(ErrorCode.CONFLICT, "The file came too slowly; send it again.")
        self._number += 1
        self._first, self._bytes = self._next, 0
        self._lines.clear()


class Intake:
    """Applies what was taken in."""

    def __init__(
        self,
        *,
        db: Database,
        book: PolicyBook,
        changes: Changes,
        key: str,
        new_id: Callable[[], UUID],
        now_ms: Callable[[], int],
    ) -> None:
        self._db = db
        self._book = book
        self._changes = changes
        self._key = key
        self._new_id = new_id
        self._now_ms = now_ms

    async def step(self, task: Task) -> bool:
        """Apply the next portion."""
        country = await self._country(task.tenant)
        try:
            return await self._whole(task, country)
        except GuardError as error:
            if error.code is ErrorCode.UNAVAILABLE:
                raise
            return await self._one_by_one(task, country)

    async def result(self, tx: Database, task: Task) -> Mapping[str, Any]:
        """The counts, and the first refused lines."""
        shown = await PortionStore(tx).refusals(task.tenant, task.id, after=0, limit=SHOWN)
        return {**dict.fromkeys(COUNTED, 0), **task.counts, "refused_lines": shown}

    def audited(self, task: Task) -> tuple[str, str | None]:
        """An import has no reason of its own; each enrolment may have one."""
        return "import.done", None

    async def _whole(self, task: Task, country: str | None) -> bool:
        """All lines of a portion in one transaction; False when there is no portion left."""
        now = from_ms(self._now_ms())
        async with self._db.transaction() as tx:
            portion = await PortionStore(tx).next(task.tenant, task.id)
            if portion is None:
                return False
            read = self._without(task, await self._read(task, portion, country), await _erased(tx, task))
            applied = await self._applied(tx, task, read)
            await PortionStore(tx).refuse(task.tenant, task.id, read.refused)
            await PortionStore(tx).done(task.tenant, task.id, portion, _counts(read, applied), at=now)
        await self._tell(task.tenant, applied)
        return True

    async def _one_by_one(self, task: Task, country: str | None) -> bool:
        """One of the lines is none that PostgreSQL takes: each by itself. What is applied twice is applied once."""
        portion = await PortionStore(self._db).next(task.tenant, task.id)
        if portion is None:
            return False
        counts: dict[str, int] = {}
        refused: list[Refusal] = []
        for number, line in _lines(task, portion):
            read = _empty()
            await self._take(read, number, line, country)
            try:
                async with self._db.transaction() as tx:
                    read = self._without(task, read, await _erased(tx, task))
                    applied = await self._applied(tx, task, read)
            except GuardError as error:
                if error.code is ErrorCode.UNAVAILABLE:
                    raise
                refused.append(Refusal(line=number, pointer="", detail=error.message))
                counts["refused"] = counts.get("refused", 0) + 1
                continue
            await self._tell(task.tenant, applied)
            refused += read.refused
            for name, count in _counts(read, applied).items():
                counts[name] = counts.get(name, 0) + count
        async with self._db.transaction() as tx:
            await PortionStore(tx).refuse(task.tenant, task.id, refused)
            await PortionStore(tx).done(task.tenant, task.id, portion, counts, at=from_ms(self._now_ms()))
        return True

    async def _read(self, task: Task, portion: Portion, country: str | None) -> Read:
        """What the lines of a portion say, without keeping others waiting."""
        read = _empty()
        clock = asyncio.get_running_loop().time
        began = clock()
        for number, line in _lines(task, portion):
            await self._take(read, number, line, country)
            if clock() - began > SLICE_S:
                await asyncio.sleep(0)
                began = clock()
        return read

    def _without(self, task: Task, read: Read, erased: frozenset[str]) -> Read:
        """The same without those who were erased while the file was being taken in; their lines are refused."""
        gone = (
            {each for each in read.members if subject_of(self._key, task.tenant, each) in erased} if erased else set()
        )
        if not gone:
            return read
        lines = sorted(number for each in gone for number in read.numbers[each])
        refused = [Refusal(line=number, pointer="/member_id", detail="was erased meanwhile") for number in lines]
        return Read(
            members={each: said for each, said in read.members.items() if each not in gone},
            enrolments={each: said for each, said in read.enrolments.items() if each[0] not in gone},
            refused=[*read.refused, *refused],
            lines=read.lines,
        )

    async def _take(self, read: Read, number: int, line: Line | Problem, country: str | None) -> None:
        read.lines += 1
        if isinstance(line, Problem):
            read.refused.append(Refusal(line=number, pointer=line.pointer, detail=line.detail))
            return
        read.numbers.setdefault(line.member_id, []).append(number)
        if isinstance(line, ImportedMember):
            said = msgspec.to_builtins(line)
            if "phone" in said:
                said["phone_e164"] = e164(said["phone"], country)
            read.members[line.member_id] = read.members.get(line.member_id, {}) | said
        else:
            self._enrol(read, line)

    def _enrol(self, read: Read, line: ImportedEnrolment) -> None:
        read.members.setdefault(line.member_id, {"member_id": line.member_id})
        said = msgspec.to_builtins(line)
        said["change_id"] = str(self._new_id())
        read.enrolments[line.member_id, line.product_id] = said

    async def _applied(self, tx: Database, task: Task, read: Read) -> Applied:
        store, now = IntakeStore(tx), from_ms(self._now_ms())
        members = list(read.members.values())
        if not members:
            return Applied(made=frozenset(), changed=frozenset(), enrolled=())
        made = await store.make(task.tenant, members, at=now)
        there = [each for each in members if each["member_id"] not in made]
        changed: frozenset[str] = frozenset()
        if there:
            await store.hold(task.tenant, [each["member_id"] for each in there])
            said = [each for each in there if len(each) > 1]
            changed = await store.change(task.tenant, said, at=now) if said else changed
        enrolled: Sequence[str] = ()
        if read.enrolments:
            rows = list(read.enrolments.values())
            enrolled = await store.enrol(task.tenant, rows, at=now, actor=task.actor, new=made)
        return Applied(made=made, changed=changed, enrolled=enrolled)

    async def _tell(self, tenant: str, applied: Applied) -> None:
        """Let every worker drop what it held of members that were there before."""
        told = sorted((applied.changed | set(applied.enrolled)) - applied.made)
        for begin in range(0, len(told), TOLD_AT_ONCE):
            changes = (
                Change(tenant=tenant, kind="member_changed", member_id=member_id)
                for member_id in told[begin : begin + TOLD_AT_ONCE]
            )
            await asyncio.gather(*(self._changes.announce(change) for change in changes))

    async def _country(self, tenant: str) -> str | None:
        policy = await self._book.policy(tenant)
        return policy.settings.country if policy else None


COUNTED: Final = ("lines", "members_new", "members_changed", "enrolments_changed", "refused")


async def _erased(tx: Database, task: Task) -> frozenset[str]:
    return await PortionStore(tx).erased(task.tenant, task.id)


def _empty() -> Read:
    return Read(members={}, enrolments={}, refused=[])


def _lines(task: Task, portion: Portion) -> Iterator[tuple[int, Line | Problem]]:
    """The lines of a portion that are not empty, by their numbers in the file."""
    asked = msgspec.json.decode(task.asked, type=Asked)
    splitter, reader = Splitter(asked.form), Reader(asked.columns)
    number = portion.first_line
    for line, breaks in chain(splitter.feed(portion.body), splitter.end()):
        found = reader.read(line)
        if found is not None:
            yield number, found
        number += breaks


def _counts(read: Read, applied: Applied) -> Mapping[str, int]:
    return {
        "lines": read.lines,
        "members_new": len(applied.made),
        "members_changed": len(applied.changed),
        "enrolments_changed": len(applied.enrolled),
        "refused": len(read.refused),
    }
