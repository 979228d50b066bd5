"""What is noted of the address that a question comes from, once it is decided."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import msgspec

from accessguard.rules.model import Facts, NetworkFact, Rule
from accessguard.rules.network import admitted_since

REST: Final = timedelta(seconds=30)
"""Last use of an address moves at most once in so long (design.md, "The 30-second heartbeat")."""


class Sighting(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A network as it stands after a question; `news` when verdicts on the member's other sessions may change by it."""

    network: NetworkFact
    news: bool


def sighting(rules: Sequence[Rule], facts: Facts, *, admitted: bool) -> Sighting | None:
    """The use of this session's address, if there is anything to note.

    A new address is, admitted or refused; a refused use of a known one moves
    nothing. A use is noted at once when the session comes back from an address
    that was new: taking turns is how a copied session shows.
    """
    if facts.address is None or facts.staff:
        return None
    held = _held(facts)
    if held is None:
        return Sighting(network=_first(facts, admitted=admitted), news=admitted)
    if not admitted:
        return None
    since = admitted_since(held.admitted_at, held.last_at, rules, facts.now)
    news = since != held.admitted_at or _returns(held, facts)
    if not news and held.last_at > facts.now - REST:
        return None
    place = facts.place or held.place
    return Sighting(network=msgspec.structs.replace(held, last_at=facts.now, admitted_at=since, place=place), news=news)


def _held(facts: Facts) -> NetworkFact | None:
    mine = facts.session.id
    return next((each for each in facts.networks if each.session_id == mine and each.address == facts.address), None)


def _first(facts: Facts, *, admitted: bool) -> NetworkFact:
    if facts.address is None:
        raise ValueError("an unknown address is no network")
    return NetworkFact(
        address=facts.address,
        place=facts.place,
        session_id=facts.session.id,
        device_id=facts.session.device_id,
        first_at=facts.now,
        last_at=facts.now,
        admitted_at=facts.now if admitted else None,
    )


def _returns(held: NetworkFact, facts: Facts) -> bool:
    """Whether this session was first seen at another address since it was here last."""
    return any(
        each.session_id == held.session_id and each.first_at > held.last_at and each.admitted_at is not None
        for each in facts.networks
    )
