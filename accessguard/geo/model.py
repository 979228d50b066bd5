"""What is said of an address, and of the files that say it."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

from accessguard.rules.model import Place


class Where(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What the files know of an address: what rules look at, and what people read besides; None is unknown.

    `operator` is the name of the network operator whose number is `place.asn`,
    `time_zone` the name of one in the IANA database.
    """

    place: Place = Place()
    operator: str | None = None
    time_zone: str | None = None


UNKNOWN: Final = Where()


class FileState(StrEnum):
    """How a configured file stands, from good to bad.

    In use; in use but built long ago; there and unreadable; not there. Of the
    last two an older content may be in use.
    """

    LOADED = "loaded"
    OLD = "old"
    DAMAGED = "damaged"
    MISSING = "missing"


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What a file says of itself: its type, when it was built (seconds since the epoch), and what it holds.

    `ip_version` 6 holds both versions, 4 holds IPv4 alone; `nodes` counts
    those of its search tree, `languages` are those of its names.
    """

    kind: str
    built_at_s: int
    ip_version: int
    nodes: int
    languages: tuple[str, ...] = ()
