"""Data folders made once a run and then copied: a fresh one takes seconds, and most tests are about something else."""

from __future__ import annotations

import atexit
import fcntl
import os
import shutil
import subprocess
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from accessguard import migrations
from accessguard.database import Database
from accessguard.devices.recognitions import RecognitionStore
from accessguard.devices.refinement import Refined, asked_of, recogniser
from accessguard.embedded import Embedded
from tests.service import CHROME, FIREFOX

PLACE: Final = "TESTS_MODELS"
"""The variable that tells the processes of a run where the folders to copy are."""
LOOKED_AT: Final = (*(CHROME.format(version) for version in range(138, 144)), FIREFOX)


def settle() -> None:
    """Say where the folders will be, before the run starts processes of its own; they are gone with this one."""
    if PLACE not in os.environ:
        place = Path(tempfile.mkdtemp(prefix="model-"))
        place.chmod(0o755)  # PostgreSQL runs as somebody else where the tests run as root
        atexit.register(shutil.rmtree, place, ignore_errors=True)
        os.environ[PLACE] = str(place)


async def lay_out(folder: Path, *, migrated: bool = True) -> Path:
    """Put what `Embedded` leaves behind into `folder`, which is made: an empty database, or one with the schema.

    With the schema, device-detector has told of the browsers of most tests, so that no worker asks it.
    """
    _copy(await _model(migrated=migrated), folder)
    return folder


def _copy(model: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", f"{model}/.", folder], check=True)  # owners and modes, too


async def _model(*, migrated: bool) -> Path:
    """The folder to copy: made by whichever process of the run needs it first."""
    settle()
    place = Path(os.environ[PLACE])
    found = place / ("migrated" if migrated else "empty")
    if found.exists():
        return found
    empty = await _model(migrated=False) if migrated else None
    with (place / f"{found.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not found.exists():
            await _make(found, empty)
    return found


async def _make(found: Path, empty: Path | None) -> None:
    draft = found.with_name(f"{found.name}.new")
    if empty is not None:
        _copy(empty, draft)
    stores = await Embedded.start(draft)
    try:
        if empty is not None:
            await migrations.migrate(stores.database_url)
            await _look_twice(stores.database_url)
    finally:
        await stores.stop()
    draft.rename(found)


async def _look_twice(database_url: str) -> None:
    db = await Database.connect(database_url, size=1)
    store, now = RecognitionStore(db, version=recogniser()), datetime.now(UTC)
    try:
        for text in LOOKED_AT:
            key = asked_of(text, None).key
            await store.claim(key, now=now)
            await store.keep(key, Refined(), now=now)
    finally:
        await db.close()
