"""Impossible travel: two places of one member, too far apart for the time between them."""

from __future__ import annotations

from datetime import datetime, timedelta
from math import asin, cos, radians, sin, sqrt

from accessguard.rules.model import Code, Count, Facts, Finding, ImpossibleTravel, NetworkFact, Place

EARTH_KM = 6371.0088  # mean radius (IUGG)
FARTHEST_KM = 20_016.0  # half round the earth: no two places are farther apart
STILL_HERE = timedelta(seconds=60)
"""Last use moves at most once in 30 s; twice that, and whoever was silent has gone."""

Found = tuple[float, float, str, NetworkFact]


def impossible_travel(facts: Facts, params: ImpossibleTravel) -> Finding | None:
    """Find a place that cannot have been reached since another one was used last.

    Only uses that were admitted count. Who was there first and has not left
    since is no traveller: of two places in use at once it is the later one
    that is found. Places whose coordinates are not known are in nobody's way.
    """
    here = facts.place
    if here is None or here.latitude is None or not facts.networks:
        return None
    found = [each for each in journeys(facts, params) if not _stayed(facts, params, each[3])]
    if not found:
        return None
    speed, distance, _, fastest = max(found, key=lambda each: each[:3])
    return Finding(
        code=Code.IMPOSSIBLE_TRAVEL,
        subject=place_name(here),
        retry_at=max(possible_at(each[3], each[1], params) for each in found),
        networks=(fastest.address.text,),
        times=(fastest.last_at,),
        seen=place_name(here),
        before=place_name(fastest.place) if fastest.place else None,
        distance_km=round(distance),
        speed_kmh=round(speed),
    )


def count_places(facts: Facts, params: ImpossibleTravel) -> Count:
    """The places of the member that are near enough in time to be compared."""
    recent = sorted(_recent(facts, params), key=lambda each: (each.last_at, each.address.text))
    return Count(
        limit=params.max_speed_kmh,
        networks=tuple(each.address.text for each in recent),
        times=tuple(each.last_at for each in recent),
    )


def journeys(facts: Facts, params: ImpossibleTravel) -> list[Found]:
    """Every journey that is too fast: (km/h, km, address left, network left)."""
    found = []
    for network in _recent(facts, params):
        distance = distance_km(facts.place, network.place)
        if distance is None or distance < params.min_distance_km:
            continue
        # Two sightings at one instant are a journey of a second: a speed that can be written down.
        hours = max((facts.now - network.last_at).total_seconds(), 1.0) / 3600
        if distance > params.max_speed_kmh * hours:
            found.append((distance / hours, distance, network.address.text, network))
    return found


def possible_at(network: NetworkFact, distance: float, params: ImpossibleTravel) -> datetime:
    """When a journey of `distance` km from that network becomes possible."""
    return network.last_at + timedelta(hours=distance / params.max_speed_kmh)


def distance_km(one: Place | None, other: Place | None) -> float | None:
    """Great-circle distance (haversine) between two centres; None when one of them is not known."""
    if one is None or other is None or one.latitude is None or other.latitude is None:
        return None
    if one.longitude is None or other.longitude is None:
        return None
    if one.latitude == other.latitude and one.longitude == other.longitude:
        return 0.0
    north = sin(radians(other.latitude - one.latitude) / 2) ** 2
    east = sin(radians(other.longitude - one.longitude) / 2) ** 2
    chord = north + cos(radians(one.latitude)) * cos(radians(other.latitude)) * east
    return 2 * EARTH_KM * asin(sqrt(min(1.0, chord)))


def place_name(place: Place) -> str:
    """A place as a person reads it: country and city, else coordinates."""
    if place.city is not None:
        return f"{place.country or '?'}/{place.city}"
    return f"{place.country or '?'}/{place.latitude:.1f},{place.longitude:.1f}"


def farthest_back(params: ImpossibleTravel) -> timedelta:
    """How long ago a use must be for every place on earth to be in reach."""
    return timedelta(hours=FARTHEST_KM / params.max_speed_kmh)


def _recent(facts: Facts, params: ImpossibleTravel) -> list[NetworkFact]:
    """Admitted uses that are not so long ago that every place could be reached."""
    horizon = facts.now - farthest_back(params)
    return [each for each in facts.networks if each.last_at > horizon and each.admitted_at is not None]


def _stayed(facts: Facts, params: ImpossibleTravel, other: NetworkFact) -> bool:
    """Whether the member was here before `other` was admitted, and still is."""
    if other.admitted_at is None:
        return True
    since = other.admitted_at - STILL_HERE
    return any(
        own.admitted_at is not None
        and (own.admitted_at, own.address.text) < (other.admitted_at, other.address.text)
        and own.last_at >= since
        and _near(facts.place, own.place, params)
        for own in facts.networks
    )


def _near(here: Place | None, there: Place | None, params: ImpossibleTravel) -> bool:
    distance = distance_km(here, there)
    return distance is not None and distance < params.min_distance_km
