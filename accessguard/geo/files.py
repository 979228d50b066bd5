"""Files in MaxMind's format (MaxMind DB File Format Specification, version 2.0): opened, tried, looked at again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import maxminddb
import msgspec

from accessguard.geo.model import About, FileState

# Addresses move from one operator to another: after this time a file is said to be old (issued twice a week or monthly).
OLD_S: Final = 60 * 86_400
# The end of year 9999, in seconds since the epoch: a later date of build cannot be written down.
LATEST_S: Final = 253_402_300_799

# What a damaged file makes of a lookup, in the reader's C and in its Python.
DAMAGE: Final = (
    maxminddb.InvalidDatabaseError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    RecursionError,
)
# Where a lookup begins to show whether the data behind the tree can be read.
PROBES: Final = ("1.1.1.1", "8.8.8.8", "2001:4860:4860::8888")


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One configured file: `state` None before it was looked at; `mark` changes with its content.

    `reader` is the last good one, `about` what that says of itself.
    """

    path: Path
    state: FileState | None = None
    mark: tuple[int, int, int] | None = None
    reader: maxminddb.Reader | None = None
    about: About | None = None

    def standing(self, now_s: float) -> FileState:
        """How it stands at a time (seconds since the epoch)."""
        if self.state is FileState.LOADED and self.age_s(now_s) > OLD_S:
            return FileState.OLD
        return self.state or FileState.MISSING

    def age_s(self, now_s: float) -> float:
        """How long ago that was built which is in use, in seconds; 0 when nothing is."""
        return max(0.0, now_s - self.about.built_at_s) if self.about else 0.0


def look_at(files: Sequence[File]) -> tuple[File, ...]:
    """The files as they are now; reads the disk."""
    return tuple(_looked_at(file) for file in files)


def _looked_at(file: File) -> File:
    """The file as it is now; the last good content stays in use while there is no better."""
    try:
        stat = file.path.stat()
    except OSError:
        return msgspec.structs.replace(file, state=FileState.MISSING, mark=None)
    mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
    if mark == file.mark:
        return file
    try:
        reader, about = _opened(file.path)
    except (OSError, *DAMAGE):
        return msgspec.structs.replace(file, state=FileState.DAMAGED, mark=mark)
    return File(path=file.path, state=FileState.LOADED, mark=mark, reader=reader, about=about)


def _opened(path: Path) -> tuple[maxminddb.Reader, About]:
    """Map a file, and try it. Raises OSError, or one of DAMAGE."""
    reader = maxminddb.open_database(path, maxminddb.MODE_AUTO)
    about = _about(reader)
    for host in PROBES:
        if ":" not in host or about.ip_version == 6:
            reader.get(host)
    return reader, about


def _about(reader: maxminddb.Reader) -> About:
    """What the file says of itself. Raises one of DAMAGE where that cannot be."""
    meta = reader.metadata()
    built_at_s = int(meta.build_epoch)
    if not 0 <= built_at_s <= LATEST_S:
        raise ValueError("a date of build that is none")
    return About(
        kind=str(meta.database_type),
        built_at_s=built_at_s,
        ip_version=int(meta.ip_version),
        nodes=int(meta.node_count),
        languages=tuple(str(each) for each in meta.languages or ()),
    )
