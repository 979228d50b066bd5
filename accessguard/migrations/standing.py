"""Whether a server may work on a schema: its own, or a later one that has only been added to."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Final

import msgspec

VERSIONS: Final = Path(__file__).with_name("versions")


class Schema(msgspec.Struct, frozen=True, kw_only=True):
    """What a database says of its schema: its revision (None: empty), and the oldest one that servers may need."""

    revision: str | None
    floor: str | None = None


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


def objection(found: Schema) -> str | None:
    """Why a server of this release does not work on a schema, and what to run; None when it does."""
    match standing(found.revision, found.floor, head()):
        case Standing.FITS:
            return None
        case Standing.OLDER:
            there = found.revision or "nothing"
            return f"The schema is at {there}, this release needs {head()}: run `accessguard migrate`."
        case Standing.NEWER:
            return (
                f"This release is older than the schema: it knows revisions up to {head()}, the schema is at"
                f" {found.revision} and needs {found.floor or found.revision} or later. Upgrade AccessGuard."
            )


def head() -> str:
    """The revision that this release needs."""
    return revisions()[-1]


def revisions() -> tuple[str, ...]:
    """Every revision that this release knows, the oldest first: the four digits that the names of its files begin with."""
    return tuple(sorted(each.name[:4] for each in VERSIONS.glob("[0-9][0-9][0-9][0-9]_*.py")))
