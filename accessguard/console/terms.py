"""What rules of every kind say besides their parameters: for whom, how they grow stricter, whether places may be freed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from accessguard.console.fields import apart, number
from accessguard.console.forms import Form, text, texts
from accessguard.policies.model import AppliesTo
from accessguard.rules.model import Kind

LISTS: Final = ("tags", "except_tags", "products", "apps")
CLASSES: Final = ("desktop", "mobile", "tablet")
GROWTH: Final = ("challenge_after", "deny_after")
"""Without one of these nothing grows."""


def applies_to(sent: Form, before: AppliesTo) -> dict[str, Any] | AppliesTo:
    """For whom, as the form says; as it was when the form does not say."""
    if "only.tags" not in sent:
        return before
    said: dict[str, Any] = {name: _lines(text(sent, f"only.{name}")) for name in LISTS}
    return said | {"device_classes": list(texts(sent, "only.device_classes"))}


def parts(kind: Kind, sent: Form, before: Mapping[str, Any]) -> dict[str, Any]:
    """The parts of a rule's parameters that are apart; what a form leaves empty is not there."""
    found: dict[str, Any] = {}
    for name in sorted(apart(kind)):
        said = _escalation(sent) if name == "escalation" else _swaps(sent)
        if f"{name}.asked" not in sent:
            said = before.get(name)
        if said is not None:
            found[name] = said
    return found


def _escalation(sent: Form) -> dict[str, Any] | None:
    said = {name: text(sent, f"escalation.{name}").strip() for name in (*GROWTH, "days")}
    if not any(said[name] for name in GROWTH):
        return None
    return {name: number(value) for name, value in said.items() if value}


def _swaps(sent: Form) -> dict[str, Any] | None:
    said = {name: text(sent, f"swaps.{name}").strip() for name in ("max", "window_days")}
    return {name: number(value) for name, value in said.items() if value} if said["max"] else None


def _lines(said: str) -> list[str]:
    return list(dict.fromkeys(each.strip() for each in said.splitlines() if each.strip()))
