"""A tenant's rules and settings as they are stored and as callers write them, and their way to the engine."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Annotated, Any, Final, Literal, TypeAlias
from uuid import UUID

import msgspec

from accessguard.policies.branding import Brand
from accessguard.policies.hosts import Host
from accessguard.policies.params import (
    ACTIONS,
    BEAT_S,
    LONGEST_WINDOW_S,
    Opaque,
    Short,
    checked,
    escalation_of,
    parsed,
    refused,
    swaps_of,
)
from accessguard.policies.proxying import ProxySettings
from accessguard.rules.engine import in_order
from accessguard.rules.model import (
    EVERYBODY,
    Action,
    AddressList,
    AsnList,
    Code,
    CountryList,
    DeviceChurn,
    DeviceLimit,
    EnrolmentNeeded,
    Kind,
    LoginFailures,
    Mode,
    Rule,
    Scope,
    SessionLimit,
)
from accessguard.rules.needs import Need, needs_of, reach_of

Language: TypeAlias = Literal["en", "it", "pt-BR", "es", "ru", "uk"]
Days: TypeAlias = Annotated[int, msgspec.Meta(ge=1, le=1096)]


MANY: Final = msgspec.Meta(max_length=10_000)
"""As many as networks of a rule."""


class AppliesTo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom the rule is about; an empty list means all."""

    tags: Annotated[tuple[Short, ...], MANY] = ()
    except_tags: Annotated[tuple[Short, ...], MANY] = ()
    products: Annotated[tuple[Opaque, ...], MANY] = ()
    apps: Annotated[tuple[Opaque, ...], MANY] = ()
    device_classes: Annotated[tuple[Literal["desktop", "mobile", "tablet"], ...], MANY] = ()


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
    asked = checked(body.kind, body.params)
    return Rule(
        id=id,
        version=version,
        kind=body.kind,
        mode=body.mode,
        action=_action(body),
        params=parsed(asked),
        scope=_scope(body.applies_to),
        priority=body.priority,
        message=body.message,
        escalation=escalation_of(asked),
        swaps=swaps_of(asked),
    )


def normalised(body: RuleBody) -> RuleBody:
    """The body with every default written out, so that a stored rule says all of what it does."""
    params = msgspec.to_builtins(checked(body.kind, body.params))
    return msgspec.structs.replace(body, action=_action(body), params=params)


def _action(body: RuleBody) -> Action:
    allowed = ACTIONS[body.kind]
    if body.action is None:
        return allowed[0]
    if body.action not in allowed:
        detail = f"a rule of kind {body.kind} takes one of: {', '.join(allowed)}"
        raise refused("/action", detail)
    return body.action


def _scope(asked: AppliesTo) -> Scope:
    """The scope; the one of a rule for all is one object, so that the engine knows it at sight."""
    scope = Scope(
        tags=frozenset(asked.tags),
        except_tags=frozenset(asked.except_tags),
        products=frozenset(asked.products),
        apps=frozenset(asked.apps),
        device_classes=frozenset(asked.device_classes),
    )
    return EVERYBODY if scope == EVERYBODY else scope


class SessionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long a session lives without activity, and at the most (seconds)."""

    idle_ttl_s: Annotated[int, msgspec.Meta(ge=60, le=LONGEST_WINDOW_S)] = 30 * 86_400
    absolute_ttl_s: Annotated[int, msgspec.Meta(ge=60, le=LONGEST_WINDOW_S)] = 90 * 86_400


class CookieChoice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The device cookie's variant; a `domain` excludes the prefix `__Host-` (RFC 6265bis)."""

    prefix: Literal["__Host-", "__Secure-", ""] = "__Host-"
    domain: Annotated[str, msgspec.Meta(max_length=253, pattern=r"^\.?[A-Za-z0-9.-]+$")] | None = None
    same_site: Literal["Lax", "Strict", "None"] = "Lax"
    partitioned: bool = False


