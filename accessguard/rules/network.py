"""The limit on networks used within a window (L15), decided by rank among those that were admitted."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from ipaddress import IPv6Network

import msgspec

from accessguard.rules.model import Code, Count, Facts, Finding, NetworkLimit, Place, Rule, Unit
from accessguard.rules.networks import Address

# A household's share of IPv6 is a /48 to a /56 (RFC 6177); a /24 is as much of IPv4 (L36).
PREFIX_V6 = 48
INTERFACE_V6 = 64


class _Held(msgspec.Struct, frozen=True, gc=False):
    """One unit in use: since when it has its place, its key (ties), and when it was used last."""

    admitted_at: datetime
    key: str
    last_at: datetime

    @property
    def rank(self) -> tuple[datetime, str]:
        return (self.admitted_at, self.key)


def too_many_networks(facts: Facts, limit: NetworkLimit) -> Finding | None:
    """Refuse a network once as many others hold a place; the ones admitted first keep theirs.

    A network counts while it was admitted and used within `limit.window`; one
    that was refused holds no place. What is not known of an address (its
    operator, its city) is in no network.
    """
    mine = unit_of(facts.address, facts.place, limit.unit)
    if mine is None or len(facts.networks) < limit.max:
        return None
    held = _held(facts, limit)
    own = held.pop(mine, None)
    if len(held) < limit.max:
        return None
    ahead = [each for each in held.values() if own is None or each.rank < own.rank]
    if len(ahead) < limit.max:
        return None
    ranked = sorted(ahead, key=lambda each: each.rank)
    frees = sorted(each.last_at for each in ahead)[len(ahead) - limit.max] + limit.window
    return Finding(
        code=Code.NETWORK_LIMIT,
        subject=mine,
        limit=limit.max,
        counted=len(ahead) + 1,
        retry_at=frees,
        networks=tuple(each.key for each in ranked),
        times=tuple(each.last_at for each in ranked),
    )


def count_networks(facts: Facts, limit: NetworkLimit) -> Count:
    """What the limit counts, the network asked about among them when it is known."""
    held = _held(facts, limit)
    mine = unit_of(facts.address, facts.place, limit.unit)
    ranked = sorted((each for key, each in held.items() if key != mine), key=lambda each: each.rank)
    return Count(
        limit=limit.max,
        counted=len(ranked) + (mine is not None),
        networks=tuple(each.key for each in ranked),
        times=tuple(each.last_at for each in ranked),
    )


def unit_of(address: Address | None, place: Place | None, unit: Unit) -> str | None:
    """The network that an address is in, as people write it; None when that is not known.

    A city is named with its country: there are many Springfields.
    """
    match unit:
        case Unit.IP:
            return None if address is None else _network(address, 32, INTERFACE_V6)
        case Unit.PREFIX:
            return None if address is None else _network(address, 24, PREFIX_V6)
        case Unit.ASN:
            return None if place is None or place.asn is None else f"AS{place.asn}"
        case Unit.CITY:
            return None if place is None or place.city is None else f"{place.country or '?'}/{place.city}"


def admitted_since(held: datetime | None, last_at: datetime, rules: Iterable[Rule], now: datetime) -> datetime:
    """When a network that is let in now has its place since: it keeps one it still has, else takes one now.

    `held` and `last_at` are what is stored of it. It has lost its place when
    it left the shortest window of a limit on networks.
    """
    if held is None:
        return now
    windows = [rule.params.window for rule in rules if isinstance(rule.params, NetworkLimit)]
    return now if windows and last_at <= now - min(windows) else held


def _held(facts: Facts, limit: NetworkLimit) -> dict[str, _Held]:
    """Units in use within the window, by key: the earliest admission and the last use of each."""
    horizon: datetime = facts.now - limit.window
    held: dict[str, _Held] = {}
    for network in facts.networks:
        if network.admitted_at is None or network.last_at <= horizon:
            continue
        key = unit_of(network.address, network.place, limit.unit)
        if key is None:
            continue
        before = held.get(key)
        held[key] = (
            _Held(network.admitted_at, key, network.last_at)
            if before is None
            else _Held(min(before.admitted_at, network.admitted_at), key, max(before.last_at, network.last_at))
        )
    return held


def _network(address: Address, v4_bits: int, v6_bits: int) -> str:
    if address.version == 6:
        spare = 128 - v6_bits
        return str(IPv6Network((address.packed >> spare << spare, v6_bits)))
    return address.text if v4_bits == 32 else f"{address.text.rpartition('.')[0]}.0/24"
