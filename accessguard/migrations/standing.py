"""Whether a server may work on a schema: its own, or a later one that has only been added to."""

from __future__ import annotations

from enum import StrEnum


class Standing(StrEnum):
    """How a schema stands to a server: it fits, it lacks something, or it has lost something that the server needs."""

    FITS = "fits"
    OLDER = "older"
    NEWER = "newer"


def standing(found: str | None, floor: str | None, own: str) -> Standing:
    """How a schema at the revision `found` (None: empty) stands to a server that was made for `own`.

    Migrations add, so that servers of releases before go on while a new one is
    rolled out. One that takes something away raises the `floor` in the schema: the
    oldest revision whose servers may still work on it. None where a schema has
    none, which no schema newer than the first that has it lacks. Revisions are
    four digits, so their order is that of their texts.
    """
    if found is None or found < own:
        return Standing.OLDER
    if found == own or (floor is not None and floor <= own):
        return Standing.FITS
    return Standing.NEWER
