"""Which tenant a host belongs to, by the settings of all of them, held in memory for proxies that speak for many."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Final

import msgspec

from accessguard.database import Database
from accessguard.errors import ErrorCode, GuardError
from accessguard.policies.hosts import plain

AGAIN_S: Final = 5.0
"""How long a list is good: what a lost push may cost anywhere else, too."""
LEAST_S: Final = 1.0
"""How long nobody reads again, whatever is said to have changed."""
HOSTS: Final = """
    SELECT t.id, h->>'host' AS host
      FROM tenant t, jsonb_array_elements(t.settings->'hosts') AS h
     WHERE t.status = 'active' AND t.deleted_at IS NULL AND h->>'status' = 'active'
     ORDER BY t.id LIMIT 200000
"""
"""Over all tenants, as it is the one question whose answer is a tenant."""
HOLD: Final = "SELECT pg_advisory_xact_lock($1)"
HOLD_NUMBER: Final = 0x4147_0015  # "AG" 21; any constant works, as long as every release takes the same


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """One active host of a tenant."""

    tenant: str
    host: str


class HostStore:
    """Every call raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def hold(self) -> None:
        """Let nobody else take a host until the transaction ends: two who took the same one at once would not see each other."""
        await self._db.row(HOLD, HOLD_NUMBER)

    async def hosts(self) -> tuple[Owned, ...]:
        """The active hosts of every active tenant, as they are compared."""
        return tuple(Owned(tenant=row["id"], host=plain(row["host"])) for row in await self._db.fetch(HOSTS))


class HostBook:
    """Hosts and their tenants; read again behind the answer when that is due, and kept while nobody can be asked."""

    def __init__(self, store: HostStore) -> None:
        self._store = store
        self._owners: dict[str, str | None] | None = None
        self._old = True
        self._read_at = -AGAIN_S
        self._loading: asyncio.Task[None] | None = None

    @property
    def known(self) -> bool:
        """Whether there is a list at all."""
        return self._owners is not None

    def owner(self, host: str) -> str | None:
        """Whose host this is; None for nobody's. Raises GuardError(UNAVAILABLE) before the first list."""
        self._look()
        if self._owners is None:
            raise GuardError(ErrorCode.UNAVAILABLE, "Whose hosts are whose has not been read yet.")
        return self._owners.get(plain(host))

    def expire(self) -> None:
        """Something has changed somewhere: read again at the next question."""
        self._old = True

    async def first(self) -> None:
        """Wait for the first list, where that is being read."""
        loading = self._look()
        if self._owners is None and loading is not None:
            await asyncio.shield(loading)

    async def read(self) -> None:
        """Read the list now."""
        if self._loading is None:
            self._loading = asyncio.create_task(self._load())
        await asyncio.shield(self._loading)

    def _look(self) -> asyncio.Task[None] | None:
        """Begin to read, when that is due; the reading under way, if there is one."""
        age_s = time.monotonic() - self._read_at
        if self._loading is None and age_s >= (LEAST_S if self._old else AGAIN_S):
            self._loading = asyncio.create_task(self._load())
        return self._loading

    async def _load(self) -> None:
        self._read_at, self._old = time.monotonic(), False
        try:
            self._owners = owners(await self._store.hosts())
        except GuardError:
            self._old = True
        finally:
            self._loading = None


def owners(hosts: Iterable[Owned]) -> dict[str, str | None]:
    """Each host with its tenant; None where two say that it is theirs, as one of them is wrong."""
    found: dict[str, str | None] = {}
    for each in hosts:
        found[each.host] = each.tenant if found.get(each.host, each.tenant) == each.tenant else None
    return found
