"""Repeated findings of one case, counted in memory and written about once a second."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import Final
from uuid import UUID

import msgspec

from accessguard.errors import GuardError
from accessguard.guard.recent import oldest
from accessguard.metrics import FLUSH_FAILURES, FOLDS_DROPPED, VIOLATIONS
from accessguard.violations.model import Found
from accessguard.violations.store import ViolationStore

MOST_KNOWN: Final = 100_000
MOST_PENDING: Final = 100_000
"""Cases with hits that are not written yet; at the bound a hit of a further case is given up and counted."""

Key = tuple[str, str, str, str]


class Folds:
    """The cases this worker has written lately, and the hits on them that are not yet in PostgreSQL."""

    def __init__(self, store: ViolationStore) -> None:
        self._store = store
        self._known: dict[Key, UUID] = {}
        self._pending: dict[Key, Found] = {}
        self._turn = asyncio.Lock()

    async def record(self, tenant: str, found: Sequence[Found]) -> tuple[UUID | None, ...]:
        """Have the findings durable before this returns; a case already known is only counted.

        Answers the cases' ids in the order of `found`, None for one of a member
        that has just been erased. Raises
        GuardError(UNAVAILABLE) when a new case cannot be written.
        """
        fresh = [each for each in found if (tenant, *each.case) not in self._known]
        if fresh:
            await self._write(tenant, fresh)
        for each in found:
            VIOLATIONS.labels(each.effect, each.code, each.mode).inc()
            if each not in fresh:
                self._fold(tenant, each)
        return tuple(self._known.get((tenant, *each.case)) for each in found)

    def again(self, tenant: str, found: Found) -> None:
        """Count one more hit of a case that `record` has written."""
        VIOLATIONS.labels(found.effect, found.code, found.mode).inc()
        self._fold(tenant, found)

    def forget(self, tenant: str, member_id: str) -> None:
        """Let go of the cases of a member that was erased."""
        for key in [each for each in (*self._known, *self._pending) if each[:2] == (tenant, member_id)]:
            self._known.pop(key, None)
            self._pending.pop(key, None)

    async def flush(self) -> None:
        """Write every pending hit; what cannot be written stays pending. Raises GuardError(UNAVAILABLE)."""
        if not self._pending and not self._turn.locked():
            return
        async with self._turn:
            pending, self._pending = self._pending, {}
            by_tenant: dict[str, list[Found]] = defaultdict(list)
            for key, found in pending.items():
                by_tenant[key[0]].append(found)
            try:
                while by_tenant:
                    tenant, rows = next(iter(by_tenant.items()))
                    await self._write(tenant, rows)
                    del by_tenant[tenant]
            finally:
                for tenant, rows in by_tenant.items():
                    for each in rows:
                        self._fold(tenant, each)

    async def run(self, every_s: float) -> None:
        """Flush every `every_s` seconds until cancelled; a failure is counted and tried again."""
        while True:
            await asyncio.sleep(every_s)
            try:
                await self.flush()
            except GuardError:
                FLUSH_FAILURES.inc()

    def _fold(self, tenant: str, found: Found) -> None:
        key = (tenant, *found.case)
        held = self._pending.get(key)
        if held is None and len(self._pending) >= MOST_PENDING:
            FOLDS_DROPPED.inc(found.hits)
            return
        hits = found.hits + (held.hits if held else 0)
        newest = found if held is None or found.at >= held.at else held
        self._pending[key] = msgspec.structs.replace(newest, hits=hits)

    async def _write(self, tenant: str, rows: Sequence[Found]) -> None:
        ids = await self._store.record(tenant, rows)
        for each, violation_id in zip(rows, ids, strict=True):
            self._known.pop((tenant, *each.case), None)
            if violation_id is not None:
                self._known[tenant, *each.case] = violation_id
        for surplus in oldest(self._known, MOST_KNOWN):
            del self._known[surplus]
