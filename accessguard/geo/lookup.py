"""What the configured files say of an address, remembered while they stay the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

import maxminddb
import structlog

from accessguard.geo.files import DAMAGE, File, look_at
from accessguard.geo.model import UNKNOWN, FileState, Where
from accessguard.geo.records import Record, where
from accessguard.metrics import GEO_AGE, GEO_FAULTS, GEO_FILES
from accessguard.rules.model import Place
from accessguard.rules.networks import Address

LOOK_EVERY_S: Final = 5.0
# Addresses come back with the next request of the same student; about 8 MB when full.
REMEMBERED: Final = 16_384
BAD: Final = tuple(FileState)
"""From the best to the worst."""
LOG: Final = structlog.get_logger("accessguard.geo")


class Geo:
    """What the configured files say of an address; none of their faults stops anybody.

    `now_s` is the time in seconds since the epoch; `on_change` is called when
    other contents came into use, after they did.
    """

    def __init__(
        self,
        paths: Iterable[str | Path],
        *,
        now_s: Callable[[], float] = time.time,
        on_change: Callable[[], None] | None = None,
    ) -> None:
        self._files = tuple(File(path=Path(path)) for path in paths)
        self._now_s = now_s
        self._on_change: Callable[[], None] | None = None
        self._said: tuple[FileState, ...] = tuple(FileState.LOADED for _ in self._files)
        self._look: Callable[[Address], Where] = _nowhere
        if self._files:
            self._take(look_at(self._files))
        self._on_change = on_change

    @property
    def files(self) -> tuple[File, ...]:
        """The configured files, as they stood when they were last looked at."""
        return self._files

    @property
    def state(self) -> FileState | None:
        """How the worst of the configured files stands now; None when none is configured."""
        return max(self._standings(self._now_s()), key=BAD.index, default=None)

    def lookup(self, address: Address | None) -> Place:
        """What rules look at: for each field the first file that knows it. Unknown fields are None."""
        return self.where(address).place

    def where(self, address: Address | None) -> Where:
        """Everything that is known of an address."""
        return UNKNOWN if address is None else self._look(address)

    async def run(self) -> None:
        """Look for changed files every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Take up files that changed; the disk is read in a thread, and lookups go on meanwhile."""
        if self._files:
            self._take(await asyncio.to_thread(look_at, self._files))

    def measure(self, now_s: float) -> None:
        """Bring the metrics up to date, as of `now_s` (seconds since the epoch)."""
        standings = self._standings(now_s)
        for state in FileState:
            GEO_FILES.labels(state).set(standings.count(state))
        GEO_AGE.set(max((file.age_s(now_s) for file in self._files), default=0.0))

    def _standings(self, now_s: float) -> tuple[FileState, ...]:
        return tuple(file.standing(now_s) for file in self._files)

    def _take(self, files: tuple[File, ...]) -> None:
        before, self._files = self._files, files
        self._say(self._standings(self._now_s()))
        if [file.reader for file in files] == [file.reader for file in before]:
            return
        self._look = _remembering(files)
        if self._on_change is not None:
            self._on_change()

    def _say(self, standings: tuple[FileState, ...]) -> None:
        """Log a file that has come to stand otherwise, once."""
        for number, (old, new) in enumerate(zip(self._said, standings, strict=True), start=1):
            if new not in {old, FileState.LOADED}:
                event = "geo_file_old" if new is FileState.OLD else "geo_file_unusable"
                LOG.warning(event, state=new, file=number)
        self._said = standings


def _nowhere(_: Address) -> Where:
    return UNKNOWN


def _remembering(files: Sequence[File]) -> Callable[[Address], Where]:
    """A lookup in these files, with a memory that ends with them. A file of IPv4 alone is not asked about IPv6."""
    known = [(file.reader, file.about) for file in files if file.reader is not None and file.about is not None]
    every = [reader for reader, _ in known]
    wide = [reader for reader, about in known if about.ip_version == 6]

    @lru_cache(maxsize=REMEMBERED)
    def look(address: Address) -> Where:
        readers = every if address.version == 4 else wide
        return where([_record(reader, address.text) for reader in readers])

    return look


def _record(reader: maxminddb.Reader, text: str) -> Record:
    try:
        found = reader.get(text)
    except DAMAGE:
        GEO_FAULTS.inc()
        return {}
    return found if isinstance(found, Mapping) else {}
