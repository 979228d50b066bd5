"""Rules on the country and the network operator of an address. An unknown place finds nothing (degraded)."""

from __future__ import annotations

from accessguard.rules.model import AsnList, Code, CountryList, Facts, Finding


def denied_country(facts: Facts, params: CountryList) -> Finding | None:
    """Refuse an address of a country in the list."""
    country = facts.place.country if facts.place else None
    return _country(country) if country is not None and country in params.countries else None


def country_not_allowed(facts: Facts, params: CountryList) -> Finding | None:
    """Refuse an address of a country that is not in the list."""
    country = facts.place.country if facts.place else None
    return _country(country) if country is not None and country not in params.countries else None


def denied_operator(facts: Facts, params: AsnList) -> Finding | None:
    """Refuse an address of a network operator in the list, such as a data centre's."""
    asn = facts.place.asn if facts.place else None
    if asn is None or asn not in params.asns:
        return None
    return Finding(code=Code.ASN_DENIED, subject=f"AS{asn}", seen=f"AS{asn}")


def _country(country: str) -> Finding:
    return Finding(code=Code.COUNTRY_DENIED, subject=country, seen=country)
