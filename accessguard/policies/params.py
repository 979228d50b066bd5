"""Parameters of each kind of rule as callers write them, what is refused of them, and their way to the engine."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Final, Literal, TypeAlias

import msgspec

from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.policies.countries import COUNTRIES
from accessguard.rules.model import (
    Action,
    Activity,
    AddressList,
    AsnList,
    CopiedSession,
    CountryList,
    DeviceChurn,
    DeviceLimit,
    EnrolmentNeeded,
    Escalation,
    FailurePer,
    ImpossibleTravel,
    Kind,
    LoginFailures,
    NetworkLimit,
    Params,
    Per,
    SessionLimit,
    Signal,
    Swaps,
    Unit,
)
from accessguard.rules.networks import NetworkError, networks

Short: TypeAlias = Annotated[str, msgspec.Meta(max_length=200)]
Opaque: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=10_000)]

BEAT_S: Final = 30  # the heartbeat of design.md: a window must be longer, or what is counted flickers
LONGEST_WINDOW_S: Final = 366 * 86_400
LARGEST_ASN: Final = 2**32 - 1  # RFC 6793

Window: TypeAlias = Annotated[int, msgspec.Meta(gt=BEAT_S, le=LONGEST_WINDOW_S)]
Days: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=366)]


class EscalationParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """After so many cases of a member in the last `days` the action becomes `challenge`, then the strictest."""

    days: Days = 30
    challenge_after: Limit | None = None
    deny_after: Limit | None = None


class SwapsParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How often a member may free a place by himself within `window_days`."""

    max: Limit = 1
    window_days: Days = 30


class NetworksParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`networks`: addresses, CIDR, address with netmask, dash range, trailing wildcard; IPv4 and IPv6."""

    networks: Annotated[tuple[Short, ...], msgspec.Meta(min_length=1, max_length=10_000)]


class Growing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a rule whose action may grow with the cases it opens."""

    escalation: EscalationParams | msgspec.UnsetType | None = msgspec.UNSET


