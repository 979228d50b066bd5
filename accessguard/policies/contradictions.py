"""Two rules that cannot both be meant: together they let nobody in, or pick different ones to keep."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from uuid import UUID

import msgspec

from accessguard.rules.model import Action, AddressList, CountryList, EnrolmentNeeded, Kind, Mode, Rule, SessionLimit
from accessguard.rules.networks import Networks

# Whose place is kept: a limit that keeps the oldest and one that keeps the newest leave none between them.
KEEPS = {
    Action.DENY_NEW: "the oldest sessions",
    Action.CHALLENGE: "the oldest sessions",
    Action.EVICT_OLDEST: "the newest sessions",
    Action.EVICT_OTHERS: "the newest sessions",
    Action.EVICT_IDLE: "the sessions used last",
}


class Contradiction(msgspec.Struct, frozen=True, kw_only=True):
    """Two rules that contradict each other, and how, in a sentence that names neither."""

    one: UUID
    other: UUID
    detail: str


def contradictions(rules: Iterable[Rule]) -> tuple[Contradiction, ...]:
    """Every pair of enforced rules of one scope that contradict each other, in order of their ids."""
    enforced = sorted((rule for rule in rules if rule.mode is Mode.ENFORCE), key=lambda rule: rule.id)
    return tuple(
        Contradiction(one=one.id, other=other.id, detail=detail)
        for one, other in combinations(enforced, 2)
        if one.scope == other.scope
        for detail in _between(one, other)
    )


def contradicted(rule: Rule, others: Sequence[Rule]) -> tuple[Contradiction, ...]:
    """What a rule about to be saved contradicts; its own version before is passed over."""
    rest = (other for other in others if other.id != rule.id)
    return tuple(found for other in rest for found in contradictions((rule, other)))


def _between(one: Rule, other: Rule) -> Iterator[str]:
    match one.params, other.params:
        case (AddressList() as mine, AddressList() as theirs):
            yield from _addresses(one.kind, mine.networks, other.kind, theirs.networks)
        case (CountryList() as mine, CountryList() as theirs):
            yield from _countries(one.kind, mine.countries, other.kind, theirs.countries)
        case (SessionLimit() as mine, SessionLimit() as theirs):
            if mine.per is theirs.per and mine.activities == theirs.activities:
                yield from _sessions(one.action, other.action)
        case (EnrolmentNeeded(products=frozenset() as mine), EnrolmentNeeded(products=frozenset() as theirs)):
            if not mine & theirs:
                yield "no product is in both: a student would need an enrolment in one of each"


def _addresses(one: Kind, mine: Networks, other: Kind, theirs: Networks) -> Iterator[str]:
    if one is other:
        if one is Kind.IP_ALLOW_ONLY and not overlap(mine, theirs):
            yield "no address is in both lists of allowed ones: nobody gets in"
        return
    allowed, denied = (mine, theirs) if one is Kind.IP_ALLOW_ONLY else (theirs, mine)
    if within(allowed, denied):
        yield "every address that one allows is denied by the other: nobody gets in"


def _countries(one: Kind, mine: frozenset[str], other: Kind, theirs: frozenset[str]) -> Iterator[str]:
    both = mine & theirs
    if one is other:
        if one is Kind.COUNTRY_ALLOW_ONLY and not both:
            yield "no country is in both lists of allowed ones: nobody gets in"
        return
    if both:
        yield f"one allows and the other denies {', '.join(sorted(both))}"


def _sessions(one: Action, other: Action) -> Iterator[str]:
    kept, instead = KEEPS.get(one), KEEPS.get(other)
    if kept is not None and instead is not None and kept != instead:
        yield f"one keeps {kept}, the other {instead}: between them they refuse everybody"


def within(inner: Networks, outer: Networks) -> bool:
    """Whether every address of `inner` is in `outer`."""
    v4 = _within(inner.v4_first, inner.v4_last, outer.v4_first, outer.v4_last)
    return v4 and _within(inner.v6_first, inner.v6_last, outer.v6_first, outer.v6_last)


def overlap(one: Networks, other: Networks) -> bool:
    """Whether some address is in both."""
    v4 = _overlap(one.v4_first, one.v4_last, other.v4_first, other.v4_last)
    return v4 or _overlap(one.v6_first, one.v6_last, other.v6_first, other.v6_last)


def _within(first: Sequence[int], last: Sequence[int], outer_first: Sequence[int], outer_last: Sequence[int]) -> bool:
    """Ranges are sorted and do not touch, so that one inside a union is inside one of them."""
    at = 0
    for begin, end in zip(first, last, strict=True):
        while at < len(outer_last) and outer_last[at] < begin:
            at += 1
        if at == len(outer_last) or outer_first[at] > begin or outer_last[at] < end:
            return False
    return True


def _overlap(first: Sequence[int], last: Sequence[int], other_first: Sequence[int], other_last: Sequence[int]) -> bool:
    at = 0
    for begin, end in zip(first, last, strict=True):
        while at < len(other_last) and other_last[at] < begin:
            at += 1
        if at < len(other_last) and other_first[at] <= end:
            return True
    return False
