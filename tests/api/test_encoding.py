"""Times are written with milliseconds wherever a type has them, also where it does not say so."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from accessguard.api.encoding import anything, encode

AT = datetime(2026, 11, 21, 18, 55, 0, 123_987, tzinfo=UTC)
WHOLE = AT.replace(microsecond=0)
ABROAD = AT.astimezone(timezone(timedelta(hours=5, minutes=45)))
LOOKS_ALIKE = "2026-11-21T18:55:00.123987Z"


class Leaf(msgspec.Struct, frozen=True, kw_only=True):
    """A time, and a text that looks like one."""

    at: datetime | None = None
    note: str = LOOKS_ALIKE


class Bare(msgspec.Struct, frozen=True, tag="bare"):
    """No time."""

    number: int = 1


class Dated(msgspec.Struct, frozen=True, tag="dated"):
    """One of a union."""

    at: datetime = AT


class Deep(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Every way in which a time may lie in another value."""

    first_at: datetime = AT
    day: date | None = None
    leaf: Leaf | None = None
    leaves: tuple[Leaf, ...] = ()
    times: list[datetime] = []
    sets: frozenset[datetime] = frozenset()
    by_name: dict[str, datetime] = {}
    by_leaf: dict[str, Leaf] = {}
    numbers: dict[str, int] = {}
    either: Bare | Dated | None = None
    loose: Any = None
    pair: tuple[str, datetime] | None = None
    again: Deep | None = None
    base: Base | None = None


class Odd(msgspec.Struct, frozen=True):
    """What cannot be told apart when it is read."""

    at: datetime | str = LOOKS_ALIKE


class Base(msgspec.Struct, frozen=True):
    """A type that others are made of."""

    name: str = "base"


class Made(Base, frozen=True):
    """What stands for `Base` has a time that `Base` does not tell of."""

    at: datetime = AT


VALUES = [
    Bare(),
    Leaf(at=AT),
    Leaf(),
    Odd(),
    Odd(at=AT),
    Made(),
    Deep(),
    Deep(leaf=Leaf(at=WHOLE), leaves=(Leaf(), Leaf(at=ABROAD)), times=[AT, WHOLE], day=date(2026, 11, 21)),
    Deep(by_name={"a": AT}, by_leaf={"b": Leaf(at=AT)}, numbers={"c": 1}, sets=frozenset({AT})),
    Deep(either=Bare()),
    Deep(either=Dated()),
    Deep(loose={"x": [AT, {"y": AT}]}, pair=("p", AT)),
    Deep(loose=LOOKS_ALIKE, again=Deep(first_at=ABROAD, again=Deep(leaf=Leaf(at=AT)))),
    Deep(base=Made()),
    {"at": AT, "leaf": Leaf(at=AT)},
    [Leaf(at=AT), AT, "text", None],
    "cursor",
    None,
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_time_has_milliseconds_wherever_it_is(value):
    """The same as when every value is looked at; texts that look like times are left alone."""
    expected = anything(msgspec.to_builtins(value, builtin_types=(datetime,)))

    written = msgspec.json.decode(encode(value))

    assert written == msgspec.json.decode(msgspec.json.encode(expected))
    assert encode(value).count(b".123987") == encode(value).count(LOOKS_ALIKE.encode())


def test_the_milliseconds_are_there_when_they_are_none():
    """And microseconds are cut off, not rounded."""
    written = encode([AT, WHOLE, ABROAD, AT.replace(microsecond=999_999)])

    assert written == (
        b'["2026-11-21T18:55:00.123Z","2026-11-21T18:55:00.000Z","2026-11-21T18:55:00.123Z","2026-11-21T18:55:00.999Z"]'
    )
