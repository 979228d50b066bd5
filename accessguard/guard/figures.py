"""How many cases each tenant has that nobody has dealt with, for Prometheus; only where the configuration wants tenants named."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from accessguard.database import Database
from accessguard.errors import GuardError
from accessguard.metrics import TENANT_VIOLATIONS

EVERY_S: Final = 300.0
"""How old the figures may be: a look at a tenant's newest cases takes some 10 ms."""
MOST_TENANTS: Final = 100
"""Tenants that get series of their own; the bound that keeps Prometheus small."""
MOST_CASES: Final = 10_000
"""Of each tenant the newest so many are looked at, which an index has in order."""

# The bound on all tenants of the installation, hence the one statement without a tenant; who was there first keeps its place.
TENANTS: Final = "SELECT id FROM tenant ORDER BY created_at, id LIMIT $1"
CASES: Final = """
    SELECT count(*) FILTER (WHERE resolution = 'open') AS open,
           count(*) FILTER (WHERE effect <> 'exempt' AND NOT EXISTS (
               SELECT FROM read_mark r WHERE r.tenant = $1 AND r.violation_id = v.id AND r.hits >= v.hits)) AS unread
      FROM (SELECT id, effect, hits, resolution FROM violation WHERE tenant = $1 ORDER BY last_at DESC, id LIMIT $2) v
"""


class Figures:
    """Counts now and then, until cancelled; nothing at all where it is not `wanted`."""

    def __init__(self, db: Database, *, wanted: bool) -> None:
        self._db = db
        self._wanted = wanted

    async def run(self) -> None:
        """Count every EVERY_S; without PostgreSQL the last figures stay."""
        while True:
            if self._wanted:
                with contextlib.suppress(GuardError):
                    await self.once()
            await asyncio.sleep(EVERY_S)

    async def once(self) -> None:
        """Count; tenants that are gone lose their series. Raises GuardError(UNAVAILABLE)."""
        found: dict[str, tuple[int, int]] = {}
        for row in await self._db.fetch(TENANTS, MOST_TENANTS):
            counted = await self._db.row(CASES, row["id"], MOST_CASES)
            if counted is not None:
                found[row["id"]] = (counted["open"], counted["unread"])
        TENANT_VIOLATIONS.clear()
        for tenant, (unsettled, unread) in found.items():
            TENANT_VIOLATIONS.labels(tenant, "open").set(unsettled)
            TENANT_VIOLATIONS.labels(tenant, "unread").set(unread)
