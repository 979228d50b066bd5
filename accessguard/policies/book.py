"""The policies of the tenants this worker serves, held in memory until something says that they changed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from accessguard.errors import GuardError
from accessguard.policies.model import Policy
from accessguard.policies.store import PolicyStore
from accessguard.rules.needs import Need

MOST_HELD: Final = 10_000
PATIENCE_S: Final = 1.0
"""How long a login waits for rules that have just changed, when there are those before them."""


class PolicyBook:
    """Policies by tenant; a change drops one, the next question loads it, one load at a time for each tenant.

    `held` gives the policy in memory, without asking anybody. `on_drop` is told of each change.
    """

    def __init__(self, store: PolicyStore) -> None:
        self._store = store
        self._held: dict[str, Policy] = {}
        self._last: dict[str, Policy] = {}
        self.held: Callable[[str], Policy | None] = self._held.get
        self._loading: dict[str, asyncio.Task[Policy | None]] = {}
        self.on_drop: Callable[[], None] = _nobody

    async def policy(self, tenant: str) -> Policy | None:
        """The tenant's policy; None for an unknown tenant. Raises GuardError(UNAVAILABLE)."""
        held = self._held.get(tenant)
        return held if held is not None else await self._load(tenant)

    async def best(self, tenant: str) -> Policy | None:
        """The tenant's policy, or its last one when PostgreSQL does not tell in PATIENCE_S. Raises GuardError(UNAVAILABLE) without either."""
        last = self.last(tenant)
        if last is None:
            return await self.policy(tenant)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await self.policy(tenant)
        except (GuardError, TimeoutError):
            return last

    def last(self, tenant: str) -> Policy | None:
        """The policy as it was before it was dropped, for when nobody can be asked for the one after it."""
        return self._held.get(tenant) or self._last.get(tenant)

    def drop(self, tenant: str) -> None:
        """Let go of what is held; a load under way will not be kept either."""
        self._set_aside(tenant)
        self._loading.pop(tenant, None)
        self.on_drop()

    def drop_all(self) -> None:
        """Let go of everything."""
        for tenant in tuple(self._held):
            self._set_aside(tenant)
        self._loading.clear()

    def renew_placed(self) -> None:
        """Part with every verdict that was made under rules on places; the rules themselves stay as they are held.

        A verdict is good for the very policy that it was made under, so an equal one is put in its place.
        """
        for tenant, held in self._held.items():
            if held.needs & Need.PLACE:
                self._held[tenant] = msgspec.structs.replace(held)

    def _set_aside(self, tenant: str) -> None:
        held = self._held.pop(tenant, None)
        if held is None:
            return
        self._last.pop(tenant, None)
        if len(self._last) >= MOST_HELD:
            self._last.pop(next(iter(self._last)))
        self._last[tenant] = held

    async def _load(self, tenant: str) -> Policy | None:
        loading = self._loading.get(tenant)
        if loading is None:
            loading = asyncio.create_task(self._store.load(tenant))
            self._loading[tenant] = loading
        try:
            found = await asyncio.shield(loading)
        finally:
            mine = self._loading.get(tenant) is loading
            if mine and loading.done():
                del self._loading[tenant]
        if mine and found is not None:
            if len(self._held) >= MOST_HELD:
                self._held.pop(next(iter(self._held)))
            self._held[tenant] = found
            self._last.pop(tenant, None)
        if mine and found is None:
            self._last.pop(tenant, None)
        return found


def _nobody() -> None:
    """Nobody wants to hear of it."""
