"""Sets of rules to start from, shipped as JSON with the package (config/presets is a link to them)."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Final
from uuid import UUID

import msgspec

from accessguard.policies.contradictions import contradictions
from accessguard.policies.model import RuleBody, normalised, parse
from accessguard.rules.model import Rule

FOLDER: Final = files("accessguard.policies") / "presets"

FIRST: Final = "observe-only"
"""What a new tenant starts with: limits are watched, nobody is refused, and a check costs no more than without."""


class PresetFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A preset as it is written: its rules are bodies of `POST /v1/rules`."""

    title: Annotated[str, msgspec.Meta(min_length=1, max_length=80)]
    description: Annotated[str, msgspec.Meta(min_length=1, max_length=400)]
    rules: Annotated[tuple[RuleBody, ...], msgspec.Meta(min_length=1, max_length=20)]


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    """A preset as it is offered: every default of its rules is written out."""

    name: str
    title: str
    description: str
    rules: tuple[RuleBody, ...]


@cache
def presets() -> tuple[Preset, ...]:
    """Every preset, by name.

    Raises GuardError(INVALID) or msgspec.ValidationError for one that is not
    valid, ValueError for one that contradicts itself; a test reads them all.
    """
    names = sorted(entry.name.removesuffix(".json") for entry in FOLDER.iterdir() if entry.name.endswith(".json"))
    return tuple(_read(name) for name in names)


def preset(name: str) -> Preset | None:
    """The preset of that name; None when there is none."""
    return next((each for each in presets() if each.name == name), None)


def _read(name: str) -> Preset:
    written = msgspec.json.decode((FOLDER / f"{name}.json").read_bytes(), type=PresetFile)
    bodies = tuple(normalised(body) for body in written.rules)
    for found in contradictions(_rule(body, at) for at, body in enumerate(bodies)):
        raise ValueError(f"{name}: {found.detail}")
    return Preset(name=name, title=written.title, description=written.description, rules=bodies)


def _rule(body: RuleBody, at: int) -> Rule:
    """A rule as it would be stored; its id is its place."""
    return parse(body, id=UUID(int=at), version=1)
