"""Whether this worker may serve, and which part is down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from accessguard.database import Database
from accessguard.errors import GuardError
from accessguard.geo import FileState, Geo
from accessguard.guard.changes import Changes
from accessguard.guard.memory import Memory
from accessguard.guard.schema import SchemaWatch
from accessguard.guard.spooling import Spooling
from accessguard.guard.tally import Tally
from accessguard.keyfiles import KeyFiles
from accessguard.metrics import CACHE, CHANNEL_UP, HELD, POOL, STORE_WAITING
from accessguard.sessions.live import Live

PROBE: Final = "SELECT 1"
PROBE_S: Final = 1.0


class Ready:
    """Asks each part for a sign of life."""

    def __init__(
        self,
        *,
        db: Database,
        live: Live,
        memory: Memory,
        changes: Changes,
        tally: Tally,
        geo: Geo,
        keys: KeyFiles,
        spooling: Spooling,
        schema: SchemaWatch,
        now_ms: Callable[[], int],
    ) -> None:
        self._db = db
        self._live = live
        self._memory = memory
        self._changes = changes
        self._tally = tally
        self._geo = geo
        self._keys = keys
        self._spooling = spooling
        self.schema = schema
        self._now_ms = now_ms

    @property
    def pending(self) -> int:
        """Logins that PostgreSQL does not have yet."""
        return self._spooling.pending

    async def parts(self) -> dict[str, str]:
        """Each part and `up` or `down`; `geo` and `keys` only where files are configured, `geo` with how the worst of them stands.

        `schema` is there, and `down`, when it does not fit this release.
        """
        return {
            "postgres": await self._postgres(),
            "valkey": await self._valkey(),
            "channel": "up" if self._memory.trusted else "down",
            **self._places(),
            **self._secrets(),
            **({} if self.schema.fits else {"schema": "down"}),
        }

    def measure(self) -> None:
        """Bring up to date what is only brought when it is read."""
        self._tally.report()
        self._geo.measure(self._now_ms() / 1000)
        self._keys.measure()
        self._changes.measure()
        HELD.set(self._memory.size)
        for cache, entries in self._memory.sizes.items():
            CACHE.labels(cache).set(entries)
        STORE_WAITING.labels("postgres").set(self._db.waiting)
        STORE_WAITING.labels("valkey").set(self._live.waiting)
        CHANNEL_UP.set(self._memory.trusted)
        POOL.labels("idle").set(self._db.idle)
        POOL.labels("used").set(self._db.size - self._db.idle)

    def _places(self) -> dict[str, str]:
        state = self._geo.state
        return {} if state is None else {"geo": "up" if state is FileState.LOADED else state.value}

    def _secrets(self) -> dict[str, str]:
        return {} if self._keys.up is None else {"keys": "up" if self._keys.up else "down"}

    async def _postgres(self) -> str:
        try:
            await self._db.value(PROBE, timeout_s=PROBE_S)
        except GuardError:
            return "down"
        return "up"

    async def _valkey(self) -> str:
        try:
            await self._live.ping()
        except GuardError:
            return "down"
        return "up"
