"""A backup put back: made beside what is there, looked at, and only then in its place."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

from accessguard.embedded.archive import DUMP, Manifest, read, settle, verify
from accessguard.embedded.census import analyse, census
from accessguard.embedded.postgres import database_url, end_predecessor, start_postgres
from accessguard.embedded.process import EmbeddedError
from accessguard.embedded.stores import RESTORING, SECRETS, forget_runtime, make_runtime, take
from accessguard.embedded.tools import Progress, follow
from accessguard.migrations import revision, revisions

DRAFT: Final = "restore.new"
STORES: Final = ("postgres", "valkey")
MOST_JOBS: Final = 4


async def restore(backup: Path, folder: Path, *, force: bool, progress: Progress) -> Manifest:
    """Make the data folder what it was when the backup was taken; with `force`, in place of what is there.

    Keys that are in the backup replace those of the folder; without any, the folder's stay.
    Raises EmbeddedError; until the last moment everything that was there then is as it
    was. When it is killed in that moment, the folder refuses to be used until the next restore.
    """
    backup, folder = backup.resolve(), folder.resolve()
    manifest = read(backup)
    if manifest.revision not in revisions():
        raise EmbeddedError(
            f"The backup is of schema {manifest.revision} (AccessGuard {manifest.version}), which this release does not know: upgrade AccessGuard."
        )
    occupied = not (folder / RESTORING).exists() and any((folder / name).exists() for name in (*STORES, SECRETS))
    if occupied and not force:
        raise EmbeddedError(f"There are data in {folder}: restore into another folder, or lose them with --force.")
    verify(backup, manifest)
    with take(folder):
        draft = folder / DRAFT
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir()
        try:
            await load(backup, manifest, draft, progress)
            await end_predecessor(folder / "postgres")
            install(folder, draft)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return manifest


async def load(backup: Path, manifest: Manifest, draft: Path, progress: Progress) -> None:
    """Make a database in `draft` from the backup, and see that nothing is missing in it."""
    runtime = make_runtime(draft)
    try:
        server = await start_postgres(draft / "postgres", runtime)
        try:
            url = database_url(runtime)
            jobs = min(MOST_JOBS, os.cpu_count() or 1)
            options = (f"--dbname={url}", f"--jobs={jobs}", "--exit-on-error", backup / DUMP)
            await follow("pg_restore", options, log=draft / "log", rows=manifest.rows, progress=progress)
            await compare(url, manifest)
            await analyse(url)
        finally:
            await server.stop()
    finally:
        forget_runtime(draft)
    if manifest.has_keys:
        descriptor = os.open(draft / SECRETS, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write((backup / SECRETS).read_bytes())


async def compare(url: str, manifest: Manifest) -> None:
    """Raise EmbeddedError unless the schema and the rows of every table are those of the manifest."""
    async with census(url) as found:
        differing = [
            name for name in {**manifest.rows, **found.rows} if manifest.rows.get(name) != found.rows.get(name)
        ]
    if differing or await revision(url) != manifest.revision:
        raise EmbeddedError(f"What was restored is not what was backed up: {', '.join(differing) or 'the schema'}.")


def install(folder: Path, draft: Path) -> None:
    """Put the new data where the old ones are. Meanwhile the folder says that it is not whole."""
    marker = folder / RESTORING
    marker.touch()
    settle(folder)
    for name in STORES:
        if (folder / name).exists():
            (folder / name).rename(draft / f"{name}.old")
    (draft / "postgres").rename(folder / "postgres")
    if (draft / SECRETS).exists():
        settle(draft / SECRETS)
        (draft / SECRETS).replace(folder / SECRETS)
    settle(folder)
    marker.unlink()
    settle(folder)
