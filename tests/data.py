"""Data folders made once a run and then copied: a fresh one takes seconds, and most tests are about something else."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from pathlib import Path

from accessguard import migrations
from accessguard.embedded import Embedded

_models: dict[bool, Path] = {}


async def lay_out(folder: Path, *, migrated: bool = True) -> Path:
    """Put what `Embedded` leaves behind into `folder`, which is made: an empty database, or one with the schema."""
    model = _models.get(migrated) or await _model(migrated=migrated)
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-a", "--reflink=auto", f"{model}/.", folder], check=True)  # owners and modes, too
    return folder


async def _model(*, migrated: bool) -> Path:
    place = Path(tempfile.mkdtemp(prefix="model-"))
    place.chmod(0o755)  # PostgreSQL runs as somebody else where the tests run as root
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    stores = await Embedded.start(place / "data")
    try:
        if migrated:
            await migrations.migrate(stores.database_url)
    finally:
        await stores.stop()
    _models[migrated] = place / "data"
    return _models[migrated]
