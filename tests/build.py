"""Builders of what the pure engine is told: short to write, with a default for whatever a test does not care about."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec

from accessguard.guard.memory import Held, Memory
from accessguard.policies.model import Policy, RuleBody, Settings, parse, policy_of
from accessguard.rules.engine import in_order
from accessguard.rules.model import (
    Access,
    Action,
    DeviceFact,
    EnrolmentFact,
    Facts,
    FailureFact,
    Kind,
    Mode,
    NetworkFact,
    Place,
    Rule,
    SessionFact,
    SessionLimit,
    Stage,
)
from accessguard.rules.networks import Address, address
from accessguard.sessions.model import Device, Session, Snapshot

NOW = datetime(2026, 11, 21, 18, 0, tzinfo=UTC)
BEGIN = NOW - timedelta(hours=1)


def number(value: int) -> UUID:
    """A readable UUID."""
    return UUID(int=value)


def host(text: str) -> Address:
    """An address that is one."""
    found = address(text)
    assert found is not None
    return found


def session(name: str = "a", *, started: float = 0, idle: float = 0, **more: Any) -> SessionFact:
    """A session that began `started` minutes after BEGIN and was active `idle` minutes before NOW."""
    given: dict[str, Any] = {
        "id": name,
        "device_id": None,
        "started_at": BEGIN + timedelta(minutes=started),
        "last_activity": NOW - timedelta(minutes=idle),
    }
    return SessionFact(**given | more)


def device(value: int = 1, *, admitted: float | None = 0, seen: float = 0, **more: Any) -> DeviceFact:
    """A device admitted `admitted` days after the year began (None: never), seen `seen` days before NOW."""
    year = datetime(2026, 1, 1, tzinfo=UTC)
    given: dict[str, Any] = {
        "id": number(value),
        "access": Access.DEFAULT,
        "admitted_at": None if admitted is None else year + timedelta(days=admitted),
        "last_seen": NOW - timedelta(days=seen),
    }
    return DeviceFact(**given | more)


def place(**more: Any) -> Place:
    """Turin, as a geographic file knows it."""
    given: dict[str, Any] = {"country": "IT", "asn": 64500, "city": "Turin", "latitude": 45.07, "longitude": 7.69}
    return Place(**given | more)


def network(text: str = "203.0.113.9", *, admitted: float | None = 60, used: float = 0, **more: Any) -> NetworkFact:
    """An address in Turin admitted and first seen `admitted` minutes before NOW (None: refused), used `used` before."""
    first = NOW - timedelta(minutes=max(used, 60 if admitted is None else admitted))
    given: dict[str, Any] = {
        "address": host(text),
        "place": place(),
        "session_id": "a",
        "device_id": None,
        "first_at": first,
        "last_at": NOW - timedelta(minutes=used),
        "admitted_at": None if admitted is None else NOW - timedelta(minutes=admitted),
    }
    return NetworkFact(**given | more)


def failure(ago: float, *, ip: str | None = "203.0.113.9", device: int | None = None, own: bool = True) -> FailureFact:
    """A failed login `ago` seconds before NOW, from a stranger unless a `device` of the member is named."""
    return FailureFact(
        at=NOW - timedelta(seconds=ago),
        address=None if ip is None else host(ip),
        device_id=None if device is None else number(device),
        own=own,
    )


def enrolment(product: str = "p", *, starts: float = -10, ends: float | None = None, **more: Any) -> EnrolmentFact:
    """An active enrolment from `starts` to `ends` days after NOW."""
    return EnrolmentFact(
        product_id=product,
        starts_at=NOW + timedelta(days=starts),
        ends_at=None if ends is None else NOW + timedelta(days=ends),
        **more,
    )


def facts(**more: Any) -> Facts:
    """A check at NOW of session `a`, of nobody else, on no device, from 203.0.113.9."""
    given: dict[str, Any] = {
        "now": NOW,
        "stage": Stage.CHECK,
        "session": session(),
        "device": None,
        "address": host("203.0.113.9"),
    }
    return Facts(**given | more)


def rule(kind: Kind | str, action: Action | str | None = None, *, number_of_rule: int = 1, **more: Any) -> Rule:
    """A rule as an operator writes it, enforced; `params` holds its parameters."""
    body = msgspec.convert({"kind": kind, "mode": Mode.ENFORCE, "action": action} | more, RuleBody)
    return parse(body, id=number(number_of_rule), version=1)


def rules(*given: Rule) -> tuple[Rule, ...]:
    """Rules in the order in which they are judged."""
    return in_order(given)


def session_limit(most: int, *, window: float = 30) -> SessionLimit:
    """At most `most` sessions within `window` minutes."""
    return SessionLimit(max=most, window=timedelta(minutes=window))


def policy(*given: Rule, tenant: str = "t") -> Policy:
    """A policy of these rules with the settings nobody has changed."""
    return policy_of(tenant, 1, Settings(), rules(*given))


def stored_session(name: str = "s1", **more: Any) -> Session:
    """An open session as a snapshot holds it."""
    given: dict[str, Any] = {
        "id": name,
        "device_id": number(1),
        "device_class": "desktop",
        "app": None,
        "method": "password",
        "started_at": BEGIN,
        "expires_at": NOW + timedelta(days=90),
        "last_activity_at": None,
    }
    return Session(**given | more)


def stored_device(value: int = 1, **more: Any) -> Device:
    """An admitted device as a snapshot holds it, with a browser of its own."""
    given: dict[str, Any] = {
        "id": number(value),
        "browser_id": number(value),
        "access": Access.DEFAULT,
        "label": "Chrome on Windows",
        "browser": "Chrome",
        "os": "Windows",
        "device_class": "desktop",
        "admitted_at": BEGIN,
        "last_seen_at": NOW,
    }
    return Device(**given | more)


def snapshot(
    member: str = "ana",
    *,
    sessions: tuple[Session, ...] = (),
    devices: tuple[Device, ...] = (),
    generation: int = 1,
    **more: Any,
) -> Snapshot:
    """A member of tenant `t` with its checks on."""
    given: dict[str, Any] = {
        "tenant": "t",
        "member_id": member,
        "generation": generation,
        "staff": False,
        "tags": (),
        "locale": None,
        "checks_enabled": True,
        "checks_disabled_until": None,
        "sessions": sessions,
        "devices": devices,
    }
    return Snapshot(**given | more)


def hold(memory: Memory, snapshot: Snapshot, session_id: str, *, since: int | None = None, **more: Any) -> Held | None:
    """A plain allow of a session, held as after a check; None when the member was changed since that moment."""
    member = memory.member(snapshot, memory.moment() if since is None else since)
    if member is None:
        return None
    given: dict[str, Any] = {
        "policy": policy(tenant=snapshot.tenant),
        "asked": 0,
        "until": 100,
        "device": b"null",
        "flags": 0,
    }
    held = Held(member=member, **given | more)
    memory.hold(snapshot.tenant, session_id, held)
    return held
