"""Texts that a school writes itself: what may stand in them, and filling them in without ever failing."""

from __future__ import annotations

from collections.abc import Mapping
from string import Formatter
from typing import Final

PLACEHOLDERS: Final = ("limit", "counted", "retry_at", "support_email")
"""What a text may name in braces; a brace itself is written twice."""

BRACES: Final = "a brace that belongs to no placeholder; a brace itself is written twice"


def problems_of(text: str) -> tuple[str, ...]:
    """What is wrong with a text, one sentence each; empty for one that can be filled in.

    Only `{limit}`, `{counted}`, `{retry_at}` and `{support_email}` may be named, as they are.
    """
    if not text.strip():
        return ("empty",)
    parts = _parts(text)
    if parts is None:
        return (BRACES,)
    known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    strange = dict.fromkeys(name for _, name in parts if name is not None and name not in PLACEHOLDERS)
    return tuple(f"{{{name}}} is not known; there are {known}" for name in strange)


def filled(text: str, values: Mapping[str, str | None]) -> str | None:
    """The text with its values; None when it names one that is not there, or is no text that `problems_of` lets pass."""
    if problems_of(text):
        return None
    made: list[str] = []
    for literal, name in _parts(text) or ():
        value = "" if name is None else values.get(name)
        if value is None:
            return None
        made += (literal, value)
    return "".join(made)


def _parts(text: str) -> tuple[tuple[str, str | None], ...] | None:
    """Pieces of text, each with the name behind it; None when the braces do not match."""
    try:
        parsed = tuple(Formatter().parse(text))
    except ValueError:
        return None
    return tuple((literal, _name(name, form, conversion)) for literal, name, form, conversion in parsed)


def _name(name: str | None, form: str | None, conversion: str | None) -> str | None:
    """The name as it was written, with whatever stood behind it."""
    if name is None:
        return None
    return name + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "")
