"""Counts of a day, as reports give them; nothing in them is about a person."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime, tzinfo
from enum import StrEnum

import msgspec


class TallyKind(StrEnum):
    """What is counted; each has its own columns."""

    ACTIVITY = "activity"
    LOGIN = "login"
    DEVICE = "device"
    REFUSAL = "refusal"


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """One count of a day; what `one` to `three` say depends on the kind. `fresh` are those of `amount` that were new."""

    day: date
    one: str
    two: str = ""
    three: str = ""
    amount: int = 0
    fresh: int = 0

    @property
    def place(self) -> tuple[date, str, str, str]:
        """Where it stands in its list."""
        return (self.day, self.one, self.two, self.three)


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What was counted in a quarter of an hour that begins at `at`, and is not added up yet."""

    tenant: str
    at: datetime
    kind: TallyKind
    one: str
    two: str
    three: str
    four: str
    amount: int
    fresh: int


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """What is added to one count of a day."""

    tenant: str
    kind: TallyKind
    day: date
    one: str
    two: str = ""
    three: str = ""

    @property
    def key(self) -> tuple[str, str, date, str, str, str]:
        """The order in which rows are taken."""
        return (self.tenant, self.kind, self.day, self.one, self.two, self.three)


def lines(counted: Iterable[Counted], zones: Mapping[str, tzinfo]) -> dict[Line, tuple[int, int]]:
    """What is to be added to which count of which day, in each tenant's time zone; a tenant that has none is gone."""
    found: dict[Line, tuple[int, int]] = {}
    for each in counted:
        if each.tenant in zones:
            for line in _of(each, each.at.astimezone(zones[each.tenant]).date()):
                amount, fresh = found.get(line, (0, 0))
                found[line] = (amount + each.amount, fresh + each.fresh)
    return found


def _of(counted: Counted, day: date) -> Iterable[Line]:
    """A login counts as such; one that got in, for its kind of device too: whoever only tries may call himself anything."""
    c = counted
    if c.kind is not TallyKind.LOGIN:
        yield Line(tenant=c.tenant, kind=c.kind, day=day, one=c.one, two=c.two, three=c.three)
        return
    yield Line(tenant=c.tenant, kind=c.kind, day=day, one=c.one, two=c.two)
    if c.one == "success" and c.two == "allow":
        yield Line(tenant=c.tenant, kind=TallyKind.DEVICE, day=day, one=c.three, two=c.four)
