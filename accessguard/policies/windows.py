"""How far back a rule looks, so that what it counts is kept at least as long (a window over the retention under-counts)."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum

import msgspec

from accessguard.rules.login import reach
from accessguard.rules.model import (
    DeviceChurn,
    DeviceLimit,
    ImpossibleTravel,
    LoginFailures,
    NetworkLimit,
    Rule,
    SessionLimit,
)
from accessguard.rules.travel import farthest_back


class Ledger(StrEnum):
    """What a window is counted in; each is kept for a time of its own."""

    SESSIONS = "sessions"
    DEVICES = "devices"
    NETWORKS = "networks"
    LOGINS = "logins"
    VIOLATIONS = "violations"
    CHALLENGES = "challenges"


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """One window of a rule: `pointer` leads to it in the rule's body."""

    pointer: str
    ledger: Ledger
    window: timedelta


def looks(rule: Rule) -> tuple[Look, ...]:
    """Every window of a rule; one without end ("for ever") is none, for what it counts is never dropped."""
    found = [_of_params(rule)]
    if rule.escalation is not None:
        found.append(_look("/params/escalation/days", Ledger.VIOLATIONS, rule.escalation.within))
    if rule.swaps is not None:
        found.append(_look("/params/swaps/window_days", Ledger.CHALLENGES, rule.swaps.window))
    return tuple(each for each in found if each is not None)


def longest_window(rule: Rule) -> timedelta:
    """The longest window of a rule; zero when it looks at the present alone."""
    return max((each.window for each in looks(rule)), default=timedelta(0))


def _of_params(rule: Rule) -> Look | None:
    match rule.params:
        case SessionLimit(window=window):
            return _look("/params/window_s", Ledger.SESSIONS, window)
        case DeviceLimit(window=timedelta() as window) | DeviceChurn(window=window):
            return _look("/params/window_days", Ledger.DEVICES, window)
        case NetworkLimit(window=window):
            return _look("/params/window_s", Ledger.NETWORKS, window)
        case LoginFailures() as params:
            return _look("/params/window_s", Ledger.LOGINS, reach(params))
        case ImpossibleTravel() as params:
            return _look("/params/max_speed_kmh", Ledger.NETWORKS, farthest_back(params))
        case _:
            return None


def _look(pointer: str, ledger: Ledger, window: timedelta) -> Look:
    return Look(pointer=pointer, ledger=ledger, window=window)
