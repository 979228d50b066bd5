"""A backup: a folder with a dump, perhaps the keys, and a manifest that vouches for both.

It gets its name when all of it is on the disk, so a backup that was cut off is a
folder with a dot before its name and is never taken for one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Final, Literal

import msgspec

from accessguard.embedded.process import EmbeddedError
from accessguard.embedded.stores import SECRETS

MANIFEST: Final = "manifest.json"
DUMP: Final = "database.dump"
OURS: Final = (DUMP, SECRETS)


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """A file's size in bytes and its SHA-256 in hexadecimal digits."""

    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What is in a backup: by which release, of which schema and PostgreSQL, of when; rows by table, files by name."""

    format: Literal[1] = 1
    version: str
    revision: str
    postgres: str
    taken_at: datetime
    rows: Mapping[str, int]
    files: Mapping[str, Sum]

    @property
    def has_keys(self) -> bool:
        """Whether the keys came along."""
        return SECRETS in self.files


@contextmanager
def drafted(target: Path) -> Iterator[Path]:
    """A folder, its owner's alone, that becomes `target` when the block ends well, and is removed when it does not.

    Raises EmbeddedError when there is something at `target`, or nothing can be written there.
    """
    if target.exists():
        raise EmbeddedError(f"{target} is there already; a backup never overwrites anything.")
    try:
        draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.new-", dir=target.parent))
    except OSError as error:
        raise EmbeddedError(f"Cannot write a backup to {target}: {error.strerror}.") from error
    try:
        yield draft
        for file in draft.iterdir():
            file.chmod(0o600)
            settle(file)
        settle(draft)
        draft.rename(target)
        settle(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def measured(folder: Path) -> Mapping[str, Sum]:
    """The files of ours that are in the folder."""
    return {name: measure(folder / name) for name in OURS if (folder / name).exists()}


def measure(file: Path) -> Sum:
    """Size and checksum of one file, read a piece at a time."""
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return Sum(bytes=file.stat().st_size, sha256=digest)


def write(folder: Path, manifest: Manifest) -> None:
    """Put the manifest beside what it vouches for."""
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")


def read(folder: Path) -> Manifest:
    """The manifest of a backup. Raises EmbeddedError when the folder is none."""
    try:
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=Manifest)
    except OSError as error:
        raise EmbeddedError(f"{folder} is no whole backup: it has no {MANIFEST} that can be read.") from error
    except msgspec.DecodeError as error:
        raise EmbeddedError(f"{folder / MANIFEST} is damaged, or of a later release: {error}.") from error


def verify(folder: Path, manifest: Manifest) -> None:
    """Raise EmbeddedError unless every file is there as it was written."""
    for name, expected in manifest.files.items():
        if name not in OURS or not (folder / name).is_file():
            raise EmbeddedError(f"The backup {folder} is not whole: {name} is missing.")
        if measure(folder / name) != expected:
            raise EmbeddedError(f"The backup {folder} is damaged: {name} is not what was written.")
    if DUMP not in manifest.files:
        raise EmbeddedError(f"The backup {folder} is not whole: {DUMP} is missing.")


def settle(path: Path) -> None:
    """Have a file or folder on the disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
