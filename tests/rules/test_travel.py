"""Impossible travel."""

from datetime import timedelta

import msgspec
import pytest

from accessguard.rules.model import ImpossibleTravel
from accessguard.rules.travel import distance_km, impossible_travel
from tests.build import NOW, facts, network, place

TURIN = place()
MILAN = place(city="Milan", latitude=45.46, longitude=9.19)
LISBON = place(country="PT", city="Lisbon", latitude=38.72, longitude=-9.14)
NOWHERE = place(city=None, latitude=None, longitude=None)
LIMIT = ImpossibleTravel(max_speed_kmh=1000, min_distance_km=200)


def asked(*networks, here=LISBON, **more):
    """A check from Lisbon."""
    return facts(place=here, networks=networks, **more)


@pytest.mark.parametrize(
    ("before", "found"),
    [
        pytest.param(network("192.0.2.1", used=10), True, id="Turin ten minutes ago"),
        pytest.param(network("192.0.2.1", used=0), True, id="Turin at this instant"),
        pytest.param(network("192.0.2.1", used=120), False, id="Turin two hours ago: 1,600 km is a flight"),
        pytest.param(network("192.0.2.1", used=10, place=LISBON), False, id="the same city"),
        pytest.param(network("192.0.2.1", used=10, place=NOWHERE), False, id="from a place not known"),
        pytest.param(network("192.0.2.1", used=10, place=None), False, id="from no place"),
        pytest.param(network("192.0.2.1", used=10, admitted=None), False, id="that use was refused"),
    ],
)
def test_a_place_must_be_within_reach(before, found):
    """Of the use before, in the time since; what is not known is in nobody's way."""
    finding = impossible_travel(asked(before), LIMIT)

    assert (finding is not None) is found


def test_what_is_near_is_no_journey():
    """Turin and Milan are 125 km apart, whatever the time between."""
    near = asked(network("192.0.2.1", place=MILAN), here=TURIN)

    assert distance_km(TURIN, MILAN) == pytest.approx(125, abs=3)
    assert impossible_travel(near, LIMIT) is None
    assert impossible_travel(near, msgspec.structs.replace(LIMIT, min_distance_km=100)) is not None


def test_a_refusal_says_when_the_journey_becomes_possible():
    """And how far and how fast it was."""
    question = asked(network("192.0.2.1", used=10))

    finding = impossible_travel(question, LIMIT)

    assert finding is not None
    assert (finding.subject, finding.before, finding.networks) == ("PT/Lisbon", "IT/Turin", ("192.0.2.1",))
    assert finding.distance_km == pytest.approx(1568, abs=30)
    assert finding.retry_at is not None
    before, after = finding.retry_at - timedelta(milliseconds=1), finding.retry_at + timedelta(milliseconds=1)
    assert impossible_travel(msgspec.structs.replace(question, now=before), LIMIT) is not None
    assert impossible_travel(msgspec.structs.replace(question, now=after), LIMIT) is None


def test_of_two_places_in_use_the_later_one_is_found():
    """L37: whoever was there first and has not left is no traveller; a shared account costs its owner nothing."""
    home = network("192.0.2.1", admitted=600, used=0.5)
    abroad = network("203.0.113.9", admitted=20, used=0.2, place=LISBON)

    owner = impossible_travel(asked(home, abroad, here=TURIN, address=home.address), LIMIT)
    other = impossible_travel(asked(home, abroad), LIMIT)

    assert owner is None
    assert other is not None


def test_who_travelled_and_is_back_at_once_is_found():
    """Home before, then Lisbon by a flight, then home ten minutes later: somebody else is at home."""
    home = network("192.0.2.1", admitted=6000, used=300)
    abroad = network("203.0.113.9", admitted=60, used=10, place=LISBON)

    finding = impossible_travel(asked(home, abroad, here=TURIN, address=home.address), LIMIT)

    assert finding is not None
    assert finding.before == "PT/Lisbon"


@pytest.mark.parametrize(
    ("one", "other", "km"),
    [
        (place(latitude=0.0, longitude=0.0), place(latitude=0.0, longitude=180.0), 20_015),
        (place(latitude=90.0, longitude=0.0), place(latitude=-90.0, longitude=77.0), 20_015),
        (place(latitude=0.0, longitude=179.5), place(latitude=0.0, longitude=-179.5), 111),
        (TURIN, TURIN, 0),
    ],
)
def test_the_earth_is_round(one, other, km):
    """Poles, antipodes and the date line."""
    assert distance_km(one, other) == pytest.approx(km, abs=1)


def test_the_fastest_journey_is_told_and_order_does_not_matter():
    """Two places that cannot be reached from; the same one is named whichever a store answers first."""
    old, new = network("192.0.2.1", used=30), network("192.0.2.2", used=5)

    findings = [impossible_travel(asked(*each), LIMIT) for each in ((old, new), (new, old))]

    assert findings[0] == findings[1]
    assert findings[0] is not None
    assert findings[0].networks == ("192.0.2.2",)
    assert findings[0].times == (NOW - timedelta(minutes=5),)
