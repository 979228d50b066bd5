"""What a rule counts and how much it allows, parsed: one struct for each form of parameters."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeAlias
from uuid import UUID

import msgspec

from accessguard.rules.networks import Networks
from accessguard.rules.words import Action, Activity, FailurePer, Kind, Mode, Per, Signal, Unit


class AddressList(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Parameters of `ip_deny` and `ip_allow_only`."""

    networks: Networks


class CountryList(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Parameters of `country_deny` and `country_allow_only`: ISO 3166-1 alpha-2 codes, upper case."""

    countries: frozenset[str]


class AsnList(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Parameters of `asn_deny`: autonomous system numbers (RFC 6793: 32 bits)."""

    asns: frozenset[int]


class SessionLimit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """At most `max` (1 or more) sessions active within `window`, counted `per` member, device class or app.

    With `activities` only sessions whose last counted interaction is one of
    them count, and only such an interaction is refused ("one may watch").
    """

    max: int
    window: timedelta = timedelta(seconds=1800)
    per: Per = Per.MEMBER
    activities: frozenset[Activity] | None = None


class DeviceLimit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """At most `max` (1 or more) devices used within `window`; None counts them for ever."""

    max: int
    window: timedelta | None = timedelta(days=30)
    per: Per = Per.MEMBER


class DeviceChurn(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """At most `max_new` (1 or more) devices admitted for the first time within `window`."""

    max_new: int
    window: timedelta = timedelta(days=30)


class NetworkLimit(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """At most `max` (1 or more) networks, each one `unit`, used within `window`."""

    max: int
    window: timedelta = timedelta(days=1)
    unit: Unit = Unit.IP


class ImpossibleTravel(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Two places at least `min_distance_km` apart, reached faster than `max_speed_kmh`."""

    max_speed_kmh: int
    min_distance_km: int


class CopiedSession(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One session seen from two browser families, or from two networks in turns."""

    signal: Signal = Signal.BROWSER


class LoginFailures(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The `max`th (1 or more) failed login within `window` locks for `lock`."""

    max: int
    window: timedelta
    lock: timedelta
    per: FailurePer = FailurePer.MEMBER


class EnrolmentNeeded(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """An enrolment in one of `products` must be active; None: in any."""

    products: frozenset[str] | None = None


Params: TypeAlias = (
    AddressList
    | CountryList
    | AsnList
    | SessionLimit
    | DeviceLimit
    | DeviceChurn
    | NetworkLimit
    | ImpossibleTravel
    | CopiedSession
    | LoginFailures
    | EnrolmentNeeded
)


class Escalation(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A rule's action grows with its cases of one member in the last `within`, and calms down with them.

    From `challenge_after` cases on it is a challenge, from `deny_after` on a
    refusal; None leaves a step out.
    """

    within: timedelta
    challenge_after: int | None = None
    deny_after: int | None = None


class Swaps(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How often within `window` a member may free a place by himself when he is challenged."""

    max: int
    window: timedelta


class Scope(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Whom a rule is about; an empty set means all."""

    tags: frozenset[str] = frozenset()
    except_tags: frozenset[str] = frozenset()
    products: frozenset[str] = frozenset()
    apps: frozenset[str] = frozenset()
    device_classes: frozenset[str] = frozenset()


EVERYBODY = Scope()


class Rule(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One restriction as the engine sees it, parameters parsed."""

    id: UUID
    version: int
    kind: Kind
    mode: Mode
    action: Action
    params: Params
    scope: Scope = EVERYBODY
    priority: int = 0
    message: str | None = None
    escalation: Escalation | None = None
    swaps: Swaps | None = None