class Swapping(Growing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of a rule whose places a member may free by himself."""

    swaps: SwapsParams | msgspec.UnsetType | None = msgspec.UNSET


class CountriesParams(Growing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`countries`: ISO 3166-1 alpha-2 codes."""

    countries: Annotated[
        tuple[Annotated[str, msgspec.Meta(min_length=2, max_length=2)], ...],
        msgspec.Meta(min_length=1, max_length=len(COUNTRIES)),
    ]


class AsnsParams(Growing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`asns`: numbers of autonomous systems, as network operators have them."""

    asns: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1, le=LARGEST_ASN)], ...], msgspec.Meta(min_length=1, max_length=10_000)
    ]


class SessionLimitParams(Swapping, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most `max` sessions active within `window_s` (over 30); with `activities` only those that do one of them."""

    max: Limit
    window_s: Window = 1800
    per: Per = Per.MEMBER
    activities: Annotated[tuple[Activity, ...], msgspec.Meta(min_length=1, max_length=len(Activity))] | None = None


class DeviceLimitParams(Swapping, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most `max` devices used within `window_days`; null counts them for ever."""

    max: Limit
    window_days: Days | None = 30
    per: Literal["member", "device_class"] = "member"


class DeviceChurnParams(Swapping, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most `max_new` devices that were new within `window_days`, forgotten and blocked ones too."""

    max_new: Limit
    window_days: Days = 30


class NetworkLimitParams(Growing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most `max` networks used within `window_s` (over 30); `unit` says what one network is."""

    max: Limit
    window_s: Window = 86_400
    unit: Unit = Unit.IP


class ImpossibleTravelParams(Growing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Two places at least `min_distance_km` apart, reached faster than `max_speed_kmh`.

    An airliner makes 900 km/h; the centre of a city stands for all of it, and
    for what a network operator counts to it, hence the distance.
    """

    max_speed_kmh: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 1000
    min_distance_km: Annotated[int, msgspec.Meta(ge=1, le=20_000)] = 200


class CopiedSessionParams(Growing, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One session seen in two browser families (`browser`), from two networks in turns (`network`), or either."""

    signal: Signal = Signal.BROWSER


class LoginFailuresParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The `max`th failed login within `window_s` (over 30) locks for `lock_s`; the lock ends by itself."""

    max: Limit
    window_s: Window = 900
    lock_s: Annotated[int, msgspec.Meta(ge=1, le=30 * 86_400)] = 900
    per: FailurePer = FailurePer.MEMBER


class EnrolmentParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An enrolment in one of `products` must be active; null: in any."""

    products: Annotated[tuple[Opaque, ...], msgspec.Meta(min_length=1, max_length=1000)] | None = None


ParamsBody: TypeAlias = (
    NetworksParams
    | CountriesParams
    | AsnsParams
    | SessionLimitParams
    | DeviceLimitParams
    | DeviceChurnParams
    | NetworkLimitParams
    | ImpossibleTravelParams
    | CopiedSessionParams
    | LoginFailuresParams
    | EnrolmentParams
)

PARAMS: Final[Mapping[Kind, type[ParamsBody]]] = {
    Kind.IP_DENY: NetworksParams,
    Kind.IP_ALLOW_ONLY: NetworksParams,
    Kind.COUNTRY_DENY: CountriesParams,
    Kind.COUNTRY_ALLOW_ONLY: CountriesParams,
    Kind.ASN_DENY: AsnsParams,
    Kind.LOGIN_FAILURES: LoginFailuresParams,
    Kind.ENROLMENT: EnrolmentParams,
    Kind.SESSION_LIMIT: SessionLimitParams,
    Kind.DEVICE_LIMIT: DeviceLimitParams,
    Kind.DEVICE_CHURN: DeviceChurnParams,
    Kind.NETWORK_LIMIT: NetworkLimitParams,
    Kind.IMPOSSIBLE_TRAVEL: ImpossibleTravelParams,
    Kind.COPIED_SESSION: CopiedSessionParams,
}

REFUSING: Final = (Action.DENY_NEW, Action.CHALLENGE, Action.LOG)

ACTIONS: Final[Mapping[Kind, tuple[Action, ...]]] = {
    Kind.IP_DENY: (Action.DENY,),
    Kind.IP_ALLOW_ONLY: (Action.DENY,),
    Kind.COUNTRY_DENY: (Action.DENY, Action.LOG),
    Kind.COUNTRY_ALLOW_ONLY: (Action.DENY, Action.LOG),
    Kind.ASN_DENY: (Action.DENY, Action.CHALLENGE, Action.LOG),
    Kind.LOGIN_FAILURES: (Action.DENY,),
    Kind.ENROLMENT: (Action.DENY,),
    Kind.SESSION_LIMIT: (
        Action.DENY_NEW,
        Action.EVICT_OLDEST,
        Action.EVICT_IDLE,
        Action.EVICT_OTHERS,
        Action.CHALLENGE,
        Action.LOG,
    ),
    Kind.DEVICE_LIMIT: REFUSING,
    Kind.DEVICE_CHURN: REFUSING,
    Kind.NETWORK_LIMIT: REFUSING,
    Kind.IMPOSSIBLE_TRAVEL: REFUSING,
    Kind.COPIED_SESSION: (Action.END_SESSION, Action.CHALLENGE, Action.LOG),
}


def checked(kind: Kind, params: Mapping[str, Any]) -> ParamsBody:
    """Read the parameters of a rule of `kind`.

    Raises GuardError(INVALID) with a pointer to each refused one.
    """
    try:
        asked: ParamsBody = msgspec.convert(params, PARAMS[kind], strict=True)
    except msgspec.ValidationError as error:
        raise _unreadable(str(error)) from None
    if isinstance(asked, CountriesParams):
        _countries(asked)
    if isinstance(asked, Growing) and isinstance(asked.escalation, EscalationParams):
        _check_escalation(kind, asked.escalation)
    parsed(asked)
    return asked


def parsed(asked: ParamsBody) -> Params:  # noqa: C901, PLR0911 - one case for each kind
    """The parameters as the engine counts with them. Raises GuardError(INVALID) for a network that is none."""
    match asked:
        case NetworksParams():
            return _networks(asked)
        case CountriesParams():
            return CountryList(countries=frozenset(each.upper() for each in asked.countries))
        case AsnsParams():
            return AsnList(asns=frozenset(asked.asns))
        case SessionLimitParams():
            kinds = None if asked.activities is None else frozenset(asked.activities)
            return SessionLimit(max=asked.max, window=_seconds(asked.window_s), per=asked.per, activities=kinds)
        case DeviceLimitParams():
            window = None if asked.window_days is None else timedelta(days=asked.window_days)
            return DeviceLimit(max=asked.max, window=window, per=Per(asked.per))
        case DeviceChurnParams():
            return DeviceChurn(max_new=asked.max_new, window=timedelta(days=asked.window_days))
        case NetworkLimitParams():
            return NetworkLimit(max=asked.max, window=_seconds(asked.window_s), unit=asked.unit)
        case ImpossibleTravelParams():
            return ImpossibleTravel(max_speed_kmh=asked.max_speed_kmh, min_distance_km=asked.min_distance_km)
        case CopiedSessionParams():
            return CopiedSession(signal=asked.signal)
        case LoginFailuresParams():
            window = _seconds(asked.window_s)
            return LoginFailures(max=asked.max, window=window, lock=_seconds(asked.lock_s), per=asked.per)
        case EnrolmentParams():
            return EnrolmentNeeded(products=None if asked.products is None else frozenset(asked.products))


def escalation_of(asked: ParamsBody) -> Escalation | None:
    """How the rule's action grows; None when it does not."""
    given = asked.escalation if isinstance(asked, Growing) else None
    if not isinstance(given, EscalationParams):
        return None
    within = timedelta(days=given.days)
    return Escalation(within=within, challenge_after=given.challenge_after, deny_after=given.deny_after)


def swaps_of(asked: ParamsBody) -> Swaps | None:
    """How often a member may free a place by himself; None for never."""
    given = asked.swaps if isinstance(asked, Swapping) else None
    if not isinstance(given, SwapsParams):
        return None
    return Swaps(max=given.max, window=timedelta(days=given.window_days))


def refused(pointer: str, detail: str) -> GuardError:
    """A rule that is refused for one of its fields."""
    return GuardError(ErrorCode.INVALID, "The rule was refused.", Problem(pointer=pointer, detail=detail))


def _seconds(seconds: int) -> timedelta:
    return timedelta(seconds=seconds)


def _networks(asked: NetworksParams) -> AddressList:
    try:
        return AddressList(networks=networks(asked.networks))
    except NetworkError as error:
        raise refused(f"/params/networks/{error.index}", error.detail) from None


def _countries(asked: CountriesParams) -> None:
    for index, country in enumerate(asked.countries):
        if country.upper() not in COUNTRIES:
            raise refused(f"/params/countries/{index}", "is no country code of ISO 3166-1 alpha-2, such as IT")


def _check_escalation(kind: Kind, asked: EscalationParams) -> None:
    challenge, deny = asked.challenge_after, asked.deny_after
    if challenge is None and deny is None:
        raise refused("/params/escalation", "needs challenge_after, deny_after or both")
    if challenge is not None and Action.CHALLENGE not in ACTIONS[kind]:
        raise refused("/params/escalation/challenge_after", f"a rule of kind {kind} knows no challenge")
    if challenge is not None and deny is not None and deny <= challenge:
        raise refused("/params/escalation/deny_after", "must be more than challenge_after")


def _unreadable(detail: str) -> GuardError:
    """From msgspec's "... - at `$.max`" to a pointer under /params."""
    text, _, path = detail.partition(" - at `$")
    pointer = "/params" + path.rstrip("`").replace(".", "/").replace("[", "/").replace("]", "")
    return refused(pointer, text)
