"""Bars of operators that bind every worker, also one that cannot ask PostgreSQL and has not been told.

Three hear of a bar: the workers (pushed), Valkey (for those that were not
there to hear it), and whoever comes later, from the newest blocks in PostgreSQL.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from uuid import UUID

import msgspec

from accessguard.errors import GuardError
from accessguard.guard.barred import Barred
from accessguard.rules.model import Access, Code
from accessguard.sessions.bars import BarStore, bars, mark_of, of_device, of_end, of_session
from accessguard.sessions.live import Change, Live
from accessguard.sessions.model import Snapshot
from accessguard.sessions.store import SessionStore

AT_ONCE: Final = 50
"""Blocks that are taken note of in one go: each has up to 40 sessions, and checks wait meanwhile (some ms)."""


class Bars:
    """One for each worker. What was not told, and cannot be asked for, is not known: then nothing is barred."""

    def __init__(self, *, live: Live, sessions: SessionStore, barred: Barred) -> None:
        self._store = BarStore(live)
        self._sessions = sessions
        self._barred = barred
        self._told = ("", 0)
        self._owed = 0
        self._read = False
        self._current_until = 0.0

    @property
    def current(self) -> bool:
        """Whether what this worker was told may be taken for all there is, though it can ask nobody just now."""
        return time.monotonic() < self._current_until

    def have_all(self, until: float) -> None:
        """Take what was told for all there is until then (a monotonic clock's s)."""
        self._current_until = max(self._current_until, until)

    def missed(self) -> None:
        """Read anew what is blocked at the next look: it may not have been told."""
        self._read = False

    def hear(self, change: Change) -> None:
        """Take note of a change, by whomever."""
        marks = marks_of(change)
        if marks:
            self._barred.tell(marks)

    async def keep(self, change: Change) -> None:
        """Leave a change of this worker's where others find it; what could not be left is left at the next look."""
        marks = marks_of(change)
        if not marks:
            return
        try:
            await self._store.keep(marks)
        except GuardError:
            self._owed += 1

    async def look(self) -> None:
        """After a start, a flush, and whatever may have been missed, read what is blocked, and write what is known.

        Raises GuardError(UNAVAILABLE) when Valkey is out; what PostgreSQL says is known here all the same.
        """
        if not self._read:
            await self._read_blocks()
        await self.leave()

    async def leave(self) -> None:
        """Write what is known where a flush, or a write that failed, has cost it. Raises GuardError(UNAVAILABLE)."""
        told = (await self._store.era(), self._owed)  # what fails from here on is owed anew
        if self._told != told:
            await self._store.keep(self._barred.all())
            self._told = told

    async def _read_blocks(self) -> None:
        self._read = True  # before it is asked for: what is missed meanwhile has to be read again
        try:
            blocks = await self._sessions.blocks()
        except GuardError:
            self._read = False
            return
        for begin in range(0, len(blocks), AT_ONCE):
            self._barred.tell(_of_blocks(blocks[begin : begin + AT_ONCE]))
            await asyncio.sleep(0)
        self._owed += 1

    async def on(self, tenant: str, session_id: str) -> Code | None:
        """Why a session may not go on, when nothing else is known of it; None when nothing bars it.

        Raises GuardError(UNAVAILABLE) when Valkey cannot be asked.
        """
        lines = _lines(tenant, session_id)
        return _why(*self._latest(lines, await self._store.marks(lines)))

    def here(self, tenant: str, session_id: str) -> Code | None:
        """The same by what this worker itself was told."""
        return _why(*map(self._barred.mark, _lines(tenant, session_id)))

    async def over(self, known: Snapshot) -> Snapshot:
        """A member of whom PostgreSQL is not asked, with every device blocked that is known to be."""
        blocked = await self.blocked(known.tenant, [each.id for each in known.devices])
        if not blocked:
            return known
        devices = (
            msgspec.structs.replace(each, access=Access.BLOCKED) if each.id in blocked else each
            for each in known.devices
        )
        return msgspec.structs.replace(known, devices=tuple(devices))

    async def blocked(self, tenant: str, device_ids: Sequence[UUID]) -> frozenset[UUID]:
        """Which of these devices are blocked, as far as that is known; with PostgreSQL there, by what it says, too."""
        if not device_ids:
            return frozenset()
        marks = await self._marks([of_device(tenant, each) for each in device_ids])
        found = {each for each, mark in zip(device_ids, marks, strict=True) if bars(mark)}
        if not self._sessions.out:
            with contextlib.suppress(GuardError):
                found |= await self._sessions.blocked(tenant, device_ids)
        return frozenset(found)

    async def _marks(self, lines: Sequence[str]) -> list[int | None]:
        """The latest that this worker or Valkey knows of each line."""
        try:
            return self._latest(lines, await self._store.marks(lines))
        except GuardError:
            return [self._barred.mark(line) for line in lines]

    def _latest(self, lines: Sequence[str], there: Sequence[int | None]) -> list[int | None]:
        here = [self._barred.mark(line) for line in lines]
        return [max((m for m in both if m is not None), default=None) for both in zip(here, there, strict=True)]


def _lines(tenant: str, session_id: str) -> tuple[str, str]:
    return of_end(tenant, session_id), of_session(tenant, session_id)


def _why(ended: int | None, blocked: int | None) -> Code | None:
    if bars(ended):
        return Code.SESSION_ENDED
    return Code.DEVICE_BLOCKED if bars(blocked) else None


def marks_of(change: Change) -> Mapping[str, int]:
    """The lines of a change: of a device that was blocked, or is no longer, with its sessions; of sessions that were ended."""
    tenant, generation = change.tenant, change.generation
    marks = dict[str, int]()
    if change.blocked is not None:
        mark = mark_of(generation, stands=change.blocked)
        marks = {of_session(tenant, each): mark for each in change.session_ids}
        if change.device_id is not None:
            marks |= {of_device(tenant, each): mark for each in (change.device_id, *change.merged_ids)}
    if change.ended:
        marks |= {of_end(tenant, each): mark_of(generation, stands=True) for each in change.session_ids}
    return marks


def _of_blocks(blocks: Iterable[tuple[str, Sequence[UUID], int, Sequence[str]]]) -> Mapping[str, int]:
    marks = dict[str, int]()
    for tenant, device_ids, generation, sessions in blocks:
        mark = mark_of(generation, stands=True)
        marks |= {of_device(tenant, each): mark for each in device_ids}
        marks |= {of_session(tenant, each): mark for each in sessions}
    return marks
