"""A backup of the embedded database, while it serves or while nobody uses it."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import IO

from accessguard import __version__
from accessguard.embedded.archive import DUMP, Manifest, drafted, measured, write
from accessguard.embedded.census import census
from accessguard.embedded.postgres import database_url, end_predecessor, start_postgres
from accessguard.embedded.process import EmbeddedError
from accessguard.embedded.stores import RESTORING, SECRETS, forget_runtime, make_runtime, take
from accessguard.embedded.tools import Progress, follow
from accessguard.migrations import revision


async def back_up(folder: Path, target: Path, *, now: datetime, keys: bool, progress: Progress) -> Manifest:
    """Write what the data folder holds at one moment to a new folder `target`; with `keys`, what it signs with, too.

    Whoever uses the database is not held up. Raises EmbeddedError; then, as after a kill, there is no `target`.
    """
    with drafted(target.absolute()) as draft:
        async with database_of(folder.resolve()) as url, census(url) as found:
            there = await revision(url)
            if there is None:
                raise EmbeddedError(f"The database in {folder} is empty; there is nothing to back up.")
            options = (f"--dbname={url}", f"--snapshot={found.snapshot}", f"--file={draft / DUMP}", "--format=custom")
            await follow("pg_dump", options, log=draft / "log", rows=found.rows, progress=progress)
        if keys and (folder / SECRETS).exists():
            shutil.copyfile(folder / SECRETS, draft / SECRETS)
        manifest = Manifest(
            version=__version__,
            revision=there,
            postgres=found.postgres,
            taken_at=now,
            rows=found.rows,
            files=measured(draft),
        )
        write(draft, manifest)
    return manifest


@asynccontextmanager
async def database_of(folder: Path) -> AsyncIterator[str]:
    """The address of the database in a data folder: of the server that runs there, else of one that runs meanwhile."""
    if not (folder / "postgres").is_dir() or (folder / RESTORING).exists():
        raise EmbeddedError(
            f"There is no database in {folder}; `accessguard dev` makes one, ACCESSGUARD_DATA_FOLDER says where."
        )
    lock = _free(folder)
    if lock is None:
        yield database_url(_runtime(folder))
        return
    try:
        await end_predecessor(folder / "postgres")
        forget_runtime(folder)
        runtime = make_runtime(folder)
        server = await start_postgres(folder / "postgres", runtime)
        try:
            yield database_url(runtime)
        finally:
            await server.stop()
    finally:
        forget_runtime(folder)
        lock.close()


def _free(folder: Path) -> IO[str] | None:
    """The lock of the folder; None when a service has it."""
    try:
        return take(folder)
    except EmbeddedError as error:
        if isinstance(error.__cause__, BlockingIOError):
            return None
        raise


def _runtime(folder: Path) -> Path:
    try:
        return Path((folder / "runtime").read_text())
    except OSError as error:
        raise EmbeddedError(f"The service on {folder} is just starting or stopping; try again.") from error
