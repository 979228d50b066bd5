"""The contract as the page shows it: chapters, operations, fields in words."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias

import msgspec

from accessguard.api.examples import PLACES
from accessguard.api.reply import CSV, JSON, NDJSON

Contract: TypeAlias = Mapping[str, Any]

NAMES: Final = {"date-time": "time", "uuid": "uuid"}


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """A struct: its name, what it is, its fields."""

    name: str
    text: str
    fields: tuple[Field, ...]


class Field(msgspec.Struct, frozen=True, kw_only=True):
    """A field or a parameter; `limits` and `words` say what it accepts, `inner` what is inside it."""

    name: str
    type: str
    required: bool
    text: str
    limits: tuple[str, ...]
    words: tuple[str, ...]
    inner: tuple[Shape, ...] = ()


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer that carries out what was asked; `example` is JSON, None without a body."""

    status: str
    text: str
    shape: Shape | None
    example: str | None
    csv: bool


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """One call. `errors` are pairs of status and meaning; `parameters` stand by their place (path, query, header)."""

    id: str
    method: str
    path: str
    summary: str
    text: str
    roles: tuple[str, ...]
    parameters: tuple[tuple[str, tuple[Field, ...]], ...]
    body: Shape | None
    body_required: bool
    curl: str
    answers: tuple[Answer, ...]
    errors: tuple[tuple[str, str], ...]


class Chapter(msgspec.Struct, frozen=True, kw_only=True):
    """The operations about one noun."""

    name: str
    text: str
    operations: tuple[Operation, ...]


def chapters(contract: Contract) -> tuple[Chapter, ...]:
    """The whole contract, in the order of its tags."""
    by_tag: dict[str, list[Operation]] = {each["name"]: [] for each in contract["tags"]}
    for path, item in contract["paths"].items():
        for method, made in item.items():
            by_tag[made["tags"][0]].append(_operation(contract, method, path, made))
    texts = {each["name"]: each["description"] for each in contract["tags"]}
    return tuple(
        Chapter(name=name, text=texts[name], operations=tuple(found)) for name, found in by_tag.items() if found
    )


def _operation(contract: Contract, method: str, path: str, made: Mapping[str, Any]) -> Operation:
    body = made.get("requestBody", {})
    answers = {status: _resolved(contract, answer) for status, answer in made["responses"].items()}
    return Operation(
        id=made["operationId"],
        method=method.upper(),
        path=path,
        summary=made["summary"],
        text=made["description"].partition("Roles: ")[0].strip(),
        roles=tuple(made.get("x-roles", ())),
        parameters=tuple(_parameters(contract, made.get("parameters", ()))),
        body=_body(contract, body["content"]) if body else None,
        body_required=body.get("required", False),
        curl=curl(method.upper(), path, body, secured=made.get("security") != []),
        answers=tuple(_answer(contract, status, each) for status, each in answers.items() if status < "400"),
        errors=tuple((status, each["description"]) for status, each in answers.items() if status >= "400"),
    )


def _body(contract: Contract, content: Mapping[str, Any]) -> Shape:
    """What a body holds; a file is a list of what its lines may be."""
    if JSON in content:
        return _shape(contract, content[JSON]["schema"])
    kinds = [_shape(contract, each) for each in content[NDJSON]["schema"]["contentSchema"]["anyOf"]]
    lines = Field(name="each line", type="object", required=True, text="", limits=(), words=(), inner=tuple(kinds))
    return Shape(name="File", text="One of these in each line (application/x-ndjson), or text/csv.", fields=(lines,))


