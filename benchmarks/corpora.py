"""Corpora of user agents as others keep them: what was sent, and what should be told of it.

Read are CSV with a header, and YAML or JSON: a list of lines with such columns, the test cases of ua-parser
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
_AGENT: Final = ("user_agent", "user_agent_string", "useragent", "ua", "string")
_FAMILY: Final = ("browser_family", "family", "browser")
_OS: Final = ("os_family", "os")
_CLASS: Final = ("device_class", "class", "device_type", "type", "device")
_HINTS: Final = ("client_hints", "hints", "headers")


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
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as lines:
            for row in csv.DictReader(lines):
                yield from _flat(row)
        return
    yield from _cases(_loaded(path), path.stem)


def _loaded(path: Path) -> Any:
    if path.suffix == ".json":
        return json.loads(path.read_bytes())
    return yaml.load(path.read_bytes(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))


def _cases(data: Any, name: str) -> Iterator[Case]:
    if isinstance(data, Mapping) and "test_cases" in data:
        for each in data["test_cases"] or ():
            yield from _ua_parser(each, name)
        return
    if not isinstance(data, list):
        raise ShapeError(f"{name}: neither a list of lines nor test cases")
    for each in data:
        if not isinstance(each, Mapping):
            raise ShapeError(f"{name}: a line that is no mapping")
        if "instances" in each:
            yield from (Case(user_agent=text, device_class=DeviceClass.BOT) for text in each["instances"])
        elif any(isinstance(each.get(part), Mapping) for part in ("bot", "device", "client", "os")):
            yield _matomo(each)
        else:
            yield from _flat(each)


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
    client = each.get("client") or {}
    told = "bot" if each.get("bot") else str((each.get("device") or {}).get("type") or "")
    text = str(each.get("user_agent") or "")
    return Case(
        user_agent=text,
        hints={str(name): str(value) for name, value in (each.get("headers") or {}).items()},
        device_class=CLASSES.get(told),
        program=client.get("type") not in (None, "", "browser"),
    )


def _flat(row: Mapping[str, Any]) -> Iterator[Case]:
    """A line of columns, by whichever of the usual names they have."""
    named = {str(name).strip().lower().replace(" ", "_"): value for name, value in row.items() if name}
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


def _first(named: Mapping[str, Any], names: tuple[str, ...]) -> str | None:
    found = next((named[name] for name in names if named.get(name) not in (None, "")), None)
    return None if found is None else str(found)


def _hints(named: Mapping[str, Any]) -> dict[str, str]:
    """Hints in columns of their own (`sec-ch-ua-model`), or in one, as a mapping or as JSON."""
    own = {name.replace("_", "-"): str(value) for name, value in named.items() if name.startswith("sec") and value}
    held: Any = next((named[name] for name in _HINTS if named.get(name)), {})
    held = json.loads(held) if isinstance(held, str) else held
    return own | {str(name): str(value) for name, value in dict(held).items()}
