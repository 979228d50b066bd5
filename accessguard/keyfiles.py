"""Keys in files: read again when a file changes, so that they rotate without a restart.

A file is best replaced by renaming a new one over it. One that cannot be used
changes nothing: the keys that are in use stay, and it is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeAlias

import structlog

from accessguard.metrics import KEY_FILES

LOOK_EVERY_S: Final = 5.0
LARGEST_BYTES: Final = 65_536
"""Some 800 keys; what is larger is no list of keys."""
LOG: Final = structlog.get_logger("accessguard.keyfiles")

Mark: TypeAlias = tuple[int, int, int]


class FileState(StrEnum):
    """How a file of keys stands: in use, not there, or there and unusable; of the last two its last good keys are in use."""

    LOADED = "loaded"
    MISSING = "missing"
    DAMAGED = "damaged"


class KeyFile:
    """One file; `take` is told its text, and raises ValueError for one that is no list of keys."""

    def __init__(self, path: Path, take: Callable[[str], None]) -> None:
        self.path = path
        self.state = FileState.LOADED
        self._take = take
        self._mark = _mark(path)

    def look(self) -> None:
        """Take up the file if it has changed since the last time."""
        before, mark = self.state, _mark(self.path)
        if mark is None:
            self.state = FileState.MISSING
        elif mark != self._mark or before is not FileState.LOADED:  # what cannot be read may become readable as it is
            self.state = self._read()
        self._mark = mark
        if self.state is not before:
            tell = LOG.info if self.state is FileState.LOADED else LOG.warning
            tell("key_file", state=self.state, file=self.path.name)

    def _read(self) -> FileState:
        try:
            with self.path.open(encoding="utf-8") as file:
                self._take(file.read(LARGEST_BYTES).strip())
        except (OSError, ValueError):
            return FileState.DAMAGED
        return FileState.LOADED


class KeyFiles:
    """Every watched file of a worker."""

    def __init__(self, files: Iterable[KeyFile] = ()) -> None:
        self._files = tuple(files)

    @property
    def up(self) -> bool | None:
        """Whether every file is in use as it is; None when none is watched."""
        return all(file.state is FileState.LOADED for file in self._files) if self._files else None

    async def run(self) -> None:
        """Look for changed files every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Take up what has changed; the disk is read in a thread."""
        if self._files:
            await asyncio.to_thread(self._look)

    def measure(self) -> None:
        """Bring the metric up to date."""
        for state in FileState:
            KEY_FILES.labels(state).set(sum(file.state is state for file in self._files))

    def _look(self) -> None:
        for file in self._files:
            file.look()


def _mark(path: Path) -> Mark | None:
    """What changes with a file's content; None when it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_ino, stat.st_mtime_ns, stat.st_size)
