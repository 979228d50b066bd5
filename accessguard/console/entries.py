"""Lines of the audit log as people read them: what an act changed, field by field."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from accessguard.events.audit import Entry

LONGEST: Final = 200
"""Characters of a value; the whole of it is in the file."""
MOST: Final = 20
"""Fields of a line."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One field that was changed; None: it was not there."""

    name: str
    before: str | None
    after: str | None


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """An act, and what it changed."""

    entry: Entry
    changes: tuple[Change, ...]


def line(entry: Entry) -> Line:
    """An act with the fields that are another before and after it."""
    before, after = _fields(entry.before), _fields(entry.after)
    names = [each for each in dict.fromkeys((*before, *after)) if before.get(each) != after.get(each)]
    changes = (Change(name=each, before=_said(before, each), after=_said(after, each)) for each in names[:MOST])
    return Line(entry=entry, changes=tuple(changes))


def _fields(value: Any) -> dict[str, Any]:
    if value is None:
        return {}
    return value if isinstance(value, dict) else {"": value}


def _said(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None or value in ("", [], {}):
        return None
    said = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return said if len(said) <= LONGEST else f"{said[:LONGEST]} …"
