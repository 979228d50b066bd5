"""What a rule counted, for people; and what could not be seen while it did."""

from __future__ import annotations

from collections.abc import Sequence

from accessguard.rules.copy import turns
from accessguard.rules.device import count_devices, count_new_devices
from accessguard.rules.enrolment import count_enrolments
from accessguard.rules.login import count_failures, known_device
from accessguard.rules.model import (
    AddressList,
    AsnList,
    CopiedSession,
    Count,
    CountryList,
    DeviceChurn,
    DeviceLimit,
    EnrolmentNeeded,
    Facts,
    FailurePer,
    ImpossibleTravel,
    LoginFailures,
    NetworkLimit,
    Rule,
    SessionLimit,
    Signal,
    Stage,
    Unit,
)
from accessguard.rules.network import count_networks
from accessguard.rules.session import count_sessions
from accessguard.rules.travel import count_places


def count(rule: Rule, facts: Facts) -> Count:  # noqa: C901, PLR0911 - one line for each kind
    """What `rule` counts on these facts, whether or not it is too much. Decides nothing."""
    match rule.params:
        case SessionLimit() as params:
            return count_sessions(facts, params)
        case DeviceLimit() as params:
            return count_devices(facts, params)
        case DeviceChurn() as params:
            return count_new_devices(facts, params)
        case NetworkLimit() as params:
            return count_networks(facts, params)
        case ImpossibleTravel() as params:
            return count_places(facts, params)
        case LoginFailures() as params:
            return count_failures(facts, params)
        case EnrolmentNeeded() as params:
            return count_enrolments(facts, params)
        case AddressList():
            return Count(seen=facts.address.text if facts.address else None)
        case CountryList():
            return Count(seen=facts.place.country if facts.place else None)
        case AsnList():
            return Count(seen=f"AS{facts.place.asn}" if facts.place and facts.place.asn is not None else None)
        case CopiedSession():
            return _copies(facts)


def blind(rules: Sequence[Rule], facts: Facts) -> bool:
    """Whether one of the rules could not see what it looks at, and so found nothing."""
    return not _sees_all(facts) and any(_blind(rule, facts) for rule in rules)


def _sees_all(facts: Facts) -> bool:
    """Whether nothing is unknown that any rule looks at: nearly always, so that no rule need be asked."""
    place = facts.place
    if facts.address is None or facts.enrolments is None or place is None or place.longitude is None:
        return False
    return None not in {place.country, place.asn, place.city, place.latitude}


def _blind(rule: Rule, facts: Facts) -> bool:  # noqa: C901, PLR0911 - one line for each kind
    place = facts.place
    match rule.params:
        case SessionLimit() | DeviceLimit() | DeviceChurn():
            return False
        case CopiedSession(signal=signal):
            networks = signal is not Signal.BROWSER
            return networks and facts.address is None and facts.stage is Stage.CHECK
        case AddressList():
            return facts.address is None
        case CountryList():
            return place is None or place.country is None
        case AsnList():
            return place is None or place.asn is None
        case NetworkLimit(unit=unit):
            return _no_unit(unit, facts)
        case ImpossibleTravel():
            return place is None or place.latitude is None or place.longitude is None
        case EnrolmentNeeded():
            return facts.enrolments is None
        case LoginFailures(per=per):
            hidden = facts.address is None and per is not FailurePer.MEMBER
            return hidden and facts.stage is Stage.LOGIN and known_device(facts) is None


def _no_unit(unit: Unit, facts: Facts) -> bool:
    match unit:
        case Unit.IP | Unit.PREFIX:
            return facts.address is None
        case Unit.ASN:
            return facts.place is None or facts.place.asn is None
        case Unit.CITY:
            return facts.place is None or facts.place.city is None


def _copies(facts: Facts) -> Count:
    found = turns(facts)
    networks = () if found is None else (found[1].address.text, found[0].address.text)
    return Count(networks=networks, seen=f"{facts.browser or '?'} on {facts.os or '?'}")
