"""Rules on the client's address. An unknown address finds nothing; the answer is then marked degraded."""

from __future__ import annotations

from accessguard.rules.model import AddressList, Code, Facts, Finding


def denied_address(facts: Facts, params: AddressList) -> Finding | None:
    """Refuse an address that stands in the list."""
    if facts.address is None or facts.address not in params.networks:
        return None
    return Finding(code=Code.IP_DENIED, subject=facts.address.place)


def address_not_allowed(facts: Facts, params: AddressList) -> Finding | None:
    """Refuse an address that does not stand in the list."""
    if facts.address is None or facts.address in params.networks:
        return None
    return Finding(code=Code.IP_NOT_ALLOWED, subject=facts.address.place)
