"""`accessguard backup` and `accessguard restore`: of the embedded default, with a progress bar."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from accessguard.config import Config, ConfigError
from accessguard.embedded.archive import Manifest
from accessguard.embedded.backup import back_up
from accessguard.embedded.restore import restore
from accessguard.embedded.tools import Progress as Told

OWN: Final = (
    "ACCESSGUARD_DATABASE_URL names a PostgreSQL of your own, which this command leaves alone: back it up with its own tools"
    " (docs/operations.md, Backup)."
)
WITH_KEYS: Final = (
    "The keys are in it, too: whoever reads it can sign tokens and cookies. Keep it as you keep a password."
)
WITHOUT_KEYS: Final = "The keys are not in it: without the same ones, a restored service takes every browser for a new device, and nobody stays logged in."


async def run(config: Config, target: Path | None, *, keys: bool) -> None:
    """Back the data folder up to `target` (None: a name with the time in it, here), and say what is in it."""
    folder, now = data_folder(config), datetime.now(UTC)
    place = target or Path(f"accessguard-{now:%Y%m%dT%H%M%SZ}")
    with bar("Backup") as progress:
        manifest = await back_up(folder, place, now=now, keys=keys, progress=progress)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Backup {place}: {told(manifest)}.")
    console.print(WITH_KEYS if manifest.has_keys else WITHOUT_KEYS)


async def run_restore(config: Config, backup: Path, *, force: bool) -> None:
    """Restore the data folder from `backup`, and say what it holds now."""
    folder = data_folder(config)
    with bar("Restore") as progress:
        manifest = await restore(backup, folder, force=force, progress=progress)
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"Restored into {folder}, every row counted: {told(manifest)}.")
    if not manifest.has_keys:
        console.print(WITHOUT_KEYS)


def data_folder(config: Config) -> Path:
    """Where the embedded data are. Raises ConfigError when the configuration names a server instead."""
    if config.database.url:
        raise ConfigError(OWN)
    return Path(config.data_folder)


def told(manifest: Manifest) -> str:
    """What is in a backup, in a few words."""
    size = sum(each.bytes for each in manifest.files.values()) / 1_000_000
    return (
        f"{sum(manifest.rows.values()):,} rows, {size:.1f} MB, of {manifest.taken_at:%Y-%m-%d %H:%M:%S} UTC,"
        f" schema {manifest.revision}, AccessGuard {manifest.version}"
    )


@contextmanager
def bar(what: str) -> Iterator[Told]:
    """A bar of rows on standard error, gone at the end."""
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("rows"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:
        task = drawn.add_task(what, total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total)
