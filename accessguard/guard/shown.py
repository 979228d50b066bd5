"""Device tokens that were shown for the first time at a check, on their way to PostgreSQL.

What is lost of it makes an older token pass a little longer, and refuses nobody.
"""

from __future__ import annotations

import asyncio
from typing import Final, TypeAlias
from uuid import UUID

from accessguard.devices.store import DeviceStore
from accessguard.errors import GuardError

MOST_PENDING: Final = 10_000
MOST_TOLD: Final = 16_384
"""Tokens whose first showing was written by this worker: no need to write it again."""

Token: TypeAlias = tuple[str, UUID, bytes]
"""A tenant, a device, and the mark of its present secret."""


class Shown:
    """Gathers what was shown, and writes it in bulk."""

    def __init__(self, store: DeviceStore) -> None:
        self._store = store
        self._pending: dict[Token, None] = {}
        self._told: dict[Token, None] = {}

    def note(self, tenant: str, device_id: UUID, mark: bytes) -> None:
        """Somebody has come with this token."""
        token = (tenant, device_id, mark)
        if token not in self._told and len(self._pending) < MOST_PENDING:
            self._pending[token] = None

    async def run(self, every_s: float) -> None:
        """Write what is pending every so often, until cancelled."""
        while True:
            await asyncio.sleep(every_s)
            await self.flush()

    async def flush(self) -> None:
        """Write what is pending; what cannot be written now stays so."""
        batch = sorted(self._pending)
        if not batch:
            return
        try:
            await self._store.shown(batch)
        except GuardError:
            return
        for token in batch:
            self._pending.pop(token, None)
            self._told[token] = None
        for surplus in list(self._told)[: max(0, len(self._told) - MOST_TOLD)]:
            del self._told[surplus]
