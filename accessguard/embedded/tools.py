"""pg_dump and pg_restore, followed while they run."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeAlias

from accessguard.embedded.postgres import program
from accessguard.embedded.process import Child, EmbeddedError, User

POLL_S: Final = 0.1
TABLE: Final = re.compile(r'(?:dumping contents of|processing data for) table "public\.([^"]+)"')

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how many rows are done, and of how many."""


async def follow(
    tool: str, options: Sequence[str | Path], *, log: Path, rows: Mapping[str, int], progress: Progress
) -> None:
    """Run a tool of PostgreSQL to its end; it ends with this process, whatever ends that.

    `log` is where it writes, and is removed. Raises EmbeddedError with what the tool says.
    """
    user = User(os.geteuid(), os.getegid())
    command = (program(tool), *options, "--verbose")
    child = Child.start(command, user=user, folder=log.parent, log=log, goodbye=signal.SIGTERM)
    try:
        while child.running:
            progress(done(log, rows), sum(rows.values()))
            await asyncio.sleep(POLL_S)
        if await child.exit_code(within_s=0) != 0:
            raise EmbeddedError(f"{tool} failed: {child.reason or 'it gave no reason'}.")
    finally:
        await child.stop()
        log.unlink(missing_ok=True)


def done(log: Path, rows: Mapping[str, int]) -> int:
    """The rows of all tables before the one that is under way."""
    begun = TABLE.findall(log.read_text(errors="replace"))
    return sum(rows.get(name, 0) for name in begun[:-1])
