"""A rule cannot look back further than what it looks at is kept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Final

import msgspec

from accessguard.errors import Problem
from accessguard.policies.model import Retention, RuleRecord, parse
from accessguard.rules.model import DeviceChurn, DeviceLimit, Kind, LoginFailures, NetworkLimit, Rule, SessionLimit

LOGINS: Final = "logins_days"
# What a rule of a kind counts; whatever is not named here counts what logins left behind.
LOOKED_AT: Final = {Kind.SESSION_LIMIT: "activity_days"}
# Kinds that compare addresses, which may be cut short before their line goes.
COMPARES_ADDRESSES: Final = frozenset({Kind.NETWORK_LIMIT, Kind.LOGIN_FAILURES})
IN_SECONDS: Final = frozenset({Kind.SESSION_LIMIT, Kind.NETWORK_LIMIT, Kind.LOGIN_FAILURES})


class Reach(msgspec.Struct, frozen=True, kw_only=True):
    """How far back a rule looks by one of its parameters, and the field of `retention` that keeps what it finds there."""

    window: timedelta
    pointer: str
    kept: str


def reaches(rule: Rule) -> Iterator[Reach]:
    """Every way in which a rule looks back; "for ever" is none, as it is about devices, which are kept for ever."""
    match rule.params:
        case SessionLimit(window=window) | DeviceLimit(window=window) | DeviceChurn(window=window):
            pass
        case NetworkLimit(window=window) | LoginFailures(window=window):
            pass
        case _:
            window = None
    if window is not None:
        pointer = "/params/window_s" if rule.kind in IN_SECONDS else "/params/window_days"
        yield Reach(window=window, pointer=pointer, kept=LOOKED_AT.get(rule.kind, LOGINS))
        if rule.kind in COMPARES_ADDRESSES:
            yield Reach(window=window, pointer=pointer, kept="truncate_ip_after_days")
    if rule.escalation is not None:
        yield Reach(window=rule.escalation.within, pointer="/params/escalation/days", kept="violations_days")


def window_problems(rule: Rule, retention: Retention) -> Iterator[Problem]:
    """What is wrong with saving this rule."""
    for reach in _beyond(rule, retention):
        days = getattr(retention, reach.kept)
        detail = f"looks back further than what it counts is kept: settings.retention.{reach.kept} is {days}"
        yield Problem(pointer=reach.pointer, detail=detail)


def retention_problems(retention: Retention, records: Iterable[RuleRecord]) -> Iterator[Problem]:
    """What is wrong with keeping things for so long: each stored rule that looks back further, those that are off included."""
    for record in records:
        for reach in _beyond(parse(record.body, id=record.id, version=record.version), retention):
            detail = f"the rule {record.body.name or record.body.kind} ({record.id}) looks back further"
            yield Problem(pointer=f"/retention/{reach.kept}", detail=detail)


def _beyond(rule: Rule, retention: Retention) -> Iterator[Reach]:
    for reach in reaches(rule):
        days = getattr(retention, reach.kept)
        if days is not None and reach.window > timedelta(days=days):
            yield reach
