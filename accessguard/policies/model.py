"""A tenant's rules and settings as they are stored and as callers write them, and their way to the engine."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal, TypeAlias
from uuid import UUID

import msgspec

from accessguard.errors import ErrorCode, GuardError, Problem
from accessguard.rules.engine import in_order
from accessguard.rules.model import (
    Action,
    AddressList,
    Code,
    DeviceLimit,
    Kind,
    Mode,
    Params,
    Per,
    Rule,
    Scope,
    SessionLimit,
)
from accessguard.rules.networks import NetworkError, networks

Short: TypeAlias = Annotated[str, msgspec.Meta(max_length=200)]
Opaque: TypeAlias = Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
Language: TypeAlias = Literal["en", "it", "pt-BR", "es", "ru", "uk"]
Limit: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=10_000)]

BEAT_S = 30  # the heartbeat of design.md: a window must be longer, or sessions flicker in and out of the count
LONGEST_WINDOW_S = 366 * 86_400


class AppliesTo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom the rule is about; an empty list means all."""

    tags: tuple[Short, ...] = ()
    except_tags: tuple[Short, ...] = ()
    products: tuple[Opaque, ...] = ()
    apps: tuple[Opaque, ...] = ()
    device_classes: tuple[Literal["desktop", "mobile", "tablet"], ...] = ()


class NetworksParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`networks`: addresses, CIDR, address with netmask, dash range, trailing wildcard; IPv4 and IPv6."""

    networks: Annotated[tuple[Short, ...], msgspec.Meta(min_length=1, max_length=10_000)]


class SessionLimitParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most `max` sessions active within `window_s` (over 30)."""

    max: Limit
    window_s: Annotated[int, msgspec.Meta(gt=BEAT_S, le=LONGEST_WINDOW_S)] = 1800
    per: Per = Per.MEMBER
    activities: None = None


