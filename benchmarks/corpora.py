"""Corpora of user agents as others keep them: what was sent, and what should be told of it.

Read are CSV with a header, and YAML, JSON or JSON lines: a list of lines with such columns, the test cases of ua-parser
(`test_cases`, what they are about said by the file's name), the fixtures of Matomo's device-detector, and
the list of crawler-user-agents (`instances`).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from accessguard.devices.browser import DeviceClass

# Words of others for our classes; a kind that is not here is not graded.
CLASSES: Final = {
    **{each.value: each for each in DeviceClass},
    **dict.fromkeys(("pc", "computer", "laptop", "notebook"), DeviceClass.DESKTOP),
    **dict.fromkeys(
        ("smartphone", "phone", "phablet", "feature phone", "mobile phone", "portable media player"), DeviceClass.MOBILE
    ),
    **dict.fromkeys(("television", "smart tv", "smarttv", "set-top box"), DeviceClass.TV),
    **dict.fromkeys(("game console", "gaming console", "gaming"), DeviceClass.CONSOLE),
    **dict.fromkeys(("crawler", "spider", "robot", "tool", "library", "headless"), DeviceClass.BOT),
}
_TABLES: Final = frozenset({".csv", ".tsv", ".txt"})
_LINES: Final = frozenset({".jsonl", ".ndjson"})
_SIGNS: Final = (",", ";", "\t", "|")
MOST_CHARS: Final = 10_000_000
"""Of one column, which is cut to what a login keeps of it."""
_AGENT: Final = ("user_agent", "user_agent_string", "useragent", "ua", "string", "ua_string", "agent", "input")
_FAMILY: Final = ("browser_family", "family", "browser", "browser_name", "client", "ua_family", "user_agent_family")
_OS: Final = ("os_family", "os", "os_name", "system", "operating_system")
_CLASS: Final = ("device_class", "class", "device_type", "type", "device", "category", "device_category", "kind")
_HINTS: Final = ("client_hints", "hints", "headers", "request_headers")
# Columns say that they hold what is expected, or a mapping of that name does.
_EXPECTED: Final = ("expected_", "expect_", "wanted_")
_WANTED: Final = ("expected", "expect", "wanted", "result")


class ShapeError(ValueError):
    """A file of a shape that is not known."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One line; what is None is not graded.

    `program`: the corpus counts a program of its own with the device it runs
    on, so that `app` is right as well.
    """

    user_agent: str
    hints: dict[str, str] = {}
    family: str | None = None
    os: str | None = None
    device_class: DeviceClass | None = None
    program: bool = False


def read(path: Path) -> Iterator[Case]:
    """The cases of a file. Raises ShapeError for a shape that is none of those above."""
    try:
        if path.suffix.lower() in _TABLES:
            yield from _table(path)
        else:
            yield from _cases(_loaded(path), path.stem)
    except (csv.Error, yaml.YAMLError, json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ShapeError(f"{path.name}: {error}") from error


def _table(path: Path) -> Iterator[Case]:
    """A file of columns, whichever of the usual signs stands between them, with or without a byte order mark."""
    csv.field_size_limit(MOST_CHARS)
    with path.open(newline="", encoding="utf-8-sig") as lines:
        head = lines.readline()
        lines.seek(0)
        rows = csv.DictReader(lines, delimiter=max(_SIGNS, key=head.count))
        if set(_named(dict.fromkeys(rows.fieldnames or ()))).isdisjoint(_AGENT):
            raise ShapeError(f"{path.stem}: no column for the user agent, such as {_AGENT[0]}")
        for row in rows:
            yield from _flat(row)


def _loaded(path: Path) -> Any:
    if path.suffix.lower() in _LINES:
        return [json.loads(line) for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    if path.suffix.lower() == ".json":
        return json.loads(path.read_bytes())
    return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _cases(data: Any, name: str) -> Iterator[Case]:
    if isinstance(data, Mapping) and "test_cases" in data:
        for each in data["test_cases"] or ():
            yield from _ua_parser(_mapping(each, name), name)
        return
    if isinstance(data, Mapping):
        data = next((held for held in data.values() if isinstance(held, list)), None)
    if not isinstance(data, list):
        raise ShapeError(f"{name}: neither a list of lines nor test cases")
    for each in data:
        line = _mapping(each, name)
        if "instances" in line:
            yield from (Case(user_agent=str(text), device_class=DeviceClass.BOT) for text in line["instances"] or ())
        elif any(isinstance(line.get(part), Mapping) for part in ("bot", "device", "client", "os")):
            yield _matomo(line)
        else:
            yield from _flat(line)


def _mapping(each: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(each, Mapping):
        raise ShapeError(f"{name}: a line that is no mapping")
    return each


def _ua_parser(each: Mapping[str, Any], name: str) -> Iterator[Case]:
    """A test case of ua-parser's: of a system or a device by the file's name, else of a browser."""
    text, family = str(each.get("user_agent_string") or ""), each.get("family")
    if not text or family is None:
        return
    if "device" in name:
        if family == "Spider":
            yield Case(user_agent=text, device_class=DeviceClass.BOT)
    elif name.endswith("os") or "_os" in name:
        yield Case(user_agent=text, os=str(family))
    else:
        yield Case(user_agent=text, family=str(family))


def _matomo(each: Mapping[str, Any]) -> Case:
    """A fixture of Matomo's, whose names of browsers and systems are not ua-parser's: only the class is graded."""
    program = _part(each, "client").get("type") not in (None, "", "browser")
    told = "bot" if each.get("bot") else str(_part(each, "device").get("type") or "")
    return Case(
        user_agent=str(each.get("user_agent") or ""),
        hints={str(name): str(value) for name, value in _part(each, "headers").items()},
        device_class=CLASSES.get(told),
        program=program,
    )


def _part(each: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    held = each.get(name)
    return held if isinstance(held, Mapping) else {}


def _flat(row: Mapping[str, Any]) -> Iterator[Case]:
    """A line of columns, by whichever of the usual names they have."""
    named = _named(row)
    text = _first(named, _AGENT)
    if text is None:
        return
    told = _first(named, _CLASS)
    yield Case(
        user_agent=text,
        hints=_hints(named),
        family=_first(named, _FAMILY),
        os=_first(named, _OS),
        device_class=CLASSES.get(told.lower().replace("_", " ")) if told else None,
    )


def _named(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns by plain names; what is expected may stand in a mapping of its own."""
    named: dict[str, Any] = {}
    for name, value in row.items():
        plain = str(name or "").strip().lower().replace(" ", "_").replace("-", "_")
        if plain in _WANTED and isinstance(value, Mapping):
            named |= _named(value)
        elif plain:
            named[next((plain.removeprefix(each) for each in _EXPECTED if plain.startswith(each)), plain)] = value
    return named


def _first(named: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    found = next((named[name] for name in names if named.get(name) not in (None, "")), None)
    if isinstance(found, Mapping):
        found = found.get("family") or found.get("name") or found.get("class") or found.get("type")
    return None if found is None else str(found).strip()


def _hints(named: Mapping[str, Any]) -> dict[str, str]:
    """Hints in columns of their own (`sec-ch-ua-model`), or in one, as a mapping or as JSON."""
    own = {name.replace("_", "-"): str(value) for name, value in named.items() if name.startswith("sec") and value}
    held: Any = next((named[name] for name in _HINTS if named.get(name)), {})
    held = json.loads(held) if isinstance(held, str) else held
    if not isinstance(held, Mapping):
        raise ShapeError("hints that are no mapping")
    return own | {str(name): str(value) for name, value in held.items()}