def _resolved(contract: Contract, value: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a reference stands for; words beside the reference win (OpenAPI 3.1, Reference Object)."""
    if "$ref" not in value:
        return value
    found: Any = contract
    for step in value["$ref"].removeprefix("#/").split("/"):
        found = found[step]
    return {**found, **{key: each for key, each in value.items() if key != "$ref"}}


def _parameters(contract: Contract, given: Any) -> Iterator[tuple[str, tuple[Field, ...]]]:
    resolved = [_resolved(contract, each) for each in given]
    for place in ("path", "query", "header"):
        here = [each for each in resolved if each["in"] == place]
        if here:
            yield place, tuple(_parameter(contract, each) for each in here)


def _parameter(contract: Contract, given: Mapping[str, Any]) -> Field:
    described = {**given["schema"], "description": given["description"]}
    return _field(contract, given["name"], described, required=given["required"])


def _shape(contract: Contract, schema: Mapping[str, Any]) -> Shape:
    made = _resolved(contract, schema)
    needed = frozenset(made["required"])
    return Shape(
        name=made["title"],
        text=made.get("description", ""),
        fields=tuple(
            _field(contract, name, each, required=name in needed) for name, each in made["properties"].items()
        ),
    )


def _field(contract: Contract, name: str, schema: Mapping[str, Any], *, required: bool) -> Field:
    parts = [_resolved(contract, part) for part in schema.get("anyOf", [schema])]
    items = [_resolved(contract, part["items"]) for part in parts if "items" in part]
    return Field(
        name=name,
        type=" or ".join(_type(contract, part) for part in parts),
        required=required,
        text=schema.get("description", ""),
        limits=tuple(limit for part in [*parts, *items] for limit in _limits(part)) + _default(schema),
        words=tuple(word for part in [*parts, *items] for word in part.get("enum", ())),
        inner=tuple(_shape(contract, part) for part in [*parts, *items] if "properties" in part),
    )


def _type(contract: Contract, schema: Mapping[str, Any]) -> str:
    if "items" in schema:
        return f"list of {_type(contract, _resolved(contract, schema['items']))}"
    if "properties" in schema:
        return str(schema["title"])
    if "additionalProperties" in schema:
        return f"map of {_type(contract, _resolved(contract, schema['additionalProperties']))}"
    return NAMES.get(schema.get("format", ""), str(schema.get("type", "any JSON")))


def _limits(schema: Mapping[str, Any]) -> Iterator[str]:
    yield from _range(schema, "minLength", "maxLength", " characters")
    yield from _range(schema, "minItems", "maxItems", " items")
    yield from _range(schema, "minimum", "maximum", "")
    if "exclusiveMinimum" in schema:
        yield f"over {schema['exclusiveMinimum']}"
    if "pattern" in schema:
        yield f"matches `{schema['pattern']}`"


def _range(schema: Mapping[str, Any], least: str, most: str, unit: str) -> Iterator[str]:
    if least in schema and most in schema:
        yield f"{schema[least]} to {schema[most]}{unit}"
    elif most in schema:
        yield f"at most {schema[most]}{unit}"
    elif least in schema:
        yield f"at least {schema[least]}{unit}"


def _default(schema: Mapping[str, Any]) -> tuple[str, ...]:
    default = schema.get("default")
    return () if default in (None, "", [], {}) or isinstance(default, dict) else (f"default `{json.dumps(default)}`",)


def _answer(contract: Contract, status: str, answer: Mapping[str, Any]) -> Answer:
    content = answer.get("content", {})
    media = content.get(JSON, content.get(NDJSON))
    return Answer(
        status=status,
        text=answer["description"],
        shape=_shape(contract, media["schema"]) if media else None,
        example=pretty(media["example"]) if media else None,
        csv=CSV in content,
    )


def curl(method: str, path: str, body: Mapping[str, Any], *, secured: bool) -> str:
    """A line to paste into a shell that knows `ACCESSGUARD` (an address) and `TOKEN`."""
    for name, value in PLACES.items():
        path = path.replace(f"{{{name}}}", value)
    way = "" if method == ("POST" if body else "GET") else f" -X {method}"
    lines = [f'curl -sS{way} "$ACCESSGUARD{path}"']
    if secured:
        lines.append('-H "Authorization: Bearer $TOKEN"')
    if body:
        kind, flag = (JSON, "-d") if JSON in body["content"] else (NDJSON, "--data-binary")
        shown = body["content"][kind]["example"]
        lines.append(f'-H "Content-Type: {kind}"')
        lines.append(f"{flag} {shlex.quote(shown if isinstance(shown, str) else pretty(shown))}")
    return " \\\n  ".join(lines)


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False)
