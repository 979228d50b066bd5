"""What changed from one version of a rule to the next, field by field."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from accessguard.console.names import ACTIONS, ACTIVITIES, MODES, PARAMETERS, SCOPE, TERMS
from accessguard.policies.model import RuleBody

SHOWN: Final = 10
"""Of a long list, those that came or went."""
NOTHING: Final = "\N{EN DASH}"
OURS: Final[Mapping[str, Mapping[str, str]]] = {"mode": MODES, "action": ACTIONS, "activities": ACTIVITIES}
"""Fields whose values the console has words for."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One field that is another than before; `ours`: its values are the console's own words, to be translated.

    Of a list, `before` is what went, `after` what came.
    """

    name: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    ours: bool


def compared(before: RuleBody, after: RuleBody) -> tuple[Difference, ...]:
    """What is another in `after`; empty when nothing is."""
    first, second = dict(_fields(before)), dict(_fields(after))
    names = dict.fromkeys((*first, *second))
    return tuple(
        _difference(name, first.get(name), second.get(name))
        for name in names
        if (first.get(name) or None) != (second.get(name) or None)
    )


def _fields(body: RuleBody) -> Iterator[tuple[str, Any]]:
    for name in ("name", "mode", "action", "message", "priority"):
        yield name, getattr(body, name)
    for name, value in msgspec.to_builtins(body.params).items():
        if isinstance(value, dict):
            yield from ((f"{name}.{each}", of) for each, of in value.items())
        else:
            yield name, value
    for name, value in msgspec.to_builtins(body.applies_to).items():
        yield f"only.{name}", value


def _difference(name: str, before: Any, after: Any) -> Difference:
    ours = OURS.get(name, {})
    if isinstance(before, (list, tuple)) or isinstance(after, (list, tuple)):
        gone, come = _without(before or (), after or ()), _without(after or (), before or ())
    else:
        gone, come = _one(before), _one(after)
    return Difference(
        name=_label(name),
        before=tuple(ours.get(each, each) for each in gone),
        after=tuple(ours.get(each, each) for each in come),
        ours=bool(ours),
    )


def _label(name: str) -> str:
    head, _, tail = name.partition(".")
    if head == "only":
        return SCOPE[tail]
    return TERMS.get(name) or PARAMETERS.get(name, name)


def _one(value: Any) -> tuple[str, ...]:
    return (NOTHING,) if value is None or value == "" else (str(value),)


def _without(some: Any, others: Any) -> tuple[str, ...]:
    """Those of the first that are not among the second, the first few of them."""
    known = set(others)
    found = [str(each) for each in some if each not in known]
    return (*found[:SHOWN], *((f"+{len(found) - SHOWN}",) if len(found) > SHOWN else ())) or (NOTHING,)
