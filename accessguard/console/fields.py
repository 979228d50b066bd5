"""The parameters of a kind of rule as fields of a form, made from the struct that decodes them, and back."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any, Final

import msgspec
from msgspec import inspect

from accessguard.console.forms import Form, text, texts
from accessguard.policies.params import PARAMS
from accessguard.rules.model import Kind

APART: Final = frozenset({"escalation", "swaps"})
"""Parts of a rule that have fields of their own; see terms.py."""


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter; `shape` is number, choice, choices or lines. `optional`: left empty, it is null; `standard` fills a new form."""

    name: str
    shape: str
    options: tuple[str, ...] = ()
    optional: bool = False
    whole: bool = True
    standard: Any = None

    def shown(self, params: Mapping[str, Any]) -> Any:
        """What the field holds for these parameters."""
        value = params.get(self.name, self.standard)
        if self.shape == "lines":
            return "\n".join(str(each) for each in value or ())
        return (value or ()) if self.shape == "choices" else "" if value is None else value

    def read(self, sent: Form) -> Any:
        """What a form says; a number that is none stays a text, which is then refused by the rule itself."""
        said = text(sent, self.name).strip()
        match self.shape:
            case "choices":
                return list(texts(sent, self.name)) or (None if self.optional else [])
            case "lines":
                found = [number(each.strip()) if self.whole else each.strip() for each in said.splitlines()]
                return [each for each in found if each != ""] or (None if self.optional else [])
            case "number":
                return None if self.optional and not said else number(said)
            case _:
                return said


@cache
def fields(kind: Kind) -> tuple[Field, ...]:
    """The fields of a kind of rule."""
    told = inspect.type_info(PARAMS[kind])
    if not isinstance(told, inspect.StructType):
        raise TypeError(f"the parameters of {kind} are no struct")
    return tuple(_field(each) for each in told.fields if each.name not in APART)


def apart(kind: Kind) -> frozenset[str]:
    """Which of the parts that are apart a kind of rule has."""
    return APART & set(PARAMS[kind].__struct_fields__)


def params(kind: Kind, sent: Form) -> dict[str, Any]:
    """The parameters that a form says, but for the parts that are apart."""
    return {each.name: each.read(sent) for each in fields(kind)}


def _field(told: inspect.Field) -> Field:
    kind, optional = told.type, False
    if isinstance(kind, inspect.UnionType):
        optional = any(isinstance(each, inspect.NoneType) for each in kind.types)
        kind = next(each for each in kind.types if not isinstance(each, inspect.NoneType))
    shape, options, whole = _shape(kind)
    standard = None if told.default is msgspec.NODEFAULT else told.default
    return Field(name=told.name, shape=shape, options=options, optional=optional, whole=whole, standard=standard)


def _shape(kind: inspect.Type) -> tuple[str, tuple[str, ...], bool]:
    options = _options(kind)
    if options:
        return "choice", options, False
    if isinstance(kind, inspect.VarTupleType):
        within = _options(kind.item_type)
        return ("choices", within, False) if within else ("lines", (), isinstance(kind.item_type, inspect.IntType))
    return "number", (), True


def _options(kind: inspect.Type) -> tuple[str, ...]:
    if isinstance(kind, inspect.EnumType):
        return tuple(str(each.value) for each in kind.cls)
    return tuple(str(each) for each in kind.values) if isinstance(kind, inspect.LiteralType) else ()


def number(said: str) -> int | float | str:
    """The number that a text says; the text itself when it says none."""
    for read in (int, float):
        try:
            return read(said)
        except ValueError:
            continue
    return said