class Retention(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How long logs are kept, in days; `truncate_ip_after_days` None leaves addresses whole as long as their line.

    A year by default, the upper end of what the French regulator recommends for
    access logs (CNIL, deliberation 2021-122 of 14 October 2021: six months to a
    year; up to three with reasons of weight, the most that is taken here).
    """

    logins_days: Days = 365
    activity_days: Days = 365
    violations_days: Days = 365
    truncate_ip_after_days: Days | None = None


class Wording(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A school's own text for one code in one language; a draft is not shown."""

    text: Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]
    state: Literal["draft", "enabled"] = "draft"


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant's choices; whatever is left out has the default shown in the contract."""

    name: Short = ""
    support_email: Annotated[str, msgspec.Meta(max_length=254)] | None = None
    time_zone: Annotated[str, msgspec.Meta(max_length=64)] = "UTC"
    country: Annotated[str, msgspec.Meta(pattern="^[A-Z]{2}$(?!\\n)")] | None = None
    failure_mode: Literal["open", "closed"] = "open"
    session: SessionSettings = SessionSettings()
    cookie: CookieChoice = CookieChoice()
    retention: Retention = Retention()
    languages: Annotated[tuple[Language, ...], msgspec.Meta(max_length=6)] = ()
    messages: dict[Code, dict[Language, Wording]] = msgspec.field(default_factory=dict)
    passes_per_month: Annotated[int, msgspec.Meta(ge=0, le=31)] = 0
    copies: Literal["log", "off"] = "log"
    hosts: Annotated[tuple[Host, ...], msgspec.Meta(max_length=50)] = ()
    proxy: ProxySettings = ProxySettings()
    brand: Brand = Brand()


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """Everything a tenant decided, ready to be judged by; `generation` grows with each change.

    `by_product` says that some rule looks at the product, so that a verdict
    holds for one product alone, `by_activity` the same of the kind of
    interaction. `limits_alone`: every rule is a limit on
    sessions or devices. `static`: every other rule looks at nothing that
    changes by itself. `most_sessions` and `most_devices` are what the
    narrowest limits allow. `needs` is what the rules look at besides sessions
    and devices, `reach` how far back they look at addresses. `gap_ms` is how long after its last beat's 30 s a
    session may be silent and still be the same without a new look at it. `parent` is the tenant whose tokens may act for this one.
    """

    tenant: str
    generation: int
    rules: tuple[Rule, ...]
    settings: Settings
    by_product: bool
    by_activity: bool
    limits_alone: bool
    static: bool
    most_sessions: int
    most_devices: int
    needs: Need
    reach: timedelta
    gap_ms: int
    parent: str | None = None

    def idle(self, sessions: int, devices: int) -> bool:
        """Whether no rule can find anything about a member of so many open sessions and devices."""
        return self.limits_alone and sessions <= self.most_sessions and devices <= self.most_devices

    def timeless(self, sessions: int, devices: int) -> bool:
        """Whether what the rules find about such a member cannot change by the passing of time and by use."""
        return self.static and sessions <= self.most_sessions and devices <= self.most_devices


LONGEST_GAP_S: Final = 600
NO_LIMIT: Final = 1 << 30
STATIC: Final = (AddressList, CountryList, AsnList)


def policy(tenant: str, generation: int, settings: Settings, records: Sequence[RuleRecord]) -> Policy:
    """The policy made of stored records; rules that are off are left out."""
    rules = in_order([parse(record.body, id=record.id, version=record.version) for record in records])
    return policy_of(tenant, generation, settings, rules)


def policy_of(tenant: str, generation: int, settings: Settings, rules: Sequence[Rule]) -> Policy:
    """The policy of rules that stand in the order that `in_order` gave."""
    return Policy(
        tenant=tenant,
        generation=generation,
        rules=tuple(rules),
        settings=settings,
        by_product=any(rule.scope.products or isinstance(rule.params, EnrolmentNeeded) for rule in rules),
        by_activity=any(isinstance(rule.params, SessionLimit) and rule.params.activities for rule in rules),
        limits_alone=all(_is_limit(rule) for rule in rules),
        static=all(_is_limit(rule) or isinstance(rule.params, STATIC) for rule in rules),
        most_sessions=_narrowest(rule.params.max for rule in rules if isinstance(rule.params, SessionLimit)),
        most_devices=_narrowest(_most_devices(rule) for rule in rules),
        needs=needs_of(rules),
        reach=reach_of(rules),
        gap_ms=min(LONGEST_GAP_S, settings.session.idle_ttl_s - BEAT_S) * 1000,
    )


def _is_limit(rule: Rule) -> bool:
    """Whether a rule only counts sessions or devices, or is looked at when somebody logs in."""
    params = rule.params
    if isinstance(params, SessionLimit):
        return params.activities is None
    return isinstance(params, (DeviceLimit, DeviceChurn, LoginFailures))


def _narrowest(most: Iterable[int]) -> int:
    return min(most, default=NO_LIMIT)


def _most_devices(rule: Rule) -> int:
    """How many devices a rule finds nothing about, however new they are."""
    params = rule.params
    if isinstance(params, DeviceLimit):
        return params.max
    return params.max_new if isinstance(params, DeviceChurn) else NO_LIMIT
