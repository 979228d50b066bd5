"""Settings as a document of plain values, its fields by their JSON pointers: what a form shows, and what it says.

A form says a part; the rest stays as it is. The whole is then judged by the
one decoder of the API, whose problems point at the same names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from accessguard.api.read import refused
from accessguard.api.wire import SettingsRequest
from accessguard.console.forms import Form, text, texts
from accessguard.errors import ErrorCode, GuardError
from accessguard.policies.model import Settings
from accessguard.words.languages import LANGUAGES

Document: TypeAlias = dict[str, Any]


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One field: its pointer without the first slash, and how it is asked for.

    `shape` is text, number, colour, choice, ranked, check, lines or json;
    `optional`: left empty, it is null. Of what is ranked, one is said to be the first.
    """

    name: str
    shape: str = "text"
    options: tuple[str, ...] = ()
    optional: bool = False

    def shown(self, document: Document) -> Any:
        """What the field holds."""
        value = found(document, self.name)
        if self.shape == "lines":
            return "\n".join(value or ())
        if self.shape == "json" and not isinstance(value, str):
            return "" if value is None else msgspec.json.format(msgspec.json.encode(value)).decode()
        return "" if value is None else value

    def ranked(self, document: Document) -> list[str]:
        """The options, those that are chosen first and in their order."""
        chosen = [each for each in found(document, self.name) if each in self.options]
        return [*chosen, *(each for each in self.options if each not in chosen)]

    def read(self, sent: Form) -> Any:
        """What a form says; what is no number or no JSON stays a text, which is then refused by the decoder."""
        if self.shape == "ranked":
            return sorted(texts(sent, self.name), key=lambda each: each != text(sent, f"{self.name}:first"))
        said = text(sent, self.name).strip()
        return None if self.optional and not said else READ.get(self.shape, str)(said)


def _number(said: str) -> int | str:
    return int(said) if said.isascii() and said.lstrip("-").isdecimal() and len(said) < 16 else said


def _lines(said: str) -> list[str]:
    return [each.strip() for each in said.splitlines() if each.strip()]


def _json(said: str) -> Any:
    try:
        return msgspec.json.decode(said)
    except (msgspec.DecodeError, RecursionError):
        return said


def _checked(said: str) -> bool:
    return said == "yes"


READ: Final[Mapping[str, Callable[[str], Any]]] = {
    "number": _number,
    "lines": _lines,
    "json": _json,
    "check": _checked,
}
"""By the shape of a field, what its text stands for; all others are texts."""

SECTIONS: Final[Mapping[str, tuple[Setting, ...]]] = {
    "school": (
        Setting(name="name"),
        Setting(name="support_email", optional=True),
        Setting(name="languages", shape="ranked", options=LANGUAGES),
        Setting(name="time_zone"),
        Setting(name="country", optional=True),
        Setting(name="brand/color_one", shape="colour", optional=True),
        Setting(name="brand/color_two", shape="colour", optional=True),
        Setting(name="brand/logo_url", optional=True),
        Setting(name="brand/favicon_url", optional=True),
        Setting(name="brand/copyright", optional=True),
    ),
    "hosts": (),
    "data": (
        Setting(name="retention/logins_days", shape="number"),
        Setting(name="retention/activity_days", shape="number"),
        Setting(name="retention/violations_days", shape="number"),
        Setting(name="retention/truncate_ip_after_days", shape="number", optional=True),
        Setting(name="failure_mode", shape="choice", options=("open", "closed")),
        Setting(name="copies", shape="choice", options=("log", "off")),
        Setting(name="passes_per_month", shape="number"),
    ),
    "sessions": (
        Setting(name="session/idle_ttl_s", shape="number"),
        Setting(name="session/absolute_ttl_s", shape="number"),
        Setting(name="cookie/prefix", shape="choice", options=("__Host-", "__Secure-", "")),
        Setting(name="cookie/domain", optional=True),
        Setting(name="cookie/same_site", shape="choice", options=("Lax", "Strict", "None")),
        Setting(name="cookie/partitioned", shape="check"),
    ),
    "proxy": (
        Setting(name="proxy/identity", shape="choice", options=("cookie", "jwt")),
        Setting(name="proxy/cookie", optional=True),
        Setting(name="proxy/login_url", optional=True),
        Setting(name="proxy/polling", shape="lines"),
        Setting(name="proxy/jwt", shape="json", optional=True),
    ),
}
MOST_ROWS: Final = 1_000


def document_of(settings: Settings) -> Document:
    """The settings as plain values."""
    made: Document = msgspec.to_builtins(settings)
    return made


def mark_of(settings: Settings) -> str:
    """What changes with the settings: a form carries it, so that nobody overwrites what he has not seen."""
    return hashlib.sha256(msgspec.json.encode(settings, order="sorted")).hexdigest()[:32]


def judged(document: Document) -> Settings:
    """The settings that a document comes to. Raises GuardError(INVALID) as `PUT /v1/settings` does."""
    if "\\u0000" in msgspec.json.encode(document).decode():
        raise GuardError(ErrorCode.INVALID, "The form contains a NUL character.")
    try:
        return msgspec.convert(document, SettingsRequest).settings()
    except msgspec.ValidationError as error:
        raise refused(str(error), "The settings were refused.") from None


def filled(document: Document, section: str, sent: Form) -> Document:
    """The document with what a section's form says."""
    made: Document = msgspec.json.decode(msgspec.json.encode(document))
    for each in SECTIONS[section]:
        put(made, each.name, each.read(sent))
    if section == "hosts":
        made["hosts"] = _hosts(sent)
    if section == "proxy":
        made["proxy"]["activities"] = _activities(sent)
    return made


def found(document: Document, name: str) -> Any:
    """The value at a pointer without its first slash."""
    value: Any = document
    for part in name.split("/"):
        value = value[part]
    return value


def put(document: Document, name: str, value: object) -> None:
    """Set the value at a pointer."""
    *way, last = name.split("/")
    place: Any = document
    for part in way:
        place = place[part]
    place[last] = value


def _hosts(sent: Form) -> list[Document]:
    """One row for each host that is not left empty; the chosen number is the primary one."""
    chosen = text(sent, "primary")
    return [
        {"host": row["host"], "primary": row["row"] == chosen, "status": row["status"] or "active"}
        for row in _rows(sent, "hosts", ("host", "status"))
        if row["host"]
    ]


def _activities(sent: Form) -> list[Document]:
    names = ("path", "kind", "methods", "resource", "product")
    return [
        {
            "path": row["path"],
            "kind": row["kind"],
            "methods": row["methods"].upper().split() or ["GET"],
            "resource": row["resource"] or None,
            "product": row["product"] or None,
        }
        for row in _rows(sent, "proxy/activities", names)
        if row["path"]
    ]


def _rows(sent: Form, name: str, columns: Sequence[str]) -> list[dict[str, str]]:
    """Rows `name/0/column`, `name/1/column`, as far as there are any."""
    rows = []
    for number in range(MOST_ROWS):
        if f"{name}/{number}/{columns[0]}" not in sent:
            break
        row = {each: text(sent, f"{name}/{number}/{each}").strip() for each in columns}
        rows.append(row | {"row": str(number)})
    return rows
