"""JSON whose times have milliseconds: where they are is told by a type once, and looked for nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import inspect

from accessguard.guard.facts import time_text

Write: TypeAlias = Callable[[Any], Any]
"""From what `msgspec.to_builtins` made of a value to what is written: times are text in it."""

SCALARS: Final = frozenset({str, int, bool, float})
UNTOLD: Final = (
    inspect.AnyType,
    inspect.CustomType,
    inspect.TupleType,
    inspect.StructType,
    inspect.DataclassType,
    inspect.TypedDictType,
    inspect.NamedTupleType,
)
"""Types that do not say what is in them, or that are too rare to be looked into."""


def encode(value: Any) -> bytes:
    """The value as JSON; every time as `2026-11-21T18:55:00.123Z`."""
    write = _of_struct(type(value)) if isinstance(value, msgspec.Struct) else anything
    if write is None:
        return msgspec.json.encode(value)
    return msgspec.json.encode(write(msgspec.to_builtins(value, builtin_types=(datetime,))))


def anything(value: Any) -> Any:
    """The value with its times as texts, wherever they are; what is most frequent is asked first, as lists have thousands of them."""
    kind = type(value)
    if value is None or kind in SCALARS:
        return value
    if kind is dict:
        return {key: anything(each) for key, each in value.items()}
    if kind is list or kind is tuple:
        return [anything(each) for each in value]
    return time_text(value) if isinstance(value, datetime) else value


@cache
def _of_struct(kind: type[msgspec.Struct]) -> Write | None:
    """How one of these is written; None where there is no time in it."""
    try:
        found = inspect.type_info(kind)
    except TypeError:  # one that could not be read back, as it has a field that is a time or a text
        return anything
    return _of_fields(found, (kind,)) if isinstance(found, inspect.StructType) else anything


def _of(kind: inspect.Type, within: Sequence[type]) -> Write | None:
    """How a value of a type is written; None where there is no time in it. `within` are structs that it is a part of."""
    found: Write | None = anything if isinstance(kind, UNTOLD) else None
    match kind:
        case inspect.DateTimeType():
            found = time_text
        case inspect.StructType() if kind.cls not in within and not kind.array_like and not kind.cls.__subclasses__():
            found = _of_fields(kind, (*within, kind.cls))
        case inspect.UnionType():
            found = _of_union([each for each in kind.types if not isinstance(each, inspect.NoneType)], within)
        case inspect.CollectionType():
            found = _of_items(_of(kind.item_type, within))
        case inspect.DictType():
            found = anything if _of(kind.value_type, within) else None
        case inspect.Metadata():
            found = _of(kind.type, within)
    return found


def _of_union(kinds: Sequence[inspect.Type], within: Sequence[type]) -> Write | None:
    writes = [_of(each, within) for each in kinds]
    if not any(writes):
        return None
    return writes[0] if len(writes) == 1 else anything


def _of_items(write: Write | None) -> Write | None:
    return write and (lambda values: [write(each) for each in values])


def _of_fields(kind: inspect.StructType, within: Sequence[type]) -> Write | None:
    """How a struct is written: fields that are absent or null stay so."""
    writes = [(each.encode_name, write) for each in kind.fields if (write := _of(each.type, within)) is not None]
    if not writes:
        return None

    def fields(value: dict[str, Any]) -> dict[str, Any]:
        for name, write in writes:
            if (found := value.get(name)) is not None:
                value[name] = write(found)
        return value

    return fields
