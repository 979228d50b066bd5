"""Places of addresses, from files in MaxMind's format: mapped into memory, taken anew when they change.

A file is replaced by renaming a new one over it, as `geoipupdate` does: the old
one stays mapped until nobody looks at it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final, TypeVar

import maxminddb
import msgspec
import structlog

from accessguard.metrics import GEO_AGE, GEO_FAULTS, GEO_FILES
from accessguard.rules.model import Place
from accessguard.rules.networks import Address

T = TypeVar("T")

LOOK_EVERY_S: Final = 5.0
# Addresses come back with the next request of the same student; about 10 MB when full.
REMEMBERED: Final = 16_384
UNKNOWN: Final = Place()
# RFC 6793: four octets.
LARGEST_ASN: Final = 0xFFFF_FFFF
LONGEST_NAME: Final = 200
LOG: Final = structlog.get_logger("accessguard.geo")

# What a damaged file makes of a lookup, in the reader's C and in its Python.
DAMAGE: Final = (maxminddb.InvalidDatabaseError, ValueError, LookupError, TypeError)
# Where a lookup begins to show whether the data behind the tree can be read.
PROBES: Final = ("1.1.1.1", "8.8.8.8", "2001:4860:4860::8888")


class FileState(StrEnum):
    """How a configured file stands: in use, not there, or there and unreadable. Of the last two an older one may be in use."""

    LOADED = "loaded"
    MISSING = "missing"
    DAMAGED = "damaged"


class File(msgspec.Struct, frozen=True, kw_only=True):
    """One configured file: `state` None before it was looked at; `mark` changes with its content.

    `reader` is the last good one, `built_at_s` the second of the epoch at which that was built.
    """

    path: Path
    state: FileState | None = None
    mark: tuple[int, int, int] | None = None
    reader: maxminddb.Reader | None = None
    built_at_s: int | None = None


class Geo:
    """What the configured files say of an address; none of their faults stops anybody."""

    def __init__(self, paths: Iterable[str | Path]) -> None:
        self._files = tuple(File(path=Path(path)) for path in paths)
        self._lookup: Callable[[Address], Place] = _nowhere
        if self._files:
            self._take(_look_at(self._files))

    @property
    def files(self) -> tuple[File, ...]:
        """The configured files, as they stood when they were last looked at."""
        return self._files

    @property
    def up(self) -> bool | None:
        """Whether every configured file is in use as it is; None when none is configured."""
        return all(file.state is FileState.LOADED for file in self._files) if self._files else None

    def lookup(self, address: Address | None) -> Place:
        """What is known of an address: for each field the first file that knows it. Unknown fields are None."""
        return UNKNOWN if address is None else self._lookup(address)

    async def run(self) -> None:
        """Look for changed files every few seconds, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.refresh()

    async def refresh(self) -> None:
        """Take up files that changed; the disk is read in a thread, and lookups go on meanwhile."""
        if self._files:
            self._take(await asyncio.to_thread(_look_at, self._files))

    def measure(self, now_s: float) -> None:
        """Bring the metrics up to date."""
        for state in FileState:
            GEO_FILES.labels(state).set(sum(file.state is state for file in self._files))
        built = [file.built_at_s for file in self._files if file.built_at_s is not None]
        GEO_AGE.set(max(0.0, now_s - min(built)) if built else 0.0)

    def _take(self, files: tuple[File, ...]) -> None:
        before, self._files = self._files, files
        for number, (old, new) in enumerate(zip(before, files, strict=True), start=1):
            if new.state is not FileState.LOADED and (old.state, old.mark) != (new.state, new.mark):
                LOG.warning("geo_file_unusable", state=new.state, file=number)
        readers = [file.reader for file in files]
        if readers != [file.reader for file in before]:
            self._lookup = _remembering([reader for reader in readers if reader is not None])


def _nowhere(_: Address) -> Place:
    return UNKNOWN


def _remembering(readers: Sequence[maxminddb.Reader]) -> Callable[[Address], Place]:
    """A lookup in these files, with a memory that ends with them."""

    @lru_cache(maxsize=REMEMBERED)
    def look(address: Address) -> Place:
        return place([_record(reader, address) for reader in readers])

    return look


def _record(reader: maxminddb.Reader, address: Address) -> Mapping[str, Any]:
    if address.version == 6 and reader.metadata().ip_version == 4:
        return {}
    try:
        found = reader.get(IPv4Address(address.packed) if address.version == 4 else IPv6Address(address.packed))
    except DAMAGE:
        GEO_FAULTS.inc()
        return {}
    return found if isinstance(found, Mapping) else {}


def place(records: Sequence[Mapping[str, Any]]) -> Place:
    """From what the files say, in their order, to a place; what has another shape than MaxMind's is unknown."""
    latitude, longitude = _first(records, _centre) or (None, None)
    return Place(
        country=_first(records, _country),
        asn=_first(records, _asn),
        city=_first(records, _city),
        latitude=latitude,
        longitude=longitude,
    )


def _first(records: Sequence[Mapping[str, Any]], read: Callable[[Mapping[str, Any]], T | None]) -> T | None:
    return next((value for record in records if (value := read(record)) is not None), None)


def _country(record: Mapping[str, Any]) -> str | None:
    code = _part(record, "country").get("iso_code")
    return code.upper() if isinstance(code, str) and len(code) == 2 and code.isascii() else None


def _asn(record: Mapping[str, Any]) -> int | None:
    number = record.get("autonomous_system_number")
    return number if isinstance(number, int) and 0 < number <= LARGEST_ASN else None


def _city(record: Mapping[str, Any]) -> str | None:
    """The English name, with its region's behind it: of Springfields there are many."""
    city = _name(_part(record, "city"))
    regions = record.get("subdivisions")
    region = _name(regions[0]) if isinstance(regions, list) and regions else None
    return city if city is None or region in (None, city) else f"{city}, {region}"


def _centre(record: Mapping[str, Any]) -> tuple[float, float] | None:
    where = _part(record, "location")
    latitude, longitude = where.get("latitude"), where.get("longitude")
    if not isinstance(latitude, (float, int)) or not isinstance(longitude, (float, int)):
        return None
    return (float(latitude), float(longitude)) if abs(latitude) <= 90 and abs(longitude) <= 180 else None


def _part(record: Any, name: str) -> Mapping[str, Any]:
    part = record.get(name) if isinstance(record, Mapping) else None
    return part if isinstance(part, Mapping) else {}


def _name(record: Any) -> str | None:
    name = _part(record, "names").get("en")
    return name[:LONGEST_NAME] if isinstance(name, str) and name else None


def _look_at(files: Sequence[File]) -> tuple[File, ...]:
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
        reader, built_at_s = _opened(file.path)
    except (OSError, *DAMAGE):
        return msgspec.structs.replace(file, state=FileState.DAMAGED, mark=mark)
    return File(path=file.path, state=FileState.LOADED, mark=mark, reader=reader, built_at_s=built_at_s)


def _opened(path: Path) -> tuple[maxminddb.Reader, int]:
    """Map a file, and try it. Raises OSError, or one of DAMAGE."""
    reader = maxminddb.open_database(path, maxminddb.MODE_AUTO)
    meta = reader.metadata()
    for host in PROBES:
        if ":" not in host or meta.ip_version == 6:
            reader.get(host)
    return reader, int(meta.build_epoch)
