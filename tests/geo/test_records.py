"""What is read of a file's record, in the shapes that files have; and that no shape at all breaks the reading."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accessguard.geo.model import UNKNOWN, Where
from accessguard.geo.records import LARGEST_ASN, LONGEST_NAME, where
from accessguard.rules.model import Place
from tests.fuzz import examples

PARIS: dict[str, Any] = {"latitude": 48.85, "longitude": 2.35}


@pytest.mark.parametrize(
    ("record", "found"),
    [
        pytest.param(
            {
                "continent": {"code": "EU"},
                "country": {"iso_code": "FR", "names": {"en": "France"}},
                "subdivisions": [{"iso_code": "IDF", "names": {"en": "Île-de-France"}}],
                "city": {"names": {"en": "Paris", "ru": "Париж"}},
                "location": {"time_zone": "Europe/Paris", "accuracy_radius": 20} | PARIS,
            },
            Where(place=Place(country="FR", city="Paris, Île-de-France", **PARIS), time_zone="Europe/Paris"),
            id="MaxMind, city",
        ),
        pytest.param(
            {"autonomous_system_number": 64500, "autonomous_system_organization": "Example Telecom"},
            Where(place=Place(asn=64500), operator="Example Telecom"),
            id="MaxMind, operator",
        ),
        pytest.param(
            {
                "country": "France",
                "country_code": "FR",
                "continent": "Europe",
                "asn": "AS64500",
                "as_name": "Example Telecom",
                "as_domain": "example.com",
            },
            Where(place=Place(country="FR", asn=64500), operator="Example Telecom"),
            id="IPinfo Lite",
        ),
        pytest.param(
            {
                "city": "Paris",
                "region": "Île-de-France",
                "country": "FR",
                "lat": "48.85",
                "lng": "2.35",
                "timezone": "Europe/Paris",
            },
            Where(place=Place(country="FR", city="Paris, Île-de-France", **PARIS), time_zone="Europe/Paris"),
            id="IPinfo, city",
        ),
        pytest.param(
            {
                "country_code": "FR",
                "state1": "Île-de-France",
                "state2": "Paris",
                "city": "Paris",
                "latitude": 48.85,
                "longitude": 2.35,
                "timezone": "Europe/Paris",
            },
            Where(place=Place(country="FR", city="Paris, Île-de-France", **PARIS), time_zone="Europe/Paris"),
            id="ip-location-db, city",
        ),
        pytest.param(
            {"asn": 64500, "name": "EXAMPLE", "org": "Example Telecom", "country_code": "US", "domain": "example.com"},
            Where(place=Place(asn=64500), operator="Example Telecom"),
            id="IPLocate, where the country is the operator's and not the address's",
        ),
        pytest.param({"country_code": "fr"}, Where(place=Place(country="FR")), id="code in lower case"),
        pytest.param({"asn": "64500"}, Where(place=Place(asn=64500)), id="number as a text"),
    ],
)
def test_both_shapes_are_read(record, found):
    """MaxMind's, and the flat one of the free files."""
    assert where([record]) == found


def test_the_operator_is_named_by_the_record_that_has_its_number():
    """Two files must not make one operator of two."""
    records: list[dict[str, Any]] = [{"asn": 64500}, {"asn": 64501, "as_name": "Another"}, {"as_name": "A third"}]

    found = where(records)

    assert (found.place.asn, found.operator) == (64500, None)


@pytest.mark.parametrize(
    "record",
    [
        pytest.param({"country": "Italy"}, id="country is a name"),
        pytest.param({"country": "it"}, id="country is no code"),
        pytest.param({"country": {"iso_code": 7}}, id="code is a number"),
        pytest.param({"country": {"iso_code": "ITA"}}, id="code of three letters"),
        pytest.param({"country": {"iso_code": "1T"}}, id="code with a digit"),
        pytest.param({"country": {}, "country_code": "IT"}, id="nested and flat"),
        pytest.param({"autonomous_system_number": "ASN64500"}, id="number is a text"),
        pytest.param({"autonomous_system_number": 2**32}, id="number too large"),
        pytest.param({"asn": "AS99999999999"}, id="text too large"),
        pytest.param({"asn": 0, "as_name": "nobody"}, id="number zero"),
        pytest.param({"asn": True}, id="number is a truth"),
        pytest.param({"city": {"names": ["Milan"]}}, id="names are a list"),
        pytest.param({"city": "\0\x1f"}, id="city of control characters"),
        pytest.param({"state1": "Lombardy"}, id="region without a city"),
        pytest.param({"location": {"latitude": 91.0, "longitude": 0.0}}, id="beyond the pole"),
        pytest.param({"location": {"latitude": 45.0}}, id="half a place"),
        pytest.param({"location": {"latitude": float("nan"), "longitude": 0.0}}, id="not a number"),
        pytest.param({"location": {"latitude": True, "longitude": False}}, id="truths"),
        pytest.param({"latitude": "1e1", "longitude": "inf"}, id="texts that are no degrees"),
        pytest.param({"location": {"time_zone": "-07:00"}}, id="offset instead of a zone"),
        pytest.param({"location": {"time_zone": "../../etc/passwd"}}, id="path instead of a zone"),
    ],
)
def test_what_has_another_shape_is_unknown(record):
    """A file of somebody else's making is read as far as it goes."""
    assert where([record]) == UNKNOWN


def test_names_can_be_stored_whatever_is_in_them():
    """Without NUL, which PostgreSQL does not take, halves of surrogates, which UTF-8 does not, and bounded."""
    found = where([{"city": "Mi\0l\ud800an" + "x" * 500, "asn": 64500, "as_name": " Example\n\x7f "}])

    assert found.place.city == ("Milan" + "x" * 500)[:LONGEST_NAME]
    assert found.operator == "Example"


KEYS = st.sampled_from(
    [
        "country", "country_code", "iso_code", "city", "names", "en", "subdivisions", "region", "state1", "location",
        "latitude", "longitude", "lat", "lng", "time_zone", "timezone", "autonomous_system_number", "asn", "as_name",
        "autonomous_system_organization", "org",
    ]
) | st.text(max_size=5)  # fmt: skip
LEAVES: st.SearchStrategy[Any] = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.binary(max_size=8)
    | st.text(max_size=12)
    | st.text(st.characters(), max_size=300)
    | st.sampled_from(["IT", "AS64500", "64500", "45.5", "-0.0", "Europe/Rome", "\0", "\ud800"])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
RECORDS = st.dictionaries(KEYS, VALUES, max_size=6)


@examples(120)
@given(st.lists(RECORDS, max_size=3))
def test_a_record_of_any_shape_gives_a_place_that_can_be_stored(records):
    """Whatever stands where: nothing is raised, and every field is of its kind and within its bounds."""
    found = where(records)

    place = found.place
    assert place.country is None or (place.country.isascii() and place.country.isupper() and len(place.country) == 2)
    assert place.asn is None or 0 < place.asn <= LARGEST_ASN
    assert (place.latitude is None) == (place.longitude is None)
    assert place.latitude is None or abs(place.latitude) <= 90
    assert place.longitude is None or abs(place.longitude) <= 180
    assert found.operator is None or place.asn is not None
    for text in (place.city, found.operator, found.time_zone):
        assert text is None or (text.isprintable() and text.encode() and len(text) <= 2 * LONGEST_NAME + 2)
