"""The wire structs as JSON Schema 2020-12, with what msgspec leaves out: times, the order of words, a rule's parameters."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import inspect

from accessguard.api.glossary import GLOSSARY
from accessguard.api.reply import ProblemDocument
from accessguard.errors import Problem
from accessguard.policies.model import RuleBody
from accessguard.policies.params import ACTIONS, PARAMS

Schema: TypeAlias = dict[str, Any]
Named: TypeAlias = type[Any]

REF: Final = "#/components/schemas/{name}"


class Schemas(msgspec.Struct, frozen=True, kw_only=True):
    """Every struct and enum of the contract by its name, and the name of each."""

    components: Mapping[str, Schema]
    names: Mapping[Named, str]

    def reference(self, kind: Named) -> Schema:
        """Point to the schema of a struct."""
        return {"$ref": REF.format(name=self.names[kind])}


def schemas(asked: Iterable[Any], answered: Iterable[Any]) -> Schemas:
    """Describe what callers send (`asked`) and what they get (`answered`), with everything inside it.

    Two structs of one name get the names of their modules in front.
    """
    inputs = _named([*asked, *PARAMS.values()])
    kinds = dict.fromkeys([*inputs, *_named([*answered, ProblemDocument, Problem])])
    references, components = msgspec.json.schema_components(kinds, ref_template=REF)
    names = {kind: reference["$ref"].rpartition("/")[2] for kind, reference in zip(kinds, references, strict=True)}
    made = Schemas(components=components, names=names)
    for kind, name in names.items():
        _complete(made, kind, components[name], sent=kind in inputs)
    return made


def _named(kinds: Iterable[Any]) -> list[Named]:
    """The structs and enums inside `kinds`, each once, the outer before the inner."""
    found: dict[Named, None] = {}
    for kind in inspect.multi_type_info(kinds):
        _gather(kind, found)
    return list(found)


def _gather(kind: inspect.Type, found: dict[Named, None]) -> None:
    if isinstance(kind, (inspect.StructType, inspect.EnumType)):
        if kind.cls in found:
            return
        found[kind.cls] = None
    for part in _parts(kind):
        _gather(part, found)


def _parts(kind: inspect.Type) -> Iterator[inspect.Type]:
    match kind:
        case inspect.StructType():
            yield from (field.type for field in kind.fields)
        case inspect.UnionType():
            yield from kind.types
        case inspect.VarTupleType() | inspect.ListType():
            yield kind.item_type
        case inspect.DictType():
            yield kind.value_type
        case _:
            return


def _complete(made: Schemas, kind: Named, schema: Schema, *, sent: bool) -> None:
    if not issubclass(kind, msgspec.Struct):
        schema |= {"type": "string", "enum": [each.value for each in kind]}
        return
    for field in _fields(kind):
        _complete_field(made, kind, field, schema["properties"][field.encode_name])
    marker = kind.__struct_config__.tag_field
    if marker is not None:
        schema["properties"][marker]["description"] = GLOSSARY[f"{kind.__name__}.{marker}"]
    if not sent and not kind.__struct_config__.omit_defaults:
        fields = msgspec.structs.fields(kind)
        schema["required"] = [field.encode_name for field in fields if field.default is not msgspec.UNSET]


def _fields(kind: Named) -> Sequence[inspect.Field]:
    info = inspect.type_info(kind)
    return info.fields if isinstance(info, inspect.StructType) else ()


def _complete_field(made: Schemas, kind: Named, field: inspect.Field, schema: Schema) -> None:
    parts = _alternatives(field.type)
    for each in schema.get("anyOf", [schema]):
        _complete_value(each, time=any(isinstance(part, inspect.DateTimeType) for part in parts))
    if field.name == "params" and isinstance(field.type, inspect.DictType):
        schema.clear()
        schema["anyOf"] = [made.reference(each) for each in dict.fromkeys(PARAMS.values())]
    own = (GLOSSARY.get(f"{base.__name__}.{field.encode_name}") for base in kind.__mro__)
    described = next(filter(None, own), None) or GLOSSARY.get(field.encode_name)
    if described:
        schema["description"] = described + _by_kind(kind, field.name)


def _by_kind(kind: Named, field: str) -> str:
    """What a field of a rule may be depends on its kind."""
    if not issubclass(kind, RuleBody):
        return ""
    if field == "action":
        return " " + "; ".join(f"`{each}`: {_either_of(ACTIONS[each])}" for each in ACTIONS) + "."
    if field == "params":
        return " " + "; ".join(f"`{each}`: {struct.__name__}" for each, struct in PARAMS.items()) + "."
    return ""


def _either_of(words: Iterable[str]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _alternatives(kind: inspect.Type) -> tuple[inspect.Type, ...]:
    return kind.types if isinstance(kind, inspect.UnionType) else (kind,)


def _complete_value(schema: Schema, *, time: bool) -> None:
    """A time without a format of msgspec's own is RFC 3339; a word of a closed set is a text."""
    if schema.get("type") == "array":
        _complete_value(schema.get("items", {}), time=time)
    elif time and schema.get("type") == "string":
        schema["format"] = "date-time"
    elif all(isinstance(word, str) for word in schema.get("enum", (None,))):
        schema["type"] = "string"
