"""What is stored of a member besides its sessions and devices: networks, enrolments, passes, cases, challenges. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

from accessguard.rules.model import CaseFact, EnrolmentFact, NetworkFact, Place, Settled
from accessguard.rules.networks import address


class NetworkSeen(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One address that one session was used from; `session_id` None: a login that got no session."""

    ip: str
    session_id: str | None
    device_id: UUID | None
    first_at: datetime
    last_at: datetime
    admitted_at: datetime | None
    place: Place


class PassHeld(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A pass, ended or not."""

    kind: Literal["extra_device", "extra_session", "suspend_checks"]
    until: datetime


class FreedAt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """When the member freed a place that a rule asked for."""

    rule_id: UUID
    at: datetime


class Forgotten(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A device that was forgotten, and since when the member had had it."""

    id: UUID
    device_class: str
    first_admitted_at: datetime
    last_seen_at: datetime


class Evidence(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What is stored of one member besides its sessions and devices, whatever its age.

    A part that was not asked for is empty; of enrolments None says so.
    """

    networks: tuple[NetworkSeen, ...] = ()
    enrolments: tuple[EnrolmentFact, ...] | None = None
    passes: tuple[PassHeld, ...] = ()
    cases: tuple[CaseFact, ...] = ()
    settled: tuple[Settled, ...] = ()
    freed: tuple[FreedAt, ...] = ()
    forgotten: tuple[Forgotten, ...] = ()

    def network_facts(self) -> Iterator[NetworkFact]:
        """The networks as rules see them."""
        for seen in self.networks:
            found = address(seen.ip)
            if found is not None:
                yield NetworkFact(
                    address=found,
                    place=None if seen.place == Place() else seen.place,
                    session_id=seen.session_id,
                    device_id=seen.device_id,
                    first_at=seen.first_at,
                    last_at=seen.last_at,
                    admitted_at=seen.admitted_at,
                )

    def with_network(self, network: NetworkFact) -> Evidence:
        """The same with one network as it stands now."""
        now = NetworkSeen(
            ip=network.address.text,
            session_id=network.session_id,
            device_id=network.device_id,
            first_at=network.first_at,
            last_at=network.last_at,
            admitted_at=network.admitted_at,
            place=network.place or Place(),
        )
        others = (each for each in self.networks if (each.session_id, each.ip) != (now.session_id, now.ip))
        return msgspec.structs.replace(self, networks=(now, *others))

    def was_at(self, session_id: str, ip: str) -> bool:
        """Whether that session was seen at that address."""
        return any(each.session_id == session_id and each.ip == ip for each in self.networks)

    def live(self, kind: str, now: datetime) -> int:
        """How many passes of a kind have not ended."""
        return sum(held.kind == kind and held.until > now for held in self.passes)

    def next_end(self, now: datetime) -> datetime | None:
        """When the first pass that has not ended will; None without one."""
        return min((held.until for held in self.passes if held.until > now), default=None)


NO_EVIDENCE = Evidence()
