"""Whether this worker may serve, and which part is down."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from accessguard.database import Database
from accessguard.errors import GuardError
from accessguard.geo import Geo
from accessguard.guard.memory import Memory
from accessguard.guard.spooling import Spooling
from accessguard.guard.tally import Tally
from accessguard.metrics import CHANNEL_UP, HELD, POOL
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
        tally: Tally,
        geo: Geo,
        spooling: Spooling,
        now_ms: Callable[[], int],
    ) -> None:
        self._db = db
        self._live = live
        self._memory = memory
        self._tally = tally
        self._geo = geo
        self._spooling = spooling
        self._now_ms = now_ms

    @property
    def pending(self) -> int:
        """Logins that PostgreSQL does not have yet."""
        return self._spooling.pending

    async def parts(self) -> dict[str, str]:
        """Each part and `up` or `down`; `geo` only where files are configured, and down when one of them is not in use."""
        geo = {} if self._geo.up is None else {"geo": "up" if self._geo.up else "down"}
        return {
            "postgres": await self._postgres(),
            "valkey": await self._valkey(),
            "channel": "up" if self._memory.trusted else "down",
            **geo,
        }

    def measure(self) -> None:
        """Bring up to date what is only brought when it is read."""
        self._tally.report()
        self._geo.measure(self._now_ms() / 1000)
        HELD.set(self._memory.size)
        CHANNEL_UP.set(self._memory.trusted)
        POOL.labels("idle").set(self._db.idle)
        POOL.labels("used").set(self._db.size - self._db.idle)

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
