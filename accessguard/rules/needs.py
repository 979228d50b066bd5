"""What a set of rules looks at besides sessions and devices, so that nothing is read that nobody asks for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from enum import IntFlag
from functools import reduce
from operator import or_
from typing import Final

from accessguard.rules.model import (
    Action,
    CopiedSession,
    ImpossibleTravel,
    Kind,
    Mode,
    NetworkLimit,
    Rule,
    Signal,
)
from accessguard.rules.travel import STILL_HERE, farthest_back


class Need(IntFlag):
    """One thing that rules may look at; the numbers are those by which SNAPSHOT knows its parts.

    Up to `FORGOTTEN` it is stored with the member; `PLACE` is what geographic
    files say of an address, `BROWSER` what its user agent says.
    """

    NETWORKS = 1
    ENROLMENTS = 2
    PASSES = 4
    CASES = 8
    SETTLED = 16
    FREED = 32
    FORGOTTEN = 64
    PLACE = 128
    BROWSER = 256


NOTHING: Final = Need(0)
STORED: Final = Need.NETWORKS | Need.ENROLMENTS | Need.PASSES | Need.CASES | Need.SETTLED | Need.FREED | Need.FORGOTTEN
PAUSE: Final = timedelta(days=1)
WIDE: Final = STORED & ~Need.PASSES
"""What plain limits do not look at."""
CHALLENGING: Final = Need.SETTLED | Need.FREED

OF_KIND: Final = {
    Kind.COUNTRY_DENY: Need.PLACE,
    Kind.COUNTRY_ALLOW_ONLY: Need.PLACE,
    Kind.ASN_DENY: Need.PLACE,
    Kind.ENROLMENT: Need.ENROLMENTS,
    Kind.DEVICE_CHURN: Need.FORGOTTEN,
    Kind.NETWORK_LIMIT: Need.NETWORKS | Need.PLACE,
    Kind.IMPOSSIBLE_TRAVEL: Need.NETWORKS | Need.PLACE,
}

OF_SIGNAL: Final = {
    Signal.BROWSER: Need.BROWSER,
    Signal.NETWORK: Need.NETWORKS,
    Signal.BOTH: Need.BROWSER | Need.NETWORKS,
}


def needs_of(rules: Iterable[Rule]) -> Need:
    """What these rules look at; passes are looked at in any case, for an answer says who is exempt."""
    return reduce(or_, (_of(rule) for rule in rules if rule.mode is not Mode.OFF), Need.PASSES)


def reach_of(rules: Iterable[Rule]) -> timedelta:
    """How far back these rules look at the use of addresses; a day at least, so that whoever pauses is not taken for new."""
    return max((PAUSE, *(_reach(rule) for rule in rules)))


def _reach(rule: Rule) -> timedelta:
    match rule.params:
        case NetworkLimit(window=window):
            return window
        case ImpossibleTravel() as params:
            return farthest_back(params) + STILL_HERE
        case _:
            return PAUSE


def _of(rule: Rule) -> Need:
    need = OF_KIND.get(rule.kind, NOTHING)
    if isinstance(rule.params, CopiedSession):
        need |= OF_SIGNAL[rule.params.signal]
    if rule.escalation is not None:
        need |= Need.CASES | CHALLENGING
    return need | CHALLENGING if rule.action is Action.CHALLENGE or rule.swaps is not None else need
