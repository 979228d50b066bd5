"""From what geographic files say of an address to what is known of it. Pure; no shape of a record raises.

Two shapes are read: MaxMind's own (`country.iso_code`, `city.names.en`, ...;
GeoIP2, GeoLite2, DB-IP and IP2Location follow it) and the flat one of IPinfo,
IPLocate and ip-location-db (`country_code`, `asn: "AS64500"`, ...). What has
any other shape is unknown. docs/places.md lists who writes what.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from sys import intern
from typing import Any, Final, TypeAlias, TypeVar

from accessguard.geo.model import Where
from accessguard.rules.model import Place

T = TypeVar("T")
Record: TypeAlias = Mapping[str, Any]

# RFC 6793: four octets.
LARGEST_ASN: Final = 0xFFFF_FFFF
LONGEST_NAME: Final = 200
# "America/Argentina/ComodRivadavia" has 32 characters; an offset from UTC is no time zone.
_ZONE: Final = re.compile(r"[A-Z][\w+-]{0,31}(?:/[\w+-]{1,32}){0,2}", re.ASCII)
_ASN: Final = re.compile(r"(?:AS)?(\d{1,10})", re.ASCII)
_COUNTRY: Final = re.compile(r"[A-Za-z]{2}", re.ASCII)
_CODE: Final = re.compile(r"[A-Z]{2}", re.ASCII)
_DEGREES: Final = re.compile(r"-?\d{1,3}(?:\.\d{1,20})?", re.ASCII)


def where(records: Sequence[Record]) -> Where:
    """From what the files say, in their order: for each fact the first one that knows it.

    The operator's name is that of the record that knows its number.
    """
    latitude, longitude = _first(records, _centre) or (None, None)
    asn, operator = _first(records, _operator) or (None, None)
    place = Place(
        country=_first(records, _country),
        asn=asn,
        city=_first(records, _city),
        latitude=latitude,
        longitude=longitude,
    )
    return Where(place=place, operator=operator, time_zone=_first(records, _time_zone))


def _first(records: Sequence[Record], read: Callable[[Record], T | None]) -> T | None:
    for record in records:
        value = read(record)
        if value is not None:
            return value
    return None


def _country(record: Record) -> str | None:
    """The code; flat files have it as `country_code`, or as `country` where no name stands there.

    Beside `org` it is the country in which IPLocate's operators are registered, which says nothing of the address.
    """
    country = record.get("country")
    if isinstance(country, Mapping):
        return _matched(_COUNTRY, country.get("iso_code"))
    if "org" in record:
        return None
    return _matched(_COUNTRY, record.get("country_code")) or _matched(_CODE, country)


def _operator(record: Record) -> tuple[int, str | None] | None:
    """Number and name, the number also as IPinfo writes it ("AS64500")."""
    number = record.get("autonomous_system_number", record.get("asn"))
    if isinstance(number, str) and (found := _ASN.fullmatch(number)):
        number = int(found[1])
    if not isinstance(number, int) or isinstance(number, bool) or not 0 < number <= LARGEST_ASN:
        return None
    names = (_text(record.get(key)) for key in ("autonomous_system_organization", "as_name", "org"))
    return number, next((name for name in names if name is not None), None)


def _city(record: Record) -> str | None:
    """The English name, with its region's behind it: of Springfields there are many."""
    city = record.get("city")
    if isinstance(city, Mapping):
        name, region = _english(city), _region(record.get("subdivisions"))
    else:
        name, region = _text(city), _text(record.get("state1", record.get("region")))
    return name if name is None or region in (None, name) else intern(f"{name}, {region}")


def _region(subdivisions: object) -> str | None:
    return _english(subdivisions[0]) if isinstance(subdivisions, list) and subdivisions else None


def _centre(record: Record) -> tuple[float, float] | None:
    location = record.get("location")
    within = location if isinstance(location, Mapping) else record
    latitude = _degrees(within.get("latitude", within.get("lat")), most=90)
    longitude = _degrees(within.get("longitude", within.get("lng")), most=180)
    return None if latitude is None or longitude is None else (latitude, longitude)


def _time_zone(record: Record) -> str | None:
    location = record.get("location")
    within = location if isinstance(location, Mapping) else record
    zone = within.get("time_zone", within.get("timezone"))
    return intern(zone) if isinstance(zone, str) and _ZONE.fullmatch(zone) else None


def _degrees(value: object, *, most: int) -> float | None:
    """A number, or a text that is one: flat files are often made from CSV."""
    if isinstance(value, str) and _DEGREES.fullmatch(value):
        value = float(value)
    if not isinstance(value, (float, int)) or isinstance(value, bool) or not abs(value) <= most:
        return None
    return float(value)


def _english(record: object) -> str | None:
    names = record.get("names") if isinstance(record, Mapping) else None
    return _text(names.get("en")) if isinstance(names, Mapping) else None


def _text(value: object) -> str | None:
    """A name that can be stored and shown: bounded, without control characters and halves of surrogates."""
    if not isinstance(value, str):
        return None
    shown = value if value.isprintable() else "".join(filter(str.isprintable, value))
    return intern(shown[:LONGEST_NAME].strip()) or None


def _matched(pattern: re.Pattern[str], value: object) -> str | None:
    return intern(value.upper()) if isinstance(value, str) and pattern.fullmatch(value) else None