class DeviceLimitParams(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """At most `max` devices used within `window_days`; null counts them for ever."""

    max: Limit
    window_days: Annotated[int, msgspec.Meta(ge=1, le=366)] | None = 30
    per: Literal["member", "device_class"] = "member"


ParamsBody: TypeAlias = NetworksParams | SessionLimitParams | DeviceLimitParams

PARAMS: dict[Kind, type[NetworksParams] | type[SessionLimitParams] | type[DeviceLimitParams]] = {
    Kind.IP_DENY: NetworksParams,
    Kind.IP_ALLOW_ONLY: NetworksParams,
    Kind.SESSION_LIMIT: SessionLimitParams,
    Kind.DEVICE_LIMIT: DeviceLimitParams,
}

ACTIONS: dict[Kind, tuple[Action, ...]] = {
    Kind.IP_DENY: (Action.DENY,),
    Kind.IP_ALLOW_ONLY: (Action.DENY,),
    Kind.SESSION_LIMIT: (
        Action.DENY_NEW,
        Action.EVICT_OLDEST,
        Action.EVICT_IDLE,
        Action.EVICT_OTHERS,
        Action.LOG,
    ),
    Kind.DEVICE_LIMIT: (Action.DENY_NEW, Action.LOG),
}


class RuleBody(msgspec.Struct, frozen=True, kw_only=True):
    """A rule as an operator writes it and as it is stored; `params` are checked against `kind`."""

    kind: Kind
    name: Short = ""
    mode: Mode = Mode.OBSERVE
    action: Action | None = None
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    applies_to: AppliesTo = AppliesTo()
    message: Annotated[str, msgspec.Meta(max_length=1000)] | None = None
    priority: Annotated[int, msgspec.Meta(ge=-1000, le=1000)] = 0


class RuleRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A stored rule: its body under an id and a version."""

    id: UUID
    version: int
    body: RuleBody
    updated_at: datetime


def parse(body: RuleBody, *, id: UUID, version: int) -> Rule:  # noqa: A002 - the field's own name
    """The rule that the engine judges by.

    Raises GuardError(INVALID) with a pointer to each refused parameter.
    """
    return Rule(
        id=id,
        version=version,
        kind=body.kind,
        mode=body.mode,
        action=_action(body),
        params=_params(body),
        scope=_scope(body.applies_to),
        priority=body.priority,
        message=body.message,
    )


def normalised(body: RuleBody) -> RuleBody:
    """The body with every default written out, so that a stored rule says all of what it does."""
    params = msgspec.to_builtins(_checked(body))
    return msgspec.structs.replace(body, action=_action(body), params=params)


def _action(body: RuleBody) -> Action:
    allowed = ACTIONS[body.kind]
    if body.action is None:
        return allowed[0]
    if body.action not in allowed:
        detail = f"a rule of kind {body.kind} takes one of: {', '.join(allowed)}"
        raise GuardError(ErrorCode.INVALID, "The rule was refused.", Problem(pointer="/action", detail=detail))
    return body.action


def _checked(body: RuleBody) -> ParamsBody:
    try:
        checked: ParamsBody = msgspec.convert(body.params, PARAMS[body.kind], strict=True)
    except msgspec.ValidationError as error:
        raise _refused(str(error)) from None
    if isinstance(checked, NetworksParams):
        _networks(checked)
    return checked


def _params(body: RuleBody) -> Params:
    match _checked(body):
        case NetworksParams() as asked:
            return _networks(asked)
        case SessionLimitParams() as asked:
            return SessionLimit(max=asked.max, window=timedelta(seconds=asked.window_s), per=asked.per)
        case DeviceLimitParams() as asked:
            window = None if asked.window_days is None else timedelta(days=asked.window_days)
            return DeviceLimit(max=asked.max, window=window, per=Per(asked.per))


def _networks(asked: NetworksParams) -> AddressList:
    try:
        return AddressList(networks=networks(asked.networks))
    except NetworkError as error:
        problem = Problem(pointer=f"/params/networks/{error.index}", detail=error.detail)
        raise GuardError(ErrorCode.INVALID, "The rule was refused.", problem) from None


def _refused(detail: str) -> GuardError:
    """From msgspec's "... - at `$.max`" to a pointer under /params."""
    text, _, path = detail.partition(" - at `$")
    pointer = "/params" + path.rstrip("`").replace(".", "/").replace("[", "/").replace("]", "")
    return GuardError(ErrorCode.INVALID, "The rule was refused.", Problem(pointer=pointer, detail=text))


def _scope(asked: AppliesTo) -> Scope:
    return Scope(
        tags=frozenset(asked.tags),
        except_tags=frozenset(asked.except_tags),
        products=frozenset(asked.products),
        apps=frozenset(asked.apps),
        device_classes=frozenset(asked.device_classes),
    )


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a session lives without activity, and at the most (seconds)."""

    idle_ttl_s: Annotated[int, msgspec.Meta(ge=60, le=LONGEST_WINDOW_S)] = 30 * 86_400
    absolute_ttl_s: Annotated[int, msgspec.Meta(ge=60, le=LONGEST_WINDOW_S)] = 90 * 86_400


class CookieChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The device cookie's variant; a `domain` excludes the prefix `__Host-` (RFC 6265bis)."""

    prefix: Literal["__Host-", "__Secure-", ""] = "__Host-"
    domain: Annotated[str, msgspec.Meta(max_length=253, pattern=r"^\.?[A-Za-z0-9.-]+$")] | None = None
    same_site: Literal["Lax", "Strict", "None"] = "Lax"


class Wording(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A school's own text for one code in one language; a draft is not shown."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    state: Literal["draft", "enabled"] = "draft"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant's choices; whatever is left out has the default shown in the contract."""

    name: Short = ""
    support_email: Annotated[str, msgspec.Meta(max_length=254)] | None = None
    time_zone: Annotated[str, msgspec.Meta(max_length=64)] = "UTC"
    failure_mode: Literal["open", "closed"] = "open"
    session: SessionSettings = SessionSettings()
    cookie: CookieChoice = CookieChoice()
    languages: Annotated[tuple[Language, ...], msgspec.Meta(max_length=6)] = ()
    messages: dict[Code, dict[Language, Wording]] = msgspec.field(default_factory=dict)


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a tenant decided, ready to be judged by; `generation` grows with each change.

    `limits_alone` says that every rule is a limit on sessions or devices.
    """

    tenant: str
    generation: int
    rules: tuple[Rule, ...]
    settings: Settings
    limits_alone: bool

    @property
    def by_product(self) -> bool:
        """Whether some rule looks at the product, so that a verdict holds for one product alone."""
        return any(rule.scope.products for rule in self.rules)


def policy(tenant: str, generation: int, settings: Settings, records: Sequence[RuleRecord]) -> Policy:
    """The policy made of stored records; rules that are off are left out."""
    rules = [parse(record.body, id=record.id, version=record.version) for record in records]
    limits = all(isinstance(rule.params, (SessionLimit, DeviceLimit)) for rule in rules)
    return Policy(tenant=tenant, generation=generation, rules=in_order(rules), settings=settings, limits_alone=limits)
