"""What is known of an address, before somebody denies it: who else was seen there, where it is, which rules name it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final
from uuid import UUID

import msgspec

from accessguard.geo import Geo, Where
from accessguard.guard.facts import from_ms
from accessguard.policies.model import RuleRecord, parse
from accessguard.policies.store import PolicyStore
from accessguard.rules.model import AddressList, AsnList, CountryList, Kind, Mode, Place, Rule
from accessguard.rules.networks import Address
from accessguard.sessions.networks import LastUse, NetworkStore

LATELY: Final = timedelta(days=30)
TODAY: Final = timedelta(hours=24)


class Naming(msgspec.Struct, frozen=True, kw_only=True):
    """A rule whose list holds an address, its country or its network operator, whatever the rule makes of that."""

    id: UUID
    name: str
    kind: Kind
    mode: Mode


class AddressPlace(Place, frozen=True, kw_only=True, gc=False):
    """A place as people read it: with the operator's name, and the time zone (IANA) there; None is unknown."""

    operator: str | None = None
    time_zone: str | None = None


class AddressUse(msgspec.Struct, frozen=True, kw_only=True):
    """An address and who was seen there in the last 30 days; `network` is the unit in which places are compared."""

    ip: str
    network: str
    place: AddressPlace
    members: int
    network_members: int
    members_today: int
    last: tuple[LastUse, ...]
    rules: tuple[Naming, ...]


class Addresses:
    """Raises GuardError(UNAVAILABLE) when Postgres is out of reach."""

    def __init__(self, *, networks: NetworkStore, policies: PolicyStore, geo: Geo) -> None:
        self._networks = networks
        self._policies = policies
        self._geo = geo

    async def use(self, tenant: str, address: Address, *, now_ms: int) -> AddressUse:
        """Everything of one address, for the tenant that asks."""
        now = from_ms(now_ms)
        found = await self._networks.use(tenant, address, since=now - LATELY, today=now - TODAY)
        where = self._geo.where(address)
        records = await self._policies.rules(tenant)
        return AddressUse(
            ip=address.text,
            network=address.place,
            place=_in_full(where),
            members=found.members,
            network_members=found.place_members,
            members_today=found.members_today,
            last=found.last,
            rules=tuple(_naming(record) for record in records if names(_rule(record), address, where.place)),
        )


def names(rule: Rule, address: Address, place: Place) -> bool:
    """Whether the rule's list holds the address or what is known of its place."""
    match rule.params:
        case AddressList(networks=networks):
            return address in networks
        case CountryList(countries=countries):
            return place.country in countries
        case AsnList(asns=asns):
            return place.asn in asns
        case _:
            return False


def _in_full(where: Where) -> AddressPlace:
    known = msgspec.structs.asdict(where.place)
    return AddressPlace(**known, operator=where.operator, time_zone=where.time_zone)


def _rule(record: RuleRecord) -> Rule:
    return parse(record.body, id=record.id, version=record.version)


def _naming(record: RuleRecord) -> Naming:
    return Naming(id=record.id, name=record.body.name, kind=record.body.kind, mode=record.body.mode)
